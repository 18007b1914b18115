"""Operators of the graph IR, one a file; `load_all` in `registry` imports every one."""
