"""Colours and limits that maps and figures share, as plain numbers: nothing is drawn here.

The colours of water and land differ in lightness too, hence survive colour blindness and grey
print. Limits are constants of the sensor, as the normalisation is, so that the same grey is the
same backscatter in every figure.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

WATER_COLOUR = "#0072b2"
DRY_COLOUR = "#ecd9a8"
OVERLAY_COLOUR = "#2fa4ff"  # lighter than WATER_COLOUR: it lies on radar-dark water
FLOOD_COLOUR = OVERLAY_COLOUR
PERMANENT_COLOUR = "#08519c"
MISS_COLOUR = "#c0261c"
FALSE_ALARM_COLOUR = "#f0b400"

# dB, by band: open water lies at the dark end, towns at the bright one.
BACKSCATTER_LIMITS = {"VV": (-25.0, 0.0), "VH": (-32.0, -7.0)}

# Of the probability: cividis (Nuñez et al. 2018, doi 10.1371/journal.pone.0199239) in 101 steps,
# in even steps of lightness, also for colour-blind readers.
_CIVIDIS = bytes.fromhex(
    "00224d00235000265500275900295e002a62002c67002e6b00307000317008337011356f16366f1c386e"
    "1f3a6e243c6e273d6d2b3f6d2f426c31436c35456c37466c3a486b3d4a6b404c6b434e6b454f6b48516b"
    "4a536b4d556c4e566c51586c535a6c565c6d595e6d5a5f6d5d616e5f636e61656f63666f666970686a70"
    "6a6c716d6e726e70737172737373747575757777767979777c7b787e7d78817f78838078858378878478"
    "8a86788c88788f8a77928c77948e779790769992769c94769e9675a19874a39a74a69c73a99e72aba072"
    "aea271b0a470b3a66fb5a86eb8ab6dbbad6cbdaf6bc1b169c3b368c6b567c8b765cbba64cdbc62d0be60"
    "d4c15ed6c35dd9c55adbc759dfca56e1cc54e4ce51e6d04fead34cedd648efd846f3da42f5dc3ff9df3a"
    "fbe136fde534fde737"
)


def probability_ramp() -> NDArray[np.uint8]:
    """Red, green, blue (101, 3) of the probabilities 0, 0.01 ... 1."""
    return np.frombuffer(_CIVIDIS, dtype=np.uint8).reshape(-1, 3)


def rgb_bytes(colour: str) -> tuple[int, int, int]:
    """Red, green and blue from 0 to 255 of a colour such as "#2fa4ff"."""
    red, green, blue = bytes.fromhex(colour.removeprefix("#"))
    return red, green, blue
