"""Executed notebooks → HTML to share, a folder or one file, that opens from disk and asks the network for nothing."""

from workbench.extras import require_extra

require_extra("nbconvert", "figures")
