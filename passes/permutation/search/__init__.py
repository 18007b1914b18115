"""Search for the order of a class of channels that keeps the most importance under the patterns of all that it orders."""
