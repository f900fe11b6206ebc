"""Figures: a tidy table and an Axes in, the Axes out; laying out several Axes and writing files are apart."""
