"""Readers of fact files and task files, and the data sets that come with the package."""
