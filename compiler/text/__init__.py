"""The text form of the graph IR: printer, parser, constant sidecar and diff."""
