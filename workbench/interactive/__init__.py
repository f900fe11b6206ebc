"""Interactive elements of the explorer, of saved pages and of reports: JSON data in, HTML and our own script out."""

from workbench.interactive.view import MIME, View, load_view, module, page_script, style

__all__ = ["MIME", "View", "load_view", "module", "page_script", "style"]
