"""Channel order: which channels must share one, how to choose it, and putting it into the constants."""
