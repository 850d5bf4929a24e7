"""Figures of the book, still and movable."""
