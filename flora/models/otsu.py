"""Thresholds that a radar image gives for itself."""

from __future__ import annotations

import numpy as np
import torch
from scipy.ndimage import median_filter
from torch import Tensor

from flora.errors import FloraError
from flora.predictors import Prediction, Predictor
from flora.sensors import BoolArray, FloatArray, OpticalStack


def otsu_threshold(values: FloatArray, bins: int = 256) -> float:
    """The threshold that maximises the variance between the values below and above it.

    Otsu, IEEE Transactions on Systems, Man, and Cybernetics 9(1), 1979.

    Args:
        values: Any number of finite values.
        bins: Bins of the histogram between the smallest and the largest value.

    Example:
        >>> import numpy as np
        >>> from flora.models.otsu import otsu_threshold
        >>> vh = np.array([-26.0, -25.0, -24.0, -15.0, -14.0, -13.0], dtype=np.float32)
        >>> -24 < otsu_threshold(vh) < -15
        True
    """
    if np.ptp(values) < bins * np.spacing(np.abs(values).max()):
        values = values.astype(np.float64)  # bins as narrow as this are none in fewer digits
    counts, edges = np.histogram(values, bins)
    centres = (edges[:-1] + edges[1:]) / 2
    below = np.cumsum(counts)
    above = below[-1] - below
    sums = np.cumsum(counts * centres)
    gap = sums / np.maximum(below, 1) - (sums[-1] - sums) / np.maximum(above, 1)
    return float(edges[1:][np.argmax(below * above * gap**2)])


def flood_thresholds(before: FloatArray, after: FloatArray, seen: BoolArray) -> tuple[float, float]:
    """Otsu's thresholds of the radar image after a flood, and of its change.

    What is darker than the first, and has become darker by more than the second, is flood: water
    that was there before is dark at both dates. Where the second would call a pixel darker that is
    not, it is zero.

    Args:
        before: (H, W), logarithmic backscatter before the flood.
        after: (H, W), the same after it.
        seen: (H, W), where both are measured; at least one pixel.

    Returns:
        The threshold of `after`, and that of `after - before`, zero at most.

    Example:
        >>> import numpy as np
        >>> from flora.models.otsu import flood_thresholds
        >>> before = np.array([[-8.0, -8.0, -20.0, -9.0]], dtype=np.float32)
        >>> after = np.array([[-19.0, -8.0, -20.0, -8.0]], dtype=np.float32)
        >>> dark, darker = flood_thresholds(before, after, seen=np.full((1, 4), True))
        >>> ((after < dark) & (after - before < darker)).tolist()  # the river is not flood
        [[True, False, False, False]]
    """
    change = otsu_threshold((after - before)[seen])
    return otsu_threshold(after[seen]), min(change, 0.0)


def check_dates(bands: int) -> None:
    """Refuse a SAR image that is not one band at two dates.

    Args:
        bands: How many it has.

    Raises:
        FloraError: If they are not two.
    """
    if bands != 2:
        raise FloraError(
            f"SAR image of {bands} band(s): expected one before the flood and the same after it; "
            'open OMBRIA with sar_dates=("before", "after")'
        )


def otsu(band: int, median: int = 1) -> Predictor:
    """A predictor that calls water what is darker than the chip's own Otsu threshold.

    Args:
        band: Channel of the SAR image.
        median: Side of a median filter that is run before, in pixels; 1 for none.

    Example:
        >>> from flora import evaluate, open_dataset
        >>> from flora.models.otsu import otsu
        >>> chips = open_dataset("simulated", None, "test", count=1, size=64)
        >>> scores = evaluate(otsu(band=1, median=9), chips)["all"]
        >>> "water_iou" in scores, "psnr" in scores
        (True, False)
    """

    def predict(sar: Tensor, valid: Tensor, _: OpticalStack | None, /) -> Prediction:
        water = torch.zeros_like(sar[:, :1])
        for chip, image in enumerate(sar[:, band].cpu().numpy()):
            smooth = median_filter(image, median)
            threshold = otsu_threshold(smooth[valid[chip].cpu().numpy()])
            water[chip, 0] = torch.from_numpy(smooth < threshold)
        return Prediction(water)

    return predict


def otsu_change(median: int = 1) -> Predictor:
    """A predictor that calls flood what is dark, and darker than before: see `flood_thresholds`.

    The SAR image holds one band before the flood and the same after it.

    Args:
        median: Side of a median filter that is run on both before, in pixels; 1 for none.

    Raises:
        FloraError: When asked, if the SAR image has not two bands.

    Example:
        >>> import torch
        >>> from flora.models.otsu import otsu_change
        >>> dates = torch.tensor([[-8.0, -8.0, -20.0, -9.0], [-19.0, -8.0, -20.0, -8.0]])
        >>> valid = torch.full((1, 1, 4), True)
        >>> otsu_change()(dates[None, :, None], valid, None).water.flatten().tolist()
        [1.0, 0.0, 0.0, 0.0]
    """

    def predict(sar: Tensor, valid: Tensor, _: OpticalStack | None, /) -> Prediction:
        check_dates(sar.shape[1])
        water = torch.zeros_like(sar[:, :1])
        for chip, dates in enumerate(sar.cpu().numpy()):
            before, after = (median_filter(image, median) for image in dates)
            seen = valid[chip].cpu().numpy()
            dark, darker = flood_thresholds(before, after, seen)
            water[chip, 0] = torch.from_numpy((after < dark) & (after - before < darker))
        return Prediction(water)

    return predict
