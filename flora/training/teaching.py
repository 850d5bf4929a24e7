"""What an optical image shows of water: a teacher's maps of chips without a label.

On a labelled chip the label says more than any teacher. On a pair of radar and optical images
without one, a teacher that sees the optical image can say what the radar network should answer:
distillation of outputs (Hinton et al., Distilling the knowledge in a neural network, 2015; across
sensors Gupta et al., CVPR 2016; for floods Garg et al. 2023, 10.1017/eds.2023.34).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from flora.datasets.base import Batch, FloodDataset, collate, optical_stack
from flora.errors import FloraError
from flora.models.network import Flora
from flora.models.norms import Norm
from flora.models.unet import BaselineOutput, UNet
from flora.sensors import IGNORE, OpticalStack
from flora.training.evaluation import to_device
from flora.training.metrics import SplitScores
from flora.training.objective import FloraLoss, LossWeights
from flora.training.task import Task

Dates = Literal["after", "both"]

Teacher = Callable[[Batch], Tensor]
"""Probability of water (B, 1, H, W) in [0, 1] that the optical images of a batch show; NaN where
they show nothing, under cloud for instance."""

WATER_TERMS = LossWeights(
    charbonnier=0.0,
    ssim=0.0,
    edge=0.0,
    spectrum=0.0,
    hydrology=0.0,
    distill_fused=0.0,
    distill_prior=0.0,
    distill_output=0.0,
)


class OpticalWater(nn.Module):
    """A U-Net from optical images to water: a teacher that never sees the radar.

    Where only new flood is labelled, as in OMBRIA, the image from before the flood tells permanent
    water from new; where all water is, one image is enough.

    Args:
        optical_channels: Bands of the image.
        dates: "after", or "both" for the image from before the flood too.
        widths: Channels of each level. Water is easier to see in an optical image than in radar:
            half the widths of the radar U-Net do.
        norm: See `flora.models.norms.Norm`.

    Example:
        >>> from flora import collate, open_dataset
        >>> from flora.training.teaching import OpticalWater
        >>> batch = collate([open_dataset("simulated", None, "train", count=1, size=64)[0]])
        >>> OpticalWater(optical_channels=3)(batch).water_logits.shape
        torch.Size([1, 1, 64, 64])
    """

    def __init__(
        self,
        optical_channels: int,
        dates: Dates = "after",
        widths: Sequence[int] = (8, 16, 32, 64),
        norm: Norm = "batch",
    ) -> None:
        super().__init__()
        self.dates = dates
        stacks = 2 if dates == "both" else 1
        # Image, index and validity of each date.
        self.unet = UNet(stacks * (optical_channels + 2), widths, norm=norm)
        self.config = {
            "optical_channels": optical_channels,
            "dates": dates,
            "widths": tuple(widths),
            "norm": norm,
        }

    def forward(self, batch: Batch) -> BaselineOutput:
        """Water logits (B, 1, H, W) of a batch's optical images."""
        layers = []
        for mode in ("oracle", "before") if self.dates == "both" else ("oracle",):
            stack = optical_stack(batch, mode)
            valid = stack.valid.unsqueeze(1)
            layers += [stack.image * valid, stack.index * valid, valid.to(stack.image.dtype)]
        output: BaselineOutput = self.unet(torch.cat(layers, dim=1))
        return output

    @torch.inference_mode()
    def teach(self, batch: Batch) -> Tensor:
        """The teacher's map, see `Teacher`."""
        self.eval()
        water = torch.sigmoid(self(batch).water_logits)
        return water.masked_fill(~_seen(batch, self.dates)[:, None], torch.nan)


class OpticalWaterTask(Task):
    """Train an `OpticalWater` on labelled chips.

    Args:
        model: The teacher.
    """

    model: OpticalWater

    def __init__(self, model: OpticalWater) -> None:
        super().__init__(model)
        self.loss = FloraLoss(WATER_TERMS)

    def forward(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """See `flora.training.task.Task`; what no image shows is not asked for."""
        seen = _seen(batch, self.model.dates)
        shown = cast(Batch, {**batch, "sar_valid": seen})
        total: tuple[Tensor, dict[str, Tensor]] = self.loss(self.model(batch), shown, teacher=None)
        return total

    def describe(self) -> dict[str, Any]:
        """See `flora.training.task.Task`."""
        return {
            "model": "optical water",
            "task": "teacher",
            "config": self.model.config,
            "loss": asdict(self.loss.weights),
        }


@dataclass(frozen=True)
class IndexTeacher:
    """A water index as the teacher: free labels, from no label at all.

    A pixel is water where the index of the image exceeds a threshold. With "both" dates it is new
    water: not water before. It answers 0 or 1.

    Attributes:
        index_name: What the dataset's index is, see `OpticalScaling.index_name`: a water index
            (NDWI, McFeeters 1996; MNDWI, Xu 2006) is taken as it is; of red, green, blue and
            NDVI the near infrared, and with it NDWI, is worked out.
        dates: "after" for all water, "both" for new water.
        threshold: Index above which a pixel is water.

    Raises:
        FloraError: If the index is none of these.

    Example:
        >>> from flora import collate, open_dataset
        >>> from flora.training.teaching import IndexTeacher
        >>> chips = open_dataset("simulated", None, "train", count=1, size=64)
        >>> water = IndexTeacher(chips.optical_scaling.index_name)(collate([chips[0]]))
        >>> water.shape, water[water.isfinite()].unique().tolist()
        (torch.Size([1, 1, 64, 64]), [0.0, 1.0])
    """

    index_name: str
    dates: Dates = "after"
    threshold: float = 0.0

    def __post_init__(self) -> None:
        if self.index_name not in ("NDVI", "NDWI", "MNDWI"):
            raise FloraError(f"index_name {self.index_name!r}: expected NDVI, NDWI or MNDWI")

    def __call__(self, batch: Batch) -> Tensor:
        """See `Teacher`."""
        water = self._index(optical_stack(batch, "oracle")) > self.threshold
        if self.dates == "both":
            before = self._index(optical_stack(batch, "before")) > self.threshold
            water = water & ~before
        return water.float().masked_fill(~_seen(batch, self.dates)[:, None], torch.nan)

    def _index(self, stack: OpticalStack) -> Tensor:
        """The water index (B, 1, H, W)."""
        if self.index_name != "NDVI":
            return stack.index
        red, green = stack.image[:, :1], stack.image[:, 1:2]
        near_infrared = red * (1 + stack.index) / (1 - stack.index).clamp_min(1e-3)
        return (green - near_infrared) / (green + near_infrared).clamp_min(1e-3)


def flora_teacher(model: Flora) -> Teacher:
    """FLoRA's own teacher, through its water decoder, as a `Teacher` of one date.

    Args:
        model: A model whose teacher and decoders were pre-trained, see
            `flora.training.tasks.TeacherTask`.
    """

    @torch.inference_mode()
    def teach(batch: Batch) -> Tensor:
        model.eval()
        guide = model.guide(batch["optical"], batch["index"], batch["optical_valid"])
        _, logits = model.decode(guide.features, *batch["optical"].shape[-2:])
        return torch.sigmoid(logits).masked_fill(~_seen(batch, "after")[:, None], torch.nan)

    return teach


def teach(
    teacher: Teacher,
    chips: FloodDataset,
    confidence: float = 0.8,
    device: torch.device | None = None,
) -> list[Tensor]:
    """Ask a teacher about every chip, for `flora.datasets.unlabelled.Unlabelled`.

    Args:
        teacher: Who is asked.
        chips: The chips; their labels are not looked at.
        confidence: The teacher counts where it gives water, or its absence, this probability or
            more; with 0.5 it counts everywhere.
        device: Where the teacher computes.

    Returns:
        One float16 (H, W) a chip, NaN where the teacher is silent, unsure or sees cloud.

    Raises:
        FloraError: If the confidence is out of range.

    Example:
        >>> from flora import open_dataset
        >>> from flora.training.teaching import IndexTeacher, teach
        >>> chips = open_dataset("simulated", None, "train", count=1, size=64)
        >>> heard = teach(IndexTeacher("NDVI"), chips)
        >>> bool((heard[0].isfinite() == chips[0]["optical_valid"]).all())
        True
    """
    if not 0.5 <= confidence <= 1:
        raise FloraError(f"confidence {confidence}: expected a probability from 0.5 to 1")
    heard = []
    for batch in DataLoader(chips, batch_size=1, collate_fn=collate):
        water = teacher(to_device(batch, device or torch.device("cpu")))[0, 0].cpu()
        unsure = torch.maximum(water, 1 - water) < confidence
        heard.append(water.masked_fill(unsure, torch.nan).half())
    return heard


def teacher_scores(teacher: Teacher, chips: FloodDataset) -> dict[str, Any]:
    """How well a teacher maps the water of labelled chips.

    Returns:
        `clear`: scores over the pixels that it sees; `all`: over all labelled ones, where what it
        does not see counts as dry; `seen`: share of labelled pixels that it sees.

    Example:
        >>> from flora import open_dataset
        >>> from flora.training.teaching import IndexTeacher, teacher_scores
        >>> chips = open_dataset("simulated", None, "test", count=2, size=64)
        >>> scores = teacher_scores(IndexTeacher("NDVI"), chips)
        >>> sorted(scores), scores["clear"]["water_iou"] > scores["all"]["water_iou"]
        (['all', 'clear', 'seen'], True)
    """
    clear, everything = (SplitScores(chips.optical_scaling.scaling) for _ in range(2))
    seen = labelled = 0
    for batch in DataLoader(chips, batch_size=1, collate_fn=collate):
        water = teacher(batch)
        shown = water.isfinite()[:, 0]
        known = (batch["water"] != IGNORE) & batch["sar_valid"]
        seen += int((shown & known).sum())
        labelled += int(known.sum())
        guess = water.nan_to_num(0.0)
        everything.update(None, guess, batch)
        unseen = batch["water"].masked_fill(~shown, IGNORE)
        clear.update(None, guess, cast(Batch, {**batch, "water": unseen}))
    return {
        "clear": clear.compute(),
        "all": everything.compute(),
        "seen": seen / max(1, labelled),
    }


def _seen(batch: Batch, dates: Dates) -> Tensor:
    """Where the images show the ground, (B, H, W)."""
    if dates == "after":
        return batch["optical_valid"]
    return batch["optical_valid"] & optical_stack(batch, "before").valid
