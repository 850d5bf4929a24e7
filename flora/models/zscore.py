"""Water by what a season of radar images makes likely: no training, several dates."""

from __future__ import annotations

import numpy as np
import torch
from scipy.ndimage import median_filter
from torch import Tensor

from flora.errors import FloraError
from flora.predictors import Prediction, Predictor
from flora.season import SENTINEL1_SEASON, STATISTICS
from flora.sensors import OpticalStack


def z_score(fallen: float = -1.0, dark: float = -20.0, median: int = 9) -> Predictor:
    """A predictor that calls water what fell below its season, and what was dark all along.

    Flood is where the z-score over dates of VV or VH, after a median filter, is below a
    threshold (compare DeVries et al., Remote Sensing of Environment 240, 2020, who do not filter
    and ask for more); standing water is where the mean of VH is below another one. The defaults
    were the best of 30 rules on 24 simulated scenes of the validation split.

    The SAR image holds `flora.season.season_statistics`, scaled by `SENTINEL1_SEASON`.

    Args:
        fallen: Z-score below which a pixel is flood, in standard deviations.
        dark: Mean of VH before the flood below which it is standing water, in dB.
        median: Side of the median filter, in pixels; 1 for none.

    Raises:
        FloraError: When asked, if the SAR image does not hold these statistics.

    Example:
        >>> from flora import evaluate, open_dataset
        >>> from flora.models.zscore import z_score
        >>> dates = ("before:4", "after")
        >>> chips = open_dataset("simulated", None, "test", count=1, size=64, sar_dates=dates)
        >>> "water_iou" in evaluate(z_score(), chips)["all"]
        True
    """
    groups = len(STATISTICS)
    mean, score = STATISTICS.index("mean"), STATISTICS.index("z-score")

    def predict(sar: Tensor, valid: Tensor, _: OpticalStack | None, /) -> Prediction:
        if sar.shape[1] != len(SENTINEL1_SEASON.bands):
            raise FloraError(
                f"SAR image of {sar.shape[1]} band(s): expected the statistics of several dates; "
                'open simulated scenes with sar_dates=("before:4", "after")'
            )
        water = torch.zeros_like(sar[:, :1])
        for chip, image in enumerate(sar.cpu().numpy()):
            values = SENTINEL1_SEASON.restore(image).reshape(groups, -1, *image.shape[1:])
            scores = [median_filter(band, median) for band in values[score]]  # VV, VH
            flood = np.min(scores, axis=0) < fallen
            standing = median_filter(values[mean, 1], median) < dark
            water[chip, 0] = torch.from_numpy(flood | standing)
        return Prediction(water)

    return predict
