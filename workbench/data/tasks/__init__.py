"""Readers of the data sets of the eight tasks."""
