"""Graph passes, one a file, and the named pipelines that order them."""
