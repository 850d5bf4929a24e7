"""Acquisitions found and fetched through STAC catalogues."""
