"""Figures from notebooks: the manifest, the plan, its execution and the records of past runs."""

from workbench.extras import require_extra

require_extra("papermill", "figures")
