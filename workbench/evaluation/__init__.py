"""Measuring a model: did the edit take, does it generalise, what else changed."""
