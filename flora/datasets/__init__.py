"""Datasets, one module each; `base` holds what they share."""
