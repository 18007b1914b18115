"""The graph IR and everything that reads or writes it (imports nothing, so that importing it is free)."""
