"""The AI-Engine backend: instruction streams for an AIE2-like array of cores, simulated and estimated."""
