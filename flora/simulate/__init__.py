"""Simulated floods: a landscape, and what a radar and an optical satellite see of it."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
