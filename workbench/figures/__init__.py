"""Figures from notebooks: the manifest, the plan, the runs and their records."""

from workbench.extras import require_extra

require_extra("papermill", "figures")
