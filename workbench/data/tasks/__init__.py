"""Readers of the task data sets."""
