"""Otsu's method on scenes: thresholds from the whole scene, then one answer a pixel."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
import torch
from scipy.ndimage import median_filter
from torch import Tensor

from flora.errors import FloraError, FloraWarning
from flora.models.otsu import flood_thresholds, otsu_threshold
from flora.predictors import Prediction, Predictor
from flora.scenes.inputs import SarScene
from flora.sensors import BoolArray, FloatArray, OpticalStack

OTSU_TAG, OTSU_CHANGE_TAG = "FLORA_OTSU_VH_BELOW_DB", "FLORA_OTSU_VH_CHANGE_BELOW_DB"
BAND = "VH"  # open water differs most from land in it
# Share of the variance that Otsu's threshold explains. Values of one normal population, which no
# threshold divides, reach 2 / pi = 0.64 (Otsu 1979, eq. 15, for the half-normal means).
DIVIDED = 0.7


@dataclass(frozen=True)
class SceneThresholds:
    """A predictor that calls water what is dark, and with two dates has become darker.

    The answer at a pixel depends on the pixels within half the median filter, and on nothing else.

    Attributes:
        channel: Of the normalised SAR image, the date of the flood.
        dark: Threshold of that channel, normalised.
        earlier: Channels of the same band before the flood; none with one date. Of several, the
            median of each pixel counts.
        darker: Threshold of the change from these to `channel`, normalised.
        median: Side of the median filter that is run on each channel before, in pixels.
        tags: The thresholds in words, in dB, to be kept with the maps.
    """

    channel: int
    dark: float
    earlier: tuple[int, ...]
    darker: float
    median: int
    tags: dict[str, str]

    def __call__(self, sar: Tensor, valid: Tensor, guide: OpticalStack | None, /) -> Prediction:
        """Probability 1 where a pixel is water, else 0; see `flora.predictors.Predictor`."""
        after = self._smooth(sar, (self.channel,))
        water = after < self.dark
        if self.earlier:
            water &= after - self._smooth(sar, self.earlier) < self.darker
        return Prediction(torch.from_numpy(water.astype(np.float32))[:, None].to(sar.device))

    def _smooth(self, sar: Tensor, channels: tuple[int, ...]) -> FloatArray:
        images = np.median(sar[:, list(channels)].cpu().numpy(), axis=1)
        smooth: FloatArray = median_filter(images, (1, self.median, self.median))
        return smooth


@dataclass(frozen=True)
class SceneOtsu:
    """Otsu's method, for `flora.map_scene` in place of a model: no training, no weights.

    One threshold on VH divides the whole scene. It is found on the scene's reduced sample and
    holds wherever a tile lies, so that tiles do not show. Where a scene has dates before the
    flood, too, what is dark and has become darker than their median is water:
    `flora.models.otsu.flood_thresholds`.

    Attributes:
        median: Side of a median filter against speckle, in pixels.

    Example:
        >>> from pathlib import Path
        >>> from flora import map_scene, open_scene
        >>> from flora.scenes.thresholds import SceneOtsu
        >>> from flora.simulate.scene import write_sen1floods11
        >>> labels = write_sen1floods11({"test": [5]}, Path("chips"), size=96)
        >>> with open_scene(next(Path("chips").rglob("*_S1Hand.tif"))) as scene:
        ...     predict = SceneOtsu().of(scene)
        ...     outputs = map_scene(scene, "flood", predict)
        >>> sorted(predict.tags)
        ['FLORA_OTSU_VH_BELOW_DB']
    """

    median: int = 9

    def of(self, scene: SarScene) -> SceneThresholds:
        """The thresholds of a scene.

        A sample of every n-th pixel is filtered over the same distance, as far as it can be.
        Where too little divides the values for two populations, a warning says so: Otsu's method
        divides a scene without water, too.

        Raises:
            FloraError: If the scene has no VH.
        """
        scaling = scene.scaling
        channels = [n for n, band in enumerate(scaling.bands) if band == BAND]
        if not channels:
            raise FloraError(
                f"polarisations {', '.join(scaling.bands)}, expected {BAND}",
                argument="sar_path",
                value=scene.name,
            )
        seen: BoolArray = np.asarray(np.isfinite(scene.sample).all(axis=0))
        values = scaling.normalise(scene.sample, seen)
        side = self.median // scene.sample_step // 2 * 2 + 1
        *earlier, last = channels
        after = median_filter(values[last], side)
        deviation = scaling.std[last]
        tags = {}
        if not earlier:
            dark, darker = otsu_threshold(after[seen]), 0.0
        else:
            before = median_filter(np.median(values[earlier], axis=0), side)
            dark, darker = flood_thresholds(before, after, seen)
            tags[OTSU_CHANGE_TAG] = f"{darker * deviation:.2f}"
        below = dark * deviation + scaling.mean[last]
        tags[OTSU_TAG] = f"{below:.2f}"
        _check_divided(after, seen, dark, below, scene)
        return SceneThresholds(last, dark, tuple(earlier), darker, self.median, tags)


def fitted(model: Predictor | SceneOtsu, scene: SarScene) -> Predictor:
    """What maps a scene: the model itself, or the thresholds that Otsu's method finds on it."""
    return model.of(scene) if isinstance(model, SceneOtsu) else model


def explained(values: FloatArray, threshold: float) -> float:
    """Share of the variance of `values` (n,) that lies between those below and above a threshold.

    Otsu 1979, eq. 13: the separability of the two classes.

    Example:
        >>> import numpy as np
        >>> from flora.scenes.thresholds import explained
        >>> explained(np.array([-25.0, -25.0, -15.0, -15.0]), -20.0)
        1.0
    """
    below = values < threshold
    share = float(below.mean())
    spread = float(np.var(values, dtype=np.float64))
    if spread == 0 or share in (0.0, 1.0):
        return 0.0
    gap = float(values[below].mean(dtype=np.float64) - values[~below].mean(dtype=np.float64))
    return share * (1 - share) * gap**2 / spread


def _check_divided(
    values: FloatArray, seen: BoolArray, dark: float, below: float, scene: SarScene
) -> None:
    share = explained(values[seen], dark)
    if share < DIVIDED:
        warnings.warn(
            FloraWarning(
                f"Otsu's threshold on {BAND}, {below:.1f} dB, explains {share:.0%} of the "
                f"variance of its values, expected {DIVIDED:.0%} or more (values that do not "
                "divide at all give about 64%): probably there is little water, or another thing "
                "is dark, and land is taken for water",
                argument="sar_path",
                value=scene.name,
                remedy="map a part with more water, or use weights",
            ),
            stacklevel=3,
        )
