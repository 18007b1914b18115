"""What a pass is, how rules rewrite, how a pipeline runs and how it is written as text."""
