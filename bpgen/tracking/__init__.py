"""Tracking: what leaves the run's folder for Weights & Biases, and only that."""
