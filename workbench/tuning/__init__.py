"""Tuning: the hyperparameters with which a method edits a model well."""
