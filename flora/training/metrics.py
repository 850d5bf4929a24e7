"""Scores of a whole split: sums over all its pixels, never averages over batches."""

from __future__ import annotations

import math
import warnings
import zipfile
import zlib
from collections import defaultdict
from pathlib import Path
from typing import TypedDict, cast

import numpy as np
import torch
from torch import Tensor, nn

from flora.datasets.base import Batch
from flora.errors import FloraError
from flora.sensors import DRY, WATER
from flora.training.operators import dilate, erode, ssim_map

# AlexNet's two poolings leave nothing of a smaller image.
LPIPS_SMALLEST = 31
# The 3 x 3 neighbourhood, as a distance in pixels.
NEIGHBOURHOOD = 1.5

Sums = dict[str, Tensor]


class Scores(TypedDict, total=False):
    """What a split scored. A score that its pixels do not define is absent.

    Attributes:
        chips: Chips seen.
        pixels_scored: Pixels labelled dry or water.
        water_iou: Intersection over union of water.
        water_f1: F1 (Dice) of water.
        precision: Share of the predicted water that is labelled water.
        recall: Share of the labelled water that is predicted.
        miou: Mean of the IoU of water and of dry land.
        accuracy: Share of labelled pixels that are right.
        boundary_f1: F1 of the shorelines within `boundary_tolerance` pixels.
        boundary_tolerance: In pixels.
        optical_pixels_scored: Valid pixels of the optical images.
        psnr: In dB for a white of 1, from the mean squared error over all of them; at most 100.
        psnr_constant: PSNR of one constant image, see `constant`.
        ssim: Mean over the valid pixels and channels.
        ssim_constant: SSIM of the constant image, absent unless it was given.
        constant: Which constant image: "mean of the training split" or "mean of these pixels".
        optical_scaling: What 1 is, without which no PSNR can be compared.
        lpips: Mean over chips, each weighted by its share of valid pixels.

    Example:
        >>> import torch
        >>> from flora import collate, open_dataset
        >>> from flora.training import SplitScores
        >>> batch = collate([open_dataset("simulated", None, "test", count=1, size=64)[0]])
        >>> scores = SplitScores("B4/B3/B2, stored value / 3000")
        >>> scores.update(None, torch.zeros(1, 1, 64, 64), batch)  # a model that makes no image
        >>> found = scores.compute()
        >>> found["recall"], "psnr" in found
        (0.0, False)
    """

    chips: int
    pixels_scored: int
    water_iou: float
    water_f1: float
    precision: float
    recall: float
    miou: float
    accuracy: float
    boundary_f1: float
    boundary_tolerance: float
    optical_pixels_scored: int
    psnr: float
    psnr_constant: float
    ssim: float
    ssim_constant: float
    constant: str
    optical_scaling: str
    lpips: float


class SplitScores:
    """Accumulates the scores of a split, in all and by place.

    Only sums are kept, so the scores do not depend on how the chips were batched. Water is scored
    wherever it is labelled, whether or not the radar saw the pixel; the image wherever
    `optical_valid` is true.

    Args:
        optical_scaling: `OpticalScaling.scaling` of the dataset, reported beside PSNR.
        lpips: The module that `load_lpips` returns, or None to leave LPIPS out.
        mean_image: (C_o,) mean optical value per band of the training split: the constant image
            to compare with. If None, it is the mean of the scored pixels, the best of all constant
            images, and has no SSIM. A place is compared with the same constant as the split.
        boundary_tolerance: Distance in pixels at which shorelines still agree.

    Raises:
        FloraError: If `mean_image` is not a vector of values in [0, 1].

    Example:
        A map that calls everything water is right where there is water:

        >>> import torch
        >>> from flora import collate, open_dataset
        >>> from flora.training import SplitScores
        >>> chips = open_dataset("simulated", None, "test", count=2, size=64)
        >>> scores = SplitScores(chips.optical_scaling.scaling)
        >>> for chip in chips:
        ...     scores.update(chip["optical"][None], torch.ones(1, 1, 64, 64), collate([chip]))
        >>> found = scores.compute()
        >>> found["recall"], found["precision"] == found["water_iou"], found["psnr"]
        (1.0, True, 100.0)
    """

    def __init__(
        self,
        optical_scaling: str,
        lpips: nn.Module | None = None,
        mean_image: Tensor | None = None,
        boundary_tolerance: float = 2.0,
    ) -> None:
        self.optical_scaling = optical_scaling
        self.lpips = lpips
        if mean_image is not None and not (
            mean_image.ndim == 1 and ((mean_image >= 0) & (mean_image <= 1)).all()
        ):
            raise FloraError(
                f"mean_image {mean_image}: expected one value in [0, 1] a band, the mean of the "
                "training split's `optical` over its valid pixels"
            )
        self.mean_image = None if mean_image is None else mean_image.detach().cpu().double()
        self.boundary_tolerance = boundary_tolerance
        self._places: defaultdict[str, Sums] = defaultdict(dict)

    @torch.no_grad()
    def update(
        self,
        rgb: Tensor | None,
        water_probability: Tensor | None,
        batch: Batch,
        threshold: float = 0.5,
    ) -> None:
        """Add a batch.

        Args:
            rgb: (B, C_o, H, W) in [0, 1], or None from a model that reconstructs no image.
            water_probability: (B, 1, H, W) in [0, 1], or None from a model that maps no water.
            batch: What was observed.
            threshold: Probability from which a pixel counts as water.

        Raises:
            FloraError: If shapes differ from the batch's, or values leave [0, 1] or are NaN.
        """
        sums: Sums = {"chips": torch.ones(len(batch["meta"]), dtype=torch.float64)}
        if water_probability is not None:
            _check("water_probability", water_probability, batch["water"][:, None], None)
            sums |= self._water_sums(water_probability[:, 0] >= threshold, batch["water"])
        if rgb is not None:
            _check("rgb", rgb, batch["optical"], batch["optical_valid"])
            with torch.autocast(rgb.device.type, enabled=False):
                sums |= self._optical_sums(rgb, batch["optical"], batch["optical_valid"])
        for chip, meta in enumerate(batch["meta"]):
            _add(self._places[meta["place"]], {key: value[chip] for key, value in sums.items()})

    def compute(self) -> Scores:
        """The scores of the split."""
        return self._scores(self._total(), self._constant())

    def compute_places(self) -> dict[str, Scores]:
        """The scores of each place, by name."""
        constant = self._constant()
        return {
            place: self._scores(self._places[place], constant) for place in sorted(self._places)
        }

    def _total(self) -> Sums:
        total: Sums = {}
        for sums in self._places.values():
            _add(total, sums)
        return total

    def _constant(self) -> Tensor | None:
        """The colour (C_o,) of the constant image, None where no pixel defines it."""
        total = self._total()
        if self.mean_image is not None or "optical" not in total or not total["optical"]:
            return self.mean_image
        return total["colour"] / total["optical"]

    def _water_sums(self, predicted: Tensor, water: Tensor) -> Sums:
        scored = (water == DRY) | (water == WATER)
        labelled = water == WATER
        shore, true_shore = _shoreline(predicted, scored), _shoreline(labelled, scored)
        near, near_true = (dilate(s, self.boundary_tolerance) for s in (shore, true_shore))
        return {
            "tp": _per_chip(predicted & labelled & scored),
            "fp": _per_chip(predicted & ~labelled & scored),
            "fn": _per_chip(~predicted & labelled & scored),
            "tn": _per_chip(~predicted & ~labelled & scored),
            "shore": _per_chip(shore),
            "shore_found": _per_chip(shore & near_true),
            "true_shore": _per_chip(true_shore),
            "true_shore_found": _per_chip(true_shore & near),
        }

    def _optical_sums(self, rgb: Tensor, optical: Tensor, valid: Tensor) -> Sums:
        mask = valid[:, None]
        prediction = torch.where(mask, rgb.float(), 0.0)
        target = torch.where(mask, optical.float(), 0.0)
        similarity = ssim_map(prediction, target, valid).mean(dim=1)
        wide = target.cpu().double()  # not every accelerator has float64
        sums: Sums = {
            "optical": _per_chip(valid),
            "squared_error": ((prediction.cpu().double() - wide) ** 2).flatten(1).sum(dim=1),
            "colour": wide.sum(dim=(-2, -1)),  # (B, C_o)
            "colour_squared": (wide**2).sum(dim=(-2, -1)),
            "similarity": _per_chip(torch.where(valid, similarity, 0.0)),
        }
        if self.mean_image is not None:
            if self.mean_image.shape != target.shape[1:2]:
                raise FloraError(
                    f"mean_image of shape {tuple(self.mean_image.shape)}: expected one value for "
                    f"each of the {target.shape[1]} optical bands of the batch"
                )
            constant = self.mean_image.to(target)[:, None, None].expand_as(target)
            similarity = ssim_map(constant, target, valid).mean(dim=1)
            sums["similarity_constant"] = _per_chip(torch.where(valid, similarity, 0.0))
        if self.lpips is not None:
            sums["share"] = _per_chip(valid) / valid[0].numel()
            sums["lpips"] = _lpips(self.lpips, prediction, target)
        return sums

    def _scores(self, sums: Sums, constant: Tensor | None) -> Scores:
        scores: Scores = {"chips": int(sums["chips"]) if sums else 0}
        if "tp" in sums:
            scores |= _water_scores(sums)
            scores["boundary_tolerance"] = self.boundary_tolerance
        if "optical" in sums:
            scores["optical_scaling"] = self.optical_scaling
            scores["optical_pixels_scored"] = int(sums["optical"])
            if constant is not None and sums["optical"] > 0:
                scores |= _optical_scores(sums, constant)
                known = self.mean_image is not None
                source = "mean of the training split" if known else "mean of these pixels"
                scores["constant"] = source
        return scores


def load_lpips(weights: Path | None = None) -> nn.Module:
    """The perceptual distance LPIPS v0.1 (Zhang et al. 2018) with its AlexNet trunk, frozen.

    Called with two (B, 3, H, W) images in [-1, 1], it returns (B, 1, 1, 1).

    Args:
        weights: An .npz file of the trunk (`features.N.weight`, `features.N.bias`, torchvision's
            names) and the heads (`linK.weight`). If None, torchvision's ImageNet weights are
            downloaded, or taken from its cache, and the heads are those of the lpips package.

    Raises:
        FloraError: If the file is not such a file, or the download fails.

    Example:
        >>> import torch
        >>> from flora.training.metrics import load_lpips
        >>> distance = load_lpips()  # doctest: +SKIP
        >>> float(distance(torch.ones(1, 3, 64, 64), -torch.ones(1, 3, 64, 64)))  # doctest: +SKIP
    """
    import lpips  # brings torchvision, which takes a second to import

    # The constructor draws random weights even where they are replaced: not from the caller's seed.
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # lpips calls torchvision by old names
        if weights is not None:
            # Without its own heads, which it would unpickle: the file has them.
            module = lpips.LPIPS(net="alex", pnet_rand=True, pretrained=False, verbose=False)
            _load_npz(module, weights)
        else:
            try:
                module = lpips.LPIPS(net="alex", verbose=False)
            except (OSError, RuntimeError) as error:
                raise FloraError(
                    f"the AlexNet weights of LPIPS could not be downloaded ({error}): connect to "
                    "the network, or pass an .npz file of them, load_lpips(weights=PATH)"
                ) from error
    return cast(nn.Module, module.eval().requires_grad_(False))


def _load_npz(module: nn.Module, path: Path) -> None:
    """Fill an LPIPS module from a file, all of it or nothing."""
    expected = "expected the .npz of AlexNet's features.N.* and the LPIPS heads linK.weight"
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    # A TypeError is a single array, an .npy file: it cannot be opened as an archive.
    except (OSError, ValueError, TypeError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise FloraError(
            f"weights {path}: not a readable .npz file ({error}); {expected}"
        ) from error
    found: list[tuple[Tensor, Tensor]] = []
    for name, parameter in module.named_parameters():
        # "net.slice2.3.weight" is AlexNet's features.3, "lin0.model.1.weight" a head.
        part, *_, layer, kind = name.split(".")
        key = f"features.{layer}.{kind}" if part == "net" else f"{part}.{kind}"
        array = arrays.get(key)
        if array is None or array.shape != parameter.shape or array.dtype != np.float32:
            got = "is missing" if array is None else f"is {array.dtype} of shape {array.shape}"
            raise FloraError(
                f"weights {path}: {key} {got}, expected float32 of shape "
                f"{tuple(parameter.shape)}; {expected}"
            )
        if not np.isfinite(array).all():
            raise FloraError(f"weights {path}: {key} is not finite; fetch the file again")
        found.append((parameter, torch.from_numpy(array)))
    with torch.no_grad():
        for target, values in found:
            target.copy_(values)


def _lpips(module: nn.Module, prediction: Tensor, target: Tensor) -> Tensor:
    """LPIPS of each chip (B,), of images that agree where not valid."""
    if target.shape[1] != 3 or min(target.shape[-2:]) < LPIPS_SMALLEST:
        raise FloraError(
            f"lpips: images of shape {tuple(target.shape)}, but LPIPS is defined for 3 bands and "
            f"at least {LPIPS_SMALLEST} x {LPIPS_SMALLEST} pixels: leave it out, lpips=None"
        )
    device = next(module.parameters()).device
    distance = module(2 * prediction.to(device) - 1, 2 * target.to(device) - 1)
    return cast(Tensor, distance.flatten().cpu().double())


def _shoreline(water: Tensor, scored: Tensor) -> Tensor:
    """Water pixels with dry land in their wholly labelled 3 x 3 neighbourhood."""
    return water & dilate(~water, NEIGHBOURHOOD) & erode(scored, NEIGHBOURHOOD)


def _water_scores(sums: Sums) -> Scores:
    tp, fp, fn, tn = (float(sums[key]) for key in ("tp", "fp", "fn", "tn"))
    water, dry = _ratio(tp, tp + fp + fn), _ratio(tn, tn + fp + fn)
    computed = {
        "water_iou": water,
        "water_f1": _ratio(2 * tp, 2 * tp + fp + fn),
        "precision": _ratio(tp, tp + fp),
        "recall": _ratio(tp, tp + fn),
        "miou": None if water is None or dry is None else (water + dry) / 2,
        "accuracy": _ratio(tp + tn, tp + fp + fn + tn),
        "boundary_f1": _boundary_f1(sums),
    }
    defined = {key: value for key, value in computed.items() if value is not None}
    return cast(Scores, {"pixels_scored": int(tp + fp + fn + tn), **defined})


def _boundary_f1(sums: Sums) -> float | None:
    """Harmonic mean of the shares of each shoreline that lie near the other; 0 if one is empty."""
    shore, true_shore = float(sums["shore"]), float(sums["true_shore"])
    if shore + true_shore == 0:
        return None
    precision = float(sums["shore_found"]) / max(shore, 1)
    recall = float(sums["true_shore_found"]) / max(true_shore, 1)
    return 2 * precision * recall / (precision + recall) if precision + recall > 0 else 0.0


def _optical_scores(sums: Sums, constant: Tensor) -> Scores:
    pixels = float(sums["optical"])
    values = pixels * len(constant)
    # Sum of (x - c)^2 without a second pass over x.
    away = sums["colour_squared"] - 2 * constant * sums["colour"] + pixels * constant**2
    scores: Scores = {
        "psnr": _psnr(float(sums["squared_error"]) / values),
        "psnr_constant": _psnr(float(away.sum()) / values),
        "ssim": float(sums["similarity"]) / pixels,
    }
    if "similarity_constant" in sums:
        scores["ssim_constant"] = float(sums["similarity_constant"]) / pixels
    if "lpips" in sums:
        scores["lpips"] = float(sums["lpips"]) / float(sums["share"])
    return scores


def _psnr(mean_squared_error: float) -> float:
    """In dB for a peak of 1; at most 100, so that equal images have a number too."""
    return -10 * math.log10(max(mean_squared_error, 1e-10))


def _ratio(part: float, whole: float) -> float | None:
    return part / whole if whole > 0 else None


def _per_chip(values: Tensor) -> Tensor:
    """Sum of (B, H, W) over each chip, exact for counts: (B,) float64."""
    return values.cpu().double().flatten(1).sum(dim=1)


def _add(total: Sums, more: Sums) -> None:
    for key, value in more.items():
        total[key] = total[key] + value if key in total else value


def _check(name: str, values: Tensor, like: Tensor, valid: Tensor | None) -> None:
    """Refuse a prediction of another shape than observed, or outside [0, 1] where it counts."""
    if values.shape != like.shape:
        raise FloraError(
            f"{name} of shape {tuple(values.shape)}: expected {tuple(like.shape)}, as in the batch"
        )
    inside = (values >= 0) & (values <= 1)
    if valid is not None:
        inside = inside | ~valid[:, None]
    if not inside.all():
        raise FloraError(
            f"{name} has values outside [0, 1] or NaN: expected the output of a sigmoid, or of "
            "clamp(0, 1); scores of anything else mean nothing"
        )
