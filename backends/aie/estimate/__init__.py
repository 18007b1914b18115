"""Estimators: how long an array takes for a network, from the shapes of its layers alone."""
