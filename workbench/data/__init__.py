"""Readers of fact files and task files, and the sets that come with the package."""
