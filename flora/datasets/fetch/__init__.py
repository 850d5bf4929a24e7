"""Datasets from their publishers to the disk."""
