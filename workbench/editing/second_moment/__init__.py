"""The second moment C = E[k kᵀ] of the keys, with which ROME and MEMIT solve."""
