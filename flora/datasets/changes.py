"""A dataset with one thing changed: for the ablations, and to show what a defect costs."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

import numpy as np
import torch
from scipy.ndimage import median_filter
from scipy.stats import rankdata

from flora.datasets.base import FloodDataset, Sample, Window, crop_sample, optical_stack
from flora.datasets.wrapped import Wrapped
from flora.models.otsu import check_dates, flood_thresholds
from flora.sensors import OpticalStack

DIRECTIONS = ((1, 0), (0, 1), (-1, 0), (0, -1))  # rows, columns
SHIFT = 4  # px


class Changed(Wrapped):
    """A dataset whose samples are changed after they are read."""

    change: ClassVar[str]

    def manifest(self) -> list[str]:
        """See `FloodDataset.manifest`; the ids name the change."""
        return [f"{name} {self.change}" for name in self.dataset.manifest()]


class Stretched(Changed):
    """SAR stretched chip by chip to the range from its 2nd to its 98th percentile.

    The released code of the paper does so; what is dark water in one chip and dark field in
    another then looks the same, for the absolute backscatter is gone.
    """

    change: ClassVar[str] = "stretched"

    def read(self, index: int, window: Window | None = None) -> Sample:
        """See `FloodDataset.read`; the percentiles are those of the whole chip."""
        sample = self.dataset.read(index)
        seen = sample["sar_valid"]
        values = sample["sar"][:, seen]  # (C, valid pixels)
        if values.shape[1]:
            low, high = np.percentile(values.numpy(), [2, 98], axis=1)
            low, span = torch.from_numpy(low), torch.from_numpy(np.maximum(high - low, 1e-6))
            unit = ((sample["sar"] - low[:, None, None]) / span[:, None, None]).clamp(0, 1)
            # Zero mean and unit spread of a uniform distribution: the scale the model expects.
            scaled = ((unit - 0.5) * np.sqrt(12.0)).float()
            sample = Sample(**{**sample, "sar": torch.where(seen, scaled, 0.0)})
        return sample if window is None else crop_sample(sample, window)


class Ranked(Changed):
    """SAR replaced, chip by chip and band by band, by the rank of each pixel.

    It takes away whatever a publisher's stretch has put in, at the price of the share of water in
    a chip: a half-flooded chip and a dry one have the same histogram.
    """

    change: ClassVar[str] = "ranked"

    def read(self, index: int, window: Window | None = None) -> Sample:
        """See `FloodDataset.read`; the ranks are those within the whole chip."""
        sample = self.dataset.read(index)
        seen = sample["sar_valid"]
        values = sample["sar"][:, seen].numpy()
        if values.shape[1]:
            ranks = rankdata(values, axis=1) / values.shape[1]  # in (0, 1]
            ranked = torch.zeros_like(sample["sar"])
            ranked[:, seen] = torch.from_numpy((ranks - 0.5) * np.sqrt(12.0)).float()
            sample = Sample(**{**sample, "sar": ranked})
        return sample if window is None else crop_sample(sample, window)


class Anchored(Changed):
    """SAR of two dates as the image after and its change, each less its Otsu threshold.

    A model that sees these starts where `flora.models.otsu.otsu_change` ends, with a
    median filter of 9 px. The level of the image after is gone, and so is that of the change,
    unless its threshold is the zero that caps it.
    """

    change: ClassVar[str] = "anchored"

    def read(self, index: int, window: Window | None = None) -> Sample:
        """See `FloodDataset.read`; the thresholds are those of the whole chip.

        Raises:
            FloraError: If the SAR image has not two bands, one before the flood and one after it.
        """
        sample = self.dataset.read(index)
        check_dates(len(sample["sar"]))
        seen = sample["sar_valid"]
        if seen.any():
            before, after = sample["sar"]
            smooth_before, smooth_after = (median_filter(date.numpy(), 9) for date in sample["sar"])
            dark, darker = flood_thresholds(smooth_before, smooth_after, seen.numpy())
            anchored = torch.stack([after - dark, after - before - darker])
            sample = Sample(**{**sample, "sar": torch.where(seen, anchored, 0.0)})
        return sample if window is None else crop_sample(sample, window)


class Misaligned(Changed):
    """SAR, optical images and label each cropped at a random position of their own.

    The released code of the paper draws the crop of every layer anew. Whole chips are unchanged.
    """

    change: ClassVar[str] = "misaligned"

    def read(self, index: int, window: Window | None = None) -> Sample:
        """See `FloodDataset.read`; only the SAR layers lie in the window that was asked for."""
        if window is None:
            return self.dataset.read(index)
        rows, columns = self.shape(index)
        random = np.random.default_rng([index, window.row, window.column])
        parts = {"sar": window}
        for layer in ("optical", "water", "before"):
            row = int(random.integers(rows - window.height + 1))
            column = int(random.integers(columns - window.width + 1))
            parts[layer] = Window(row, column, window.height, window.width)
        crops = {layer: self.dataset.read(index, part) for layer, part in parts.items()}
        sample = Sample(**crops["sar"])
        for key in sample:
            layer = key.split("_")[0]  # "optical_valid" goes with "optical"
            source = "optical" if layer == "index" else layer
            if source in crops:
                sample[key] = crops[source][key]  # type: ignore[literal-required]
        return sample


def moved(stack: OpticalStack, rows: int, columns: int) -> OpticalStack:
    """The image of one chip moved down and to the right, in pixels; what came in is not valid.

    Example:
        >>> import torch
        >>> from flora.datasets.changes import moved
        >>> from flora.sensors import OpticalStack
        >>> image = torch.arange(3.0).expand(1, 1, 3)
        >>> stack = moved(OpticalStack(image, image, torch.ones(1, 3, dtype=torch.bool)), 0, 1)
        >>> stack.image[0, 0].tolist(), stack.valid[0].tolist()
        ([2.0, 0.0, 1.0], [False, True, True])
    """
    image = stack.map(lambda layer: torch.roll(layer, (rows, columns), (-2, -1)))
    valid = image.valid.clone()
    for axis, step in ((0, rows), (1, columns)):
        edge = slice(0, step) if step > 0 else slice(valid.shape[axis] + step, None)
        if step:
            valid[(edge, slice(None)) if axis == 0 else (slice(None), edge)] = False
    return OpticalStack(image.image, image.index, valid, of_flood=stack.of_flood)


class Shifted(Changed):
    """Optical images moved 4 px against radar and label, in the four directions by turns.

    Both dates move alike, as where an orthorectification with a poor elevation model puts both
    passes in the same wrong place.
    """

    change: ClassVar[str] = f"shifted {SHIFT} px"

    def read(self, index: int, window: Window | None = None) -> Sample:
        """See `FloodDataset.read`; whole chips are moved, so a window saves no time."""
        sample = self.dataset.read(index)
        rows, columns = (SHIFT * step for step in DIRECTIONS[index % len(DIRECTIONS)])
        optical = moved(optical_stack(sample, "oracle"), rows, columns)
        changed = Sample(
            **{
                **sample,
                "optical": optical.image,
                "index": optical.index,
                "optical_valid": optical.valid,
            }
        )
        if "before" in sample:
            changed["before"] = moved(sample["before"], rows, columns)
        return changed if window is None else crop_sample(changed, window)


CHANGES: dict[str, Callable[[FloodDataset], FloodDataset]] = {
    "stretched": Stretched,
    "ranked": Ranked,
    "anchored": Anchored,
    "misaligned": Misaligned,
    "shifted": Shifted,
}
