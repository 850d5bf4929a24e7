"""Simulated floods: a landscape, and what a radar and an optical satellite see of it."""
