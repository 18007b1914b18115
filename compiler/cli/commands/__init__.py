"""One module a command (the listings share one)."""
