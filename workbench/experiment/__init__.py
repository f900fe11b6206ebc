"""Experiments: trajectories of edits, the measurements along them, and the store that keeps both."""
