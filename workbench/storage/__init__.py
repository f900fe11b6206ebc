"""Files, folders and tensors that are written whole or not at all, and caches."""
