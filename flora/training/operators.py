"""Neighbourhood operators that losses and metrics share: gradient, Gaussian window, SSIM, dilation.

All work in float32, under autocast too.
"""

from __future__ import annotations

import functools
import math
from typing import Any

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


def masked(image: Tensor, mask: Tensor) -> Tensor:
    """An image that is 0 where the mask is false, whatever stood there.

    What is under a mask is filled before anything is computed: masking the result lets a NaN
    through to the gradient, as 0 * NaN.

    Args:
        image: (B, C, H, W).
        mask: (B, H, W) bool.

    Returns:
        (B, C, H, W) float32.
    """
    bits = -mask[:, None].int()  # (B, 1, H, W): all ones, or all zeros
    return _Masked.apply(image.float(), bits)  # type: ignore[no-any-return]


class _Masked(torch.autograd.Function):
    """`torch.where(mask, image, 0)` on the bits of the numbers: six times faster on a processor."""

    @staticmethod
    def forward(ctx: Any, image: Tensor, bits: Tensor) -> Tensor:
        ctx.save_for_backward(bits)
        return (image.view(torch.int32) & bits).view(torch.float32)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (bits,) = ctx.saved_tensors
        return (gradient.view(torch.int32) & bits).view(torch.float32), None


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
    return _window_sum(masked(image, valid)) / _window_weight(valid)


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
    x, y = masked(prediction, valid), masked(target, valid)
    share = 1 / _window_weight(valid)
    planes = torch.cat([x, x * x + y * y, x * y], dim=1)
    mean_x, mean_squares, mean_xy = (_window_sum(planes) * share).chunk(3, dim=1)
    mean_y = _window_sum(y) * share  # apart: no gradient is needed of a target
    product, squares = mean_x * mean_y, mean_x * mean_x + mean_y * mean_y
    variances = (mean_squares - squares).clamp_min(0)  # the sum of both
    similar = (2 * product + c1) * (2 * (mean_xy - product) + c2)
    return similar / ((squares + c1) * (variances + c2))


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
        image = masked(sar, valid).mean(dim=1, keepdim=True)
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
    rows, columns = mask.shape[-2:]
    around = F.pad(mask, (reach, reach, reach, reach))
    near = mask.clone()
    # Shifted and joined: on a processor several times faster than a convolution.
    for down in range(-reach, reach + 1):
        half = math.isqrt(math.floor(radius**2) - down**2)
        for right in range(-half, half + 1):
            top, left = reach + down, reach + right
            near |= around[:, top : top + rows, left : left + columns]
    return near


def erode(mask: Tensor, radius: float) -> Tensor:
    """Pixels of the mask with nothing unmasked within `radius`; the border takes nothing away."""
    return ~dilate(~mask, radius)


def _window_weight(valid: Tensor) -> Tensor:
    """Weight of the valid pixels under the window, (B, 1, H, W); a pixel's own is 0.07."""
    return _window_sum(valid[:, None].float()).clamp_min(1e-6)


def _window_sum(planes: Tensor) -> Tensor:
    """Sum under the Gaussian window of each plane of (B, C, H, W), mirrored at the borders."""
    return _Window.apply(planes)  # type: ignore[no-any-return]


class _Window(torch.autograd.Function):
    """Multiply (B, C, H, W) by the window's matrices, along rows and columns."""

    @staticmethod
    def forward(ctx: Any, planes: Tensor) -> Tensor:
        down, across = (_window_matrix(side, planes.device) for side in planes.shape[-2:])
        return _banded_product(down, planes, across.T)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        down, across = (_window_matrix(side, gradient.device) for side in gradient.shape[-2:])
        return _banded_product(down.T, gradient, across)


def _banded_product(left: Tensor, planes: Tensor, right: Tensor) -> Tensor:
    """The product left @ planes @ right of (B, C, H, W) and matrices that are 0 off a band.

    In float32 on a GPU too: in bfloat16 the variance in SSIM, a small difference of two large
    numbers, would be noise.
    """
    rows, columns = planes.shape[-2:]
    stacked = planes.reshape(-1, rows, columns).contiguous()
    between, product = torch.empty_like(stacked), torch.empty_like(stacked)
    with torch.autocast(planes.device.type, enabled=False):
        for out, near in _bands(columns, planes.device):
            torch.mm(
                stacked.view(-1, columns)[:, near],
                right[near, out],
                out=between.view(-1, columns)[:, out],
            )
        for out, near in _bands(rows, planes.device):
            block = left[out, near].expand(len(stacked), -1, -1)
            torch.bmm(block, between[:, near], out=product[:, out])
    return product.view(planes.shape)


def _bands(size: int, device: torch.device) -> list[tuple[slice, slice]]:
    """Slices of an axis, each with the part of it that the window reaches from there.

    On a processor slices of 32 save most of the product; a GPU is faster in one.
    """
    step = 32 if device.type == "cpu" else size
    return [
        (
            slice(start, start + step),
            slice(max(0, start - WINDOW_RADIUS), start + step + WINDOW_RADIUS),
        )
        for start in range(0, size, step)
    ]


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
