"""From a scheduled graph to what the array runs: weights in chunks, buffers, descriptors, control."""
