"""Backends: each lowers a scheduled graph to a program, and emits or simulates it."""
