"""Sentinel-1 ground range products as ESA delivers them."""
