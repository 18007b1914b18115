"""The array, executed: an event-driven simulation that reads nothing but what was emitted."""
