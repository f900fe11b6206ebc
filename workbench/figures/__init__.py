"""Figures from notebooks: the manifest, the plan, the runs and their records."""
