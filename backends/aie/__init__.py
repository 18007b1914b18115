"""AI-Engine-2-like arrays: scheduling, instruction streams, and a simulator that executes them."""
