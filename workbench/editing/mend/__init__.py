"""MEND: hypernetworks that turn gradients into weight updates (Mitchell et al. 2022, arXiv 2110.11309)."""
