"""The command that scores a model: evaluate."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from flora.cli.console import console
from flora.cli.options import ChipOptions, Device, Lpips, Threshold, Weights
from flora.errors import Given
from flora.files import check_outputs, check_writable
from flora.predictors import Mode

PLACE_SCORES = ("chips", "water_iou", "water_f1", "miou", "psnr", "ssim", "lpips")


def evaluate(
    chips: ChipOptions,
    split: Annotated[str, typer.Option(help="Split to score.")] = "test",
    weights: Weights = None,
    mode: Annotated[
        Mode,
        typer.Option(
            help="Where the optical guidance comes from. sar: guessed from radar; before: an image "
            "from before the flood; oracle: the very image of the flood, for reference only."
        ),
    ] = "sar",
    threshold: Threshold = 0.5,
    lpips: Lpips = None,
    json_path: Annotated[
        Path | None, typer.Option("--json", help="Write all scores, per place too, to this file.")
    ] = None,
    device: Device = None,
) -> None:
    """Score weights on a split: one table for the split, one row a place."""
    import torch

    from flora.experiments.provenance import write_record
    from flora.models.checkpoints import shipped_weights
    from flora.models.predict import predictor
    from flora.models.weights import check_sensor, load_any
    from flora.training.evaluation import choose_device
    from flora.training.evaluation import evaluate as score
    from flora.training.metrics import load_lpips

    path = weights or shipped_weights()
    if json_path is not None:
        data = Given("root", chips.root if json_path.exists() else None)
        inputs = [Given("weights", path), Given("lpips", lpips), data]
        check_outputs([Given("json", json_path)], inputs)
        check_writable([Given("json", json_path)])
    dataset = chips.open(split)
    metadata = check_sensor(path, dataset)
    place = choose_device(device)
    scores = score(
        predictor(load_any(path), place),
        dataset,
        mode,
        place,
        load_lpips(lpips).to(place) if lpips else None,
        threshold,
        torch.tensor(metadata["optical_mean"]),
    )
    _print_scores(scores, f"{chips.dataset} {split}, {metadata['model']}, mode {mode}")
    if json_path is not None:
        record = {
            "dataset": chips.dataset,
            "split": split,
            "chips": len(dataset),
            "citation": dataset.citation,
            "data_sha256": dataset.manifest_hash(),
            "mode": mode,
            "threshold": threshold,
            "weights": metadata,
            "scores": scores,
        }
        write_record(json_path, record)


def _print_scores(scores: dict[str, Any], title: str) -> None:
    """One score a line for the split, then one line a place with the main ones."""
    screen = console()
    whole = Table("score", "value", title=title, title_justify="left")
    for name, value in scores["all"].items():
        whole.add_row(name, _score_text(value))
    screen.print(whole, soft_wrap=False)
    names = [name for name in PLACE_SCORES if name in scores["all"]]
    places = Table("place", *names)
    for place, row in scores["places"].items():
        places.add_row(place, *(_score_text(row.get(name, "-")) for name in names))
    screen.print(places, soft_wrap=False)


def _score_text(value: object) -> str:
    return f"{value:.3f}" if isinstance(value, float) else str(value)
