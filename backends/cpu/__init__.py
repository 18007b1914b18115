"""The CPU backend: ahead-of-time C for a chosen instruction set."""
