"""The terms of FLoRA's training objective.

Every term averages over the pixels that its validity map keeps and reads no other: a pixel under
cloud or without a label changes neither the value nor the gradient, and where nothing is kept the
term is 0 with gradient 0. All terms are computed in float32, under autocast too.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from flora.errors import FloraError
from flora.sensors import DRY, WATER
from flora.training.operators import dilate, erode, masked, sar_edge, sobel, ssim_map

# The 3 x 3 neighbourhood that Sobel's operator reads, as a distance in pixels.
NEIGHBOURHOOD = 1.5
# Half width in pixels of the band around the labelled shoreline in which shorelines are compared.
SHORE_BAND = 3
# Gradient of the predicted probability, per pixel, from which its direction counts in full.
SHORE_SLOPE = 0.05


def charbonnier(prediction: Tensor, target: Tensor, valid: Tensor, epsilon: float = 1e-3) -> Tensor:
    """Mean of sqrt(difference^2 + epsilon^2): L1 with a smooth bottom (Charbonnier et al. 1994).

    Args:
        prediction: (B, C, H, W) in [0, 1].
        target: (B, C, H, W) in [0, 1].
        valid: (B, H, W) bool.
        epsilon: Difference below which the loss is quadratic; also its smallest value.

    Example:
        >>> import torch
        >>> from flora.training.losses import charbonnier
        >>> valid = torch.tensor([[[True, False]]])  # the wrong pixel is in cloud
        >>> image = torch.tensor([[[[0.0, 1.0]]]])
        >>> round(float(charbonnier(torch.zeros(1, 1, 1, 2), image, valid)), 4)  # epsilon
        0.001
    """
    prediction, target = filled(prediction, target, valid)
    return _masked_mean(torch.sqrt((prediction - target).square() + epsilon**2), valid)


def structural_dissimilarity(prediction: Tensor, target: Tensor, valid: Tensor) -> Tensor:
    """Mean of 1 - SSIM, in [0, 2] (Wang et al. 2004); masked as in `ssim_map`.

    Args:
        prediction: (B, C, H, W) in [0, 1].
        target: (B, C, H, W) in [0, 1].
        valid: (B, H, W) bool.

    Example:
        >>> import torch
        >>> from flora.training.losses import structural_dissimilarity
        >>> image, valid = torch.rand(1, 3, 16, 16), torch.ones(1, 16, 16, dtype=torch.bool)
        >>> bool(structural_dissimilarity(image, image, valid) < 1e-3)
        True
    """
    prediction, target = filled(prediction, target, valid)
    return _masked_mean(1 - ssim_map(prediction, target, valid), valid)


def edge_l1(prediction: Tensor, target: Tensor, valid: Tensor) -> Tensor:
    """L1 distance of the Sobel gradients, the sum of both components, per pixel.

    The components rather than the magnitude: they also see an edge of the wrong sign, and have
    a gradient where the image is flat. Only pixels whose 3 x 3 neighbourhood is valid count.

    Args:
        prediction: (B, C, H, W) in [0, 1].
        target: (B, C, H, W) in [0, 1].
        valid: (B, H, W) bool.

    Example:
        >>> import torch
        >>> from flora.training.losses import edge_l1
        >>> flat, valid = torch.zeros(1, 1, 8, 8), torch.ones(1, 8, 8, dtype=torch.bool)
        >>> float(edge_l1(flat, flat + 0.5, valid))  # a constant offset has no edge
        0.0
    """
    prediction, target = filled(prediction, target, valid)
    x, y = sobel(prediction - target)
    return _masked_mean(x.abs() + y.abs(), erode(valid, NEIGHBOURHOOD))


def spectrum_l1(prediction: Tensor, target: Tensor, valid: Tensor, floor: float = 1e-2) -> Tensor:
    """L1 distance of the log magnitudes of the orthonormal Fourier transforms.

    With P and T the transforms of prediction and target, it is the mean over frequencies of::

        | log sqrt(|P|^2 + floor^2) - log sqrt(|T|^2 + floor^2) |

    Both images are 0 where not valid. Images without a valid pixel do not enter the mean.

    Args:
        prediction: (B, C, H, W) in [0, 1].
        target: (B, C, H, W) in [0, 1].
        valid: (B, H, W) bool.
        floor: Magnitude below which differences fade. White noise of this standard deviation
            has this magnitude at every frequency, so what lies below is sensor noise.

    Example:
        >>> import torch
        >>> from flora.training.losses import spectrum_l1
        >>> image, valid = torch.rand(1, 1, 8, 8), torch.ones(1, 8, 8, dtype=torch.bool)
        >>> moved = image.roll(2, dims=-1)  # magnitudes do not see a shift
        >>> bool(spectrum_l1(image, moved, valid) < 1e-5)
        True
    """
    prediction, target = filled(prediction, target, valid)

    def power(image: Tensor) -> Tensor:
        spectrum = torch.fft.rfft2(image, norm="ortho")  # (B, C, H, W // 2 + 1)
        squared: Tensor = spectrum.real.square() + spectrum.imag.square()
        return squared + floor**2

    difference = 0.5 * torch.log(power(prediction) / power(target)).abs()
    seen = valid.flatten(1).any(dim=1)[:, None, None].expand_as(difference[:, 0])
    return _masked_mean(difference, seen)


def dice(logits: Tensor, water: Tensor, smooth: float = 1.0) -> Tensor:
    """1 - (2 sum(p y) + smooth) / (sum(p) + sum(y) + smooth), the sums over the whole batch.

    Over the batch, as the evaluation counts over the whole split: per image, one wrong pixel in
    a dry chip would weigh as much as a missed flood. In an all-dry batch the loss is
    sum(p) / (sum(p) + smooth), so predicted water still costs.

    Args:
        logits: (B, 1, H, W).
        water: (B, H, W), 0 dry, 1 water, all else ignored.
        smooth: Pixels added to both counts, which defines the loss where there is no water.

    Example:
        >>> import torch
        >>> from flora.training.losses import dice
        >>> water = torch.tensor([[[1, 1, 0, 255]]])
        >>> logits = torch.tensor([[[[50.0, 50.0, -50.0, 50.0]]]])  # right where labelled
        >>> round(float(dice(logits, water)), 4)
        0.0
    """
    logits, labelled, scored = _labelled(logits, water)
    probability = logits.sigmoid() * scored[:, None]
    overlap = (probability * labelled).sum()
    return 1 - (2 * overlap + smooth) / (probability.sum() + labelled.sum() + smooth)


def bce(logits: Tensor, water: Tensor) -> Tensor:
    """Binary cross-entropy, the mean over labelled pixels.

    Args:
        logits: (B, 1, H, W).
        water: (B, H, W), 0 dry, 1 water, all else ignored.

    Example:
        >>> import torch
        >>> from flora.training.losses import bce
        >>> loss = bce(torch.zeros(1, 1, 1, 2), torch.tensor([[[1, 255]]]))
        >>> round(float(loss), 4)  # log 2
        0.6931
    """
    logits, labelled, scored = _labelled(logits, water)
    entropy = F.binary_cross_entropy_with_logits(logits, labelled, reduction="none")
    return _masked_mean(entropy, scored)


def hydrology_edge(logits: Tensor, water: Tensor, sar: Tensor, sar_valid: Tensor) -> Tensor:
    """Align the predicted shoreline with the labelled one and with the SAR edge there.

    With p the water probability, y the label, s the smoothed SAR image and D Sobel's gradient,
    the loss is shape + direction::

        shape     = mean over band of |D_x p - D_x y| + |D_y p - D_y y|
        direction = mean over shore of w * (1 - cos(D p, -D s)) / 2
        cos(u, v) = u . v / (sqrt(|u|^2 + SHORE_SLOPE^2) |v|)

    `shore` are the pixels whose 3 x 3 neighbourhood holds both classes, `band` those within 3
    pixels of it; SHORE_SLOPE is 0.05 per pixel. Calm water is dark, so probability rises where
    backscatter falls: -D s points to the water, whichever side it lies on; cos is 0 for a flat
    prediction, between right and wrong. The weight w of `sar_edge` is near 1 on a
    clear SAR edge and 0 where SAR shows nothing but speckle. Pixels next to an ignored one are
    left out; so are, from the second part, pixels next to one without SAR.

    Args:
        logits: (B, 1, H, W).
        water: (B, H, W), 0 dry, 1 water, all else ignored.
        sar: (B, C_s, H, W), backscatter in dB or any increasing affine function of it, of the date
            that shows the shoreline.
        sar_valid: (B, H, W) bool.

    Example:
        >>> import torch
        >>> from flora.training.losses import hydrology_edge
        >>> water = torch.zeros(1, 16, 16, dtype=torch.int64)
        >>> water[..., 8:] = 1
        >>> sar = torch.where(water[:, None] == 1, -20.0, -8.0)
        >>> valid = torch.ones(1, 16, 16, dtype=torch.bool)
        >>> right = hydrology_edge(20.0 * (2 * water[:, None] - 1), water, sar, valid)
        >>> wrong = hydrology_edge(20.0 * (1 - 2 * water[:, None]), water, sar, valid)
        >>> bool(right < wrong)
        True
    """
    _check_map("sar_valid", sar_valid, water)
    logits, labelled, scored = _labelled(logits, water)
    inside = erode(scored, NEIGHBOURHOOD)
    shore = inside & dilate(water == WATER, NEIGHBOURHOOD) & dilate(water == DRY, NEIGHBOURHOOD)
    band = inside & dilate(shore, SHORE_BAND)
    p_x, p_y = sobel(logits.sigmoid())  # (B, 1, H, W)
    y_x, y_y = sobel(labelled)
    shape = _masked_mean((p_x - y_x).abs() + (p_y - y_y).abs(), band)

    s_x, s_y, weight = sar_edge(sar, sar_valid)  # of length 1
    cosine = -(p_x * s_x + p_y * s_y) / torch.sqrt(p_x**2 + p_y**2 + SHORE_SLOPE**2)
    direction = _masked_mean(weight * (1 - cosine) / 2, shore & erode(sar_valid, NEIGHBOURHOOD))
    return shape + direction


def distillation(student: Sequence[Tensor], teacher: Sequence[Tensor], valid: Tensor) -> Tensor:
    """1 - cosine of student's and teacher's feature vectors, in [0, 2]; the mean of the levels.

    The direction of a feature vector is taught and its length left free. No gradient reaches the
    teacher. A feature counts if all image pixels of its cell are valid; cells divide the image
    evenly.

    Args:
        student: One (B, C_l, H_l, W_l) a level.
        teacher: The same shapes.
        valid: (B, H, W) bool, at the image's own size.

    Raises:
        FloraError: If the two pyramids differ in levels or shapes.

    Example:
        >>> import torch
        >>> from flora.training.losses import distillation
        >>> teacher = [torch.ones(1, 8, 4, 4)]
        >>> valid = torch.ones(1, 16, 16, dtype=torch.bool)
        >>> opposite = [-level for level in teacher]
        >>> round(float(distillation(opposite, teacher, valid)), 3)
        2.0
    """
    shapes = [[tuple(level.shape) for level in pyramid] for pyramid in (student, teacher)]
    if not shapes[0] or shapes[0] != shapes[1]:
        raise FloraError(
            f"student: pyramid of shapes {shapes[0]}, but teacher has {shapes[1]}: expected the "
            "same levels and widths; build both models from one configuration"
        )
    losses = []
    for ours, theirs in zip(student, teacher, strict=True):
        hidden = F.adaptive_max_pool2d((~valid)[:, None].float(), ours.shape[-2:])  # (B, 1, ., .)
        kept = hidden[:, 0] < 0.5
        ours, theirs = filled(ours, theirs.detach(), kept)
        cosine = _inner(ours, theirs) * torch.rsqrt(
            (_inner(ours, ours) + 1e-6) * (_inner(theirs, theirs) + 1e-6)
        )  # (B, 1, H_l, W_l); 0 for a zero vector, with a bounded gradient
        losses.append(_masked_mean(1 - cosine, kept))
    return torch.stack(losses).mean()


def output_distillation(logits: Tensor, taught: Tensor, valid: Tensor) -> Tensor:
    """Dice and cross-entropy against a teacher's probability of water, where it gives one.

    With p the predicted and q the taught probability, both sums over the whole batch::

        1 - (2 sum(p q) + 1) / (sum(p^2) + sum(q^2) + 1) + mean of H(q, p) - H(q)

    Squares in the denominator make the first part smallest at p = q for soft targets too
    (Milletari et al., V-Net, 2016); H(q) makes the second part 0 there. Where the teacher is
    silent (NaN), nothing counts. Garg et al., Cross-modal distillation for flood extent mapping,
    2023, teach a radar network so from optical images without labels.

    Args:
        logits: (B, 1, H, W).
        taught: (B, H, W) in [0, 1], NaN where the teacher is silent.
        valid: (B, H, W) bool, where the radar measured.

    Example:
        >>> import torch
        >>> from flora.training.losses import output_distillation
        >>> taught = torch.tensor([[[0.9, 0.2, float("nan")]]])
        >>> valid = torch.ones(1, 1, 3, dtype=torch.bool)
        >>> loss = output_distillation(torch.logit(taught.nan_to_num(0.5))[:, None], taught, valid)
        >>> abs(round(float(loss), 5))  # the same where taught
        0.0
    """
    if taught.shape != logits[:, 0].shape:
        raise FloraError(
            f"taught of shape {tuple(taught.shape)} and logits of shape {tuple(logits.shape)}: "
            "expected (batch, rows, columns) and (batch, 1, rows, columns)"
        )
    _check_map("valid", valid, taught)
    known = taught.isfinite() & valid
    target = taught.float().masked_fill(~known, 0.0)[:, None]
    logits = masked(logits, known)
    probability = logits.sigmoid() * known[:, None]
    overlap = (probability * target).sum()
    squares = probability.square().sum() + target.square().sum()
    entropy = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    own = -torch.xlogy(target, target) - torch.xlogy(1 - target, 1 - target)
    return 1 - (2 * overlap + 1) / (squares + 1) + _masked_mean(entropy - own, known)


def _inner(first: Tensor, second: Tensor) -> Tensor:
    """Scalar product of the feature vectors of (B, C, H, W) at each pixel, (B, 1, H, W)."""
    return (first * second).sum(dim=1, keepdim=True)


def _masked_mean(values: Tensor, valid: Tensor) -> Tensor:
    """Mean of finite (B, C, H, W) over the pixels that (B, H, W) keeps, 0 if there is none."""
    return (values * valid[:, None]).sum() / (valid.sum() * values.shape[1]).clamp_min(1)


def filled(prediction: Tensor, target: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
    """Two float32 images that are 0 where not valid."""
    if prediction.shape != target.shape or prediction.ndim != 4:
        raise FloraError(
            f"prediction of shape {tuple(prediction.shape)} and target of shape "
            f"{tuple(target.shape)}: expected the same (batch, channels, rows, columns)"
        )
    _check_map("valid", valid, prediction[:, 0])
    return masked(prediction, valid), masked(target, valid)


def _labelled(logits: Tensor, water: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Logits and 0/1 label, float32 (B, 1, H, W), both 0 where ignored; and where they are not."""
    if water.ndim != 3 or logits.shape != (water.shape[0], 1, *water.shape[1:]):
        raise FloraError(
            f"logits of shape {tuple(logits.shape)} and water of shape {tuple(water.shape)}: "
            "expected (batch, 1, rows, columns) and (batch, rows, columns)"
        )
    scored = (water == DRY) | (water == WATER)
    return masked(logits, scored), (water == WATER).float()[:, None], scored


def _check_map(name: str, valid: Tensor, like: Tensor) -> None:
    if valid.dtype != torch.bool or valid.shape != like.shape:
        raise FloraError(
            f"{name} of shape {tuple(valid.shape)} and type {valid.dtype}: expected a bool map "
            f"of shape {tuple(like.shape)}"
        )
