"""Editors: frozen hyperparameters with `compute_update(lm, requests) -> WeightUpdate`; none changes the model."""
