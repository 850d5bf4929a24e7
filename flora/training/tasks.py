"""What is trained: the teacher on optical tasks, then the student under its guidance."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from flora.datasets.base import Batch, optical_stack
from flora.errors import FloraError
from flora.models.network import Flora, FloraOutput, Guide
from flora.models.unet import LateFusion, UNet, stack_inputs
from flora.predictors import Mode, Prediction, Predictor
from flora.sensors import OpticalStack
from flora.training.objective import FloraLoss, LossWeights
from flora.training.task import Task


@dataclass(frozen=True)
class GuidanceMix:
    """Shares of the samples of a training step that are guided in each mode.

    Where a dataset has no image from before the flood, that share goes to `oracle`.

    Attributes:
        sar: Guided by the estimate from SAR: the deployment, so it is trained as hard as the rest.
        before: Guided by the teacher on the image from before the flood.
        oracle: Guided by the teacher on the image that is to be reconstructed.

    Example:
        >>> from flora import Flora, named_config
        >>> from flora.training import GuidanceMix
        >>> from flora.training.tasks import StudentTask
        >>> only_sar = GuidanceMix(sar=1.0, before=0.0, oracle=0.0)
        >>> task = StudentTask(Flora(named_config("tiny")), mix=only_sar)
        >>> task.describe()["mix"]
        {'sar': 1.0, 'before': 0.0, 'oracle': 0.0}
    """

    sar: float = 0.5
    before: float = 0.25
    oracle: float = 0.25

    def __post_init__(self) -> None:
        if min(self.sar, self.before, self.oracle) < 0 or self.sar + self.before + self.oracle <= 0:
            raise FloraError(f"{self}: expected shares of 0 or more, with a positive sum")


class TeacherTask(Task):
    """Optical image and index in, the same image and water out, through FLoRA's decoders.

    The decoders learn on the teacher's features here, which is what the student's fused features
    are then drawn towards.

    Args:
        model: The model whose teacher and decoders are trained.
        loss: Weights of the loss terms; distillation plays no part.

    Example:
        >>> from flora import Flora, collate, named_config, open_dataset
        >>> from flora.training.tasks import TeacherTask
        >>> task = TeacherTask(Flora(named_config("tiny")))
        >>> batch = collate([open_dataset("simulated", None, "train", count=1, size=64)[0]])
        >>> total, terms = task(batch)
        >>> "distill_prior" in terms
        False
    """

    model: Flora

    def __init__(self, model: Flora, loss: LossWeights | None = None) -> None:
        super().__init__(model)
        self.loss = FloraLoss(loss)
        model.requires_grad_(False)
        for part in (model.teacher, model.optical_decoder, model.water_decoder):
            part.requires_grad_(True)

    def forward(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss of reconstructing what the teacher sees, see `Task`."""
        seen = optical_stack(batch, "oracle")
        total, terms = self.loss(self._output(seen), batch, teacher=None)
        return total, terms

    @property
    def mode(self) -> Mode:
        """The teacher sees the very image that it draws."""
        return "oracle"

    def predictor(self) -> Predictor:
        """The teacher's own prediction, from the optical image alone."""

        @torch.inference_mode()
        def predict(sar: Tensor, _: Tensor, seen: OpticalStack | None, /) -> Prediction:
            if seen is None:
                raise FloraError("the teacher looks at an optical image", argument="guide")
            output = self._output(seen)
            return Prediction(torch.sigmoid(output.water_logits), output.rgb)

        return predict

    def describe(self) -> dict[str, Any]:
        """See `Task`."""
        return {
            "model": "flora",
            "config": self.model.config.to_dict(),
            "task": "teacher",
            "loss": asdict(self.loss.weights),
        }

    def _output(self, seen: OpticalStack) -> FloraOutput:
        guide = self.model.look(seen)
        rgb, logits = self.model.decode(guide.features, *seen.image.shape[-2:])
        return FloraOutput(rgb, logits, [], [])


class StudentTask(Task):
    """SAR in, optical image and water out, with a mixture of guidances and a frozen teacher.

    Args:
        model: The model, its teacher pre-trained by `TeacherTask`. What its weights brought
            (thresholds, what they were trained on) goes: it is true of them as they were.
        loss: Weights of the loss terms.
        mix: Shares of the guidance modes.
        dates: Radar dates that are stacked as channels, see `FloraLoss`.
        perceptual: A module from `load_lpips`; needed if `loss` gives it a weight.

    Example:
        >>> from flora import Flora, collate, named_config, open_dataset
        >>> from flora.training.tasks import StudentTask
        >>> task = StudentTask(Flora(named_config("tiny")))
        >>> batch = collate([open_dataset("simulated", None, "train", count=1, size=64)[0]])
        >>> total, terms = task(batch)
        >>> "distill_prior" in terms
        True
    """

    model: Flora

    def __init__(
        self,
        model: Flora,
        loss: LossWeights | None = None,
        mix: GuidanceMix | None = None,
        dates: int = 1,
        perceptual: nn.Module | None = None,
    ) -> None:
        super().__init__(model)
        self.loss = FloraLoss(loss, dates, perceptual)
        self.mix = mix or GuidanceMix()
        model.thresholds = {}
        model.trained_on = ""
        model.requires_grad_(True)
        model.teacher.requires_grad_(False)

    def forward(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss under mixed guidance, see `Task`."""
        with torch.no_grad():
            seen = self.model.look(optical_stack(batch, "oracle"))
            guide = self._mixed(seen, batch)
        output = self.model(batch["sar"], guide)
        total, terms = self.loss(output, batch, teacher=seen.features)
        return total, terms

    def describe(self) -> dict[str, Any]:
        """See `Task`."""
        return {
            "model": "flora",
            "config": self.model.config.to_dict(),
            "task": "student",
            "loss": asdict(self.loss.weights),
            "mix": asdict(self.mix),
        }

    def _mixed(self, seen: Guide, batch: Batch) -> Guide:
        """Draw a mode for each sample and assemble its guide."""
        count = batch["sar"].shape[0]
        shares = torch.tensor([self.mix.sar, self.mix.before, self.mix.oracle], dtype=torch.float)
        # Drawn on the CPU, whose random state is saved with the run.
        modes = torch.multinomial(shares, count, replacement=True).to(batch["sar"].device)
        guide = seen
        earlier = optical_stack(batch, "before") if "before" in batch else None
        if earlier is not None:
            before = self.model.look(earlier)
            guide = before.otherwise(seen, modes == 1)
        return guide.only(modes > 0)


class UNetTask(Task):
    """Train a U-Net with those of FLoRA's losses that need no teacher.

    Args:
        model: The U-Net.
        loss: Weights of the loss terms; without an optical head, only those of water count.
        dates: Radar dates that are stacked as channels, see `FloraLoss`.
    """

    model: UNet | LateFusion

    def __init__(
        self, model: UNet | LateFusion, loss: LossWeights | None = None, dates: int = 1
    ) -> None:
        super().__init__(model)
        self.loss = FloraLoss(loss, dates)

    def forward(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """See `Task`."""
        output = self.model(stack_inputs(batch["sar"], optical_stack(batch, self.mode)))
        total, terms = self.loss(output, batch, teacher=None)
        return total, terms

    @property
    def mode(self) -> Mode:
        """See `Task`."""
        return self.model.sees

    def describe(self) -> dict[str, Any]:
        """See `Task`."""
        return {
            "model": "unet" if isinstance(self.model, UNet) else "late fusion",
            "config": self.model.config,
            "loss": asdict(self.loss.weights),
        }
