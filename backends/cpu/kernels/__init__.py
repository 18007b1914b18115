"""Kernel families, one a file: compile-time parameters, run-time geometry, and the template that writes the C."""
