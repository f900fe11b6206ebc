"""The second moment C = E[k kᵀ] of the keys, which ROME and MEMIT solve with."""
