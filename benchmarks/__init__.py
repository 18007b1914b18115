"""Reproducible measurements, of sparsec and of its peers in the same run (other packages install a folder of this name too)."""
