"""Pruning: which weights to drop, by pattern and importance, on the graph as imported."""
