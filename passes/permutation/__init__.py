"""Orders of channels: what may be reordered, which order keeps the most, and reordering at no run-time cost."""
