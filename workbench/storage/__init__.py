"""Files, folders and tensors that are written completely or not at all, and caches."""
