"""Neighbourhood operators that losses and metrics share: gradient, Gaussian window, SSIM, dilation.

All work in float32, under autocast too.
"""

from __future__ import annotations

import functools
import math

import torch
from torch import Tensor
from torch.nn import functional as F

WINDOW_RADIUS = 5
WINDOW_SIGMA = 1.5
# A SAR edge counts from this many times the gradient that uncorrelated speckle would leave. Real
# speckle is shared by neighbouring pixels, so smoothing leaves more of it: on a Sentinel-1 chip of
# Sen1Floods11 a factor of 3 weighs the shore twice as much as open water, .63 against .30.
SPECKLE_FACTOR = 3.0


def sobel(image: Tensor) -> tuple[Tensor, Tensor]:
    """Gradient of an image by Sobel's operator, in units of the image per pixel.

    A ramp of slope 1 has gradient 1. Outside the image its border pixels are repeated.

    Args:
        image: (B, C, H, W).

    Returns:
        The derivatives along columns (x, positive to the right) and along rows (y, positive
        downwards), each (B, C, H, W) float32.
    """
    padded = F.pad(image.float(), (1, 1, 1, 1), mode="replicate")  # (B, C, H + 2, W + 2)
    above, level, below = padded[..., :-2, :], padded[..., 1:-1, :], padded[..., 2:, :]
    across = above + 2 * level + below  # (B, C, H, W + 2)
    left, centre, right = padded[..., :-2], padded[..., 1:-1], padded[..., 2:]
    down = left + 2 * centre + right  # (B, C, H + 2, W)
    x = (across[..., 2:] - across[..., :-2]) / 8
    y = (down[..., 2:, :] - down[..., :-2, :]) / 8
    return x, y


def gaussian_blur(image: Tensor, valid: Tensor) -> Tensor:
    """Mean of the valid pixels under a Gaussian window, 11 x 11, standard deviation 1.5 pixels.

    What is not valid has no weight (normalised convolution, Knutsson and Westin 1993). The image
    is mirrored at its borders, as often as an image smaller than the window asks for.

    Args:
        image: (B, C, H, W).
        valid: (B, H, W) bool.

    Returns:
        (B, C, H, W) float32, meaningful where `valid`.
    """
    mask = valid[:, None]  # (B, 1, H, W)
    filled = torch.where(mask, image.float(), 0.0)
    planes = torch.cat([filled, mask.float()], dim=1)  # (B, C + 1, H, W)
    down, across = (_window_matrix(side, image.device) for side in planes.shape[-2:])
    # As products of matrices: several times faster than depthwise convolutions on a processor,
    # and in float32 on a GPU too (in bfloat16 the variance in SSIM, a small difference of two
    # large numbers, would be noise).
    with torch.autocast(image.device.type, enabled=False):
        total = down @ planes @ across.T
    return total[:, :-1] / total[:, -1:].clamp_min(1e-6)  # a valid pixel's own weight is 0.07


def ssim_map(prediction: Tensor, target: Tensor, valid: Tensor) -> Tensor:
    """Structural similarity at every pixel (Wang et al. 2004), for a data range of 1.

    Local means, variances and covariance are those of the valid pixels under the window, so
    what is not valid influences no pixel's similarity.

    Args:
        prediction: (B, C, H, W) in [0, 1].
        target: (B, C, H, W) in [0, 1].
        valid: (B, H, W) bool.

    Returns:
        (B, C, H, W) float32 in [-1, 1], meaningful where `valid`.

    Example:
        >>> import torch
        >>> from flora.training.operators import ssim_map
        >>> image, valid = torch.rand(1, 3, 16, 16), torch.ones(1, 16, 16, dtype=torch.bool)
        >>> bool((ssim_map(image, image, valid) > 0.999).all())
        True
    """
    c1, c2 = 0.01**2, 0.03**2
    # Filled before they are multiplied: a NaN under the mask would reach the gradient as 0 * NaN.
    x = torch.where(valid[:, None], prediction.float(), 0.0)
    y = torch.where(valid[:, None], target.float(), 0.0)
    mean_x, mean_xx, mean_xy = _blurred(valid, x, x * x, x * y)
    mean_y, mean_yy = _blurred(valid, y, y * y)  # apart: no gradient is needed of a target
    variances = (mean_xx - mean_x**2).clamp_min(0) + (mean_yy - mean_y**2).clamp_min(0)
    covariance = mean_xy - mean_x * mean_y
    luminance = (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1)
    return luminance * (2 * covariance + c2) / (variances + c2)


def sar_edge(sar: Tensor, valid: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Direction of the backscatter gradient, and how far it stands out of the speckle.

    With s the mean of the channels smoothed by `gaussian_blur`, the weight is

        w = max(0, |D s|^2 - (SPECKLE_FACTOR n)^2) / |D s|^2

    where n is the gradient that speckle alone would leave in s, from the local variance of what
    smoothing removed. On a logarithmic scale speckle is additive and as strong on land as on water.

    Args:
        sar: (B, C_s, H, W), backscatter in dB or any increasing affine function of it.
        valid: (B, H, W) bool.

    Returns:
        The gradient along columns and along rows, scaled to length 1 (0 where SAR is flat), and
        w in [0, 1]; each (B, 1, H, W) float32 without gradient, meaningful where the 3 x 3
        neighbourhood is valid.
    """
    with torch.no_grad():
        image = torch.where(valid[:, None], sar.float(), 0.0).mean(dim=1, keepdim=True)
        smoothed = gaussian_blur(image, valid)
        x, y = sobel(smoothed)
        speckle = _speckle_gain() * gaussian_blur((image - smoothed) ** 2, valid)
        energy = x**2 + y**2
        weight = (energy - SPECKLE_FACTOR**2 * speckle).clamp_min(0) / (energy + 1e-8)
        length = torch.sqrt(energy + 1e-8)
        return x / length, y / length, weight


def dilate(mask: Tensor, radius: float) -> Tensor:
    """Pixels no farther than `radius` pixels from a pixel of the mask.

    A radius of 1.5 is the 3 x 3 square, diagonals included.

    Args:
        mask: (B, H, W) bool.
        radius: Euclidean distance between pixel centres, in pixels.
    """
    reach = math.floor(radius)
    offset = torch.arange(-reach, reach + 1, device=mask.device)
    disc = (offset[:, None] ** 2 + offset[None, :] ** 2 <= radius**2).float()
    near = F.conv2d(mask[:, None].float(), disc[None, None], padding=reach)  # (B, 1, H, W)
    return near[:, 0] > 0.5


def erode(mask: Tensor, radius: float) -> Tensor:
    """Pixels of the mask with nothing unmasked within `radius`; the border takes nothing away."""
    return ~dilate(~mask, radius)


def _blurred(valid: Tensor, *images: Tensor) -> tuple[Tensor, ...]:
    return gaussian_blur(torch.cat(images, dim=1), valid).chunk(len(images), dim=1)


@functools.lru_cache(maxsize=32)
@torch.inference_mode(False)  # it is kept, and used in training afterwards
def _window_matrix(size: int, device: torch.device) -> Tensor:
    """The Gaussian window along one axis as a matrix (size, size); its rows sum to 1.

    The axis is extended by the window's radius by mirroring, 2 1 | 0 1 2 3 | 2 1, for any length.
    """
    offset = torch.arange(-WINDOW_RADIUS, WINDOW_RADIUS + 1)
    weight = torch.exp(-0.5 * (offset / WINDOW_SIGMA) ** 2)
    period = max(2 * (size - 1), 1)
    position = (torch.arange(size)[:, None] + offset) % period  # (size, 11)
    column = torch.minimum(position, period - position)
    matrix = torch.zeros(size, size)
    matrix.scatter_add_(1, column, (weight / weight.sum()).expand(size, -1))
    return matrix.to(device)


@functools.cache
def _speckle_gain() -> float:
    """Of white noise: squared gradient after smoothing, per variance of what smoothing removes.

    By Parseval's theorem both follow from the response to a single bright pixel.
    """
    impulse = torch.zeros(1, 1, 31, 31)
    impulse[..., 15, 15] = 1
    smoothed = gaussian_blur(impulse, torch.ones(1, 31, 31, dtype=torch.bool))
    x, y = sobel(smoothed)
    return float((x**2 + y**2).sum() / ((impulse - smoothed) ** 2).sum())
