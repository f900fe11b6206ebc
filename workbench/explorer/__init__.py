"""The explorer: edit facts interactively. `session` holds the edits, `panel` shows them as widgets."""

from workbench.extras import require_extra

require_extra("ipywidgets", "explorer")
