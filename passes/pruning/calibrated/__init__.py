"""Pruning with calibration data: what weights matter to real inputs, and what is kept makes up for what is dropped."""
