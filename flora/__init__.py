"""FLoRA: optical reconstruction and flood mapping from Sentinel-1 SAR.

The executable companion of arXiv 2605.02137. `__init__.pyi` is the table of what the package has:
a name is loaded when it is first used, and importing the package loads nothing else.
"""

import lazy_loader

__version__ = "0.2.0"

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
