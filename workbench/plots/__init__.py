"""Figures from tidy tables: functions that draw on an Axes or lay out a Figure, and one that writes the files."""
