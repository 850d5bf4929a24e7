"""Sentinel-1 scenes of any size, from files to maps."""
