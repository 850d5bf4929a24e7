"""Scores of a predictor on a whole split."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from flora.datasets.base import Batch, FloodDataset, collate, map_layers, optical_stack
from flora.errors import FloraError
from flora.predictors import Mode, Prediction, Predictor
from flora.training.metrics import SplitScores


def to_device(batch: Batch, device: torch.device) -> Batch:
    """Move the tensors of a batch."""
    return map_layers(batch, lambda layer: layer.to(device))


def choose_device(name: str | None = None) -> torch.device:
    """The named device, or a GPU if there is one, else the CPU.

    Raises:
        FloraError: If the device does not exist on this machine.
    """
    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
        if device.type == "meta":
            raise RuntimeError("it holds no values")
    except (RuntimeError, AssertionError, ImportError) as error:
        raise FloraError(
            f"device {name!r} cannot be used ({str(error).splitlines()[0]}): choose cpu, or a "
            "device that torch sees on this machine"
        ) from error
    return device


def mean_image(dataset: FloodDataset, chips: int = 256) -> Tensor:
    """Mean optical value of each band (C_o,) over the valid pixels of a split.

    Args:
        dataset: The split.
        chips: At most so many chips are read, evenly spread over the split.
    """
    bands = len(dataset.optical_scaling.bands)
    total, pixels = torch.zeros(bands, dtype=torch.float64), 0
    for index in range(0, len(dataset), max(1, -(-len(dataset) // chips))):
        sample = dataset[index]
        total += sample["optical"][:, sample["optical_valid"]].double().sum(dim=1)
        pixels += int(sample["optical_valid"].sum())
    return (total / max(1, pixels)).float()


def answer(predict: Predictor, batch: Batch, mode: Mode = "sar") -> Prediction:
    """What a predictor answers to a batch of chips.

    Args:
        predict: See `flora.predictor`.
        batch: The chips.
        mode: Which optical image it is shown.

    Raises:
        FloraError: If the batch has no image of that mode.

    Example:
        >>> from flora import answer, collate, load_model, open_dataset, predictor
        >>> chips = open_dataset("simulated", None, "test", count=1, size=64)
        >>> water, rgb = answer(predictor(load_model()), collate([chips[0]]), "before")
        >>> water.shape, rgb.shape
        (torch.Size([1, 1, 64, 64]), torch.Size([1, 3, 64, 64]))
    """
    return predict(batch["sar"], batch["sar_valid"], optical_stack(batch, mode))


@torch.inference_mode()
def evaluate(
    predict: Predictor,
    dataset: FloodDataset,
    mode: Mode = "sar",
    device: torch.device | None = None,
    lpips: nn.Module | None = None,
    threshold: float = 0.5,
    mean_image: Tensor | None = None,
) -> dict[str, Any]:
    """Score a predictor on every chip of a split.

    Args:
        predict: The predictor, see `flora.predictor`.
        dataset: The split. Chips are scored whole, one at a time, whatever their sizes.
        mode: Which optical image the predictor is shown.
        device: Where the scores are computed.
        lpips: A module from `flora.training.metrics.load_lpips`, or None to leave LPIPS out.
        threshold: Probability from which a pixel counts as water.
        mean_image: Mean optical value per band (C_o,) of the training split, for the SSIM of the
            constant image.

    Returns:
        `all`: the scores of the split, from counts summed over it; `places`: the same per place.

    Raises:
        FloraError: If the split is empty, or has no image of the mode.

    Example:
        >>> from flora import evaluate, load_model, open_dataset, predictor
        >>> chips = open_dataset("simulated", None, "test", count=2, size=64)
        >>> scores = evaluate(predictor(load_model()), chips)
        >>> scores["all"]["chips"], 0 <= scores["all"]["water_iou"] <= 1, list(scores["places"])
        (2, True, ['simulated'])
    """
    if len(dataset) == 0:
        raise FloraError(
            f"{dataset.name}: the split is empty, so there is nothing to evaluate; check root and "
            "split"
        )
    scores = SplitScores(dataset.optical_scaling.scaling, lpips=lpips, mean_image=mean_image)
    for batch in DataLoader(dataset, batch_size=1, collate_fn=collate):
        here = to_device(batch, device or torch.device("cpu"))
        water, rgb = answer(predict, here, mode)
        scores.update(rgb, water, here, threshold)
    return {"all": scores.compute(), "places": scores.compute_places()}
