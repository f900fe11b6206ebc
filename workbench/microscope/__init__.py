"""Closer looks at an edit: where it enters the model, what it writes, what it breaks."""
