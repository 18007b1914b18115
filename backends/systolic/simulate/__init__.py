"""The simulator: it reads the bytes of a stream, of weights and of data, and nothing of what made them."""
