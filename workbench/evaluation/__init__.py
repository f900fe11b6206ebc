"""Measurements of a model: whether an edit succeeds, whether it generalizes, and what else it changes."""
