"""FLoRA: optical reconstruction and flood mapping from Sentinel-1 SAR.

The executable companion of arXiv 2605.02137. Importing the package has no side effect.
"""

__version__ = "0.1.0"
