"""Few labels on simulated scenes, where truth, clouds and misregistration are known."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from flora.experiments.competitors import Competitor
from flora.experiments.field import OTSU_VH, WITHOUT_TEACHER
from flora.experiments.makers import FewLabels
from flora.experiments.runner import Experiment, Source
from flora.training.config import TrainingConfig

LABELS = (8, 32, 256)
FEW = 32
CONFIDENCES = (0.5, 0.8, 0.95)
SHARES = (1 / 3, 1 / 2, 2 / 3)
CHOSEN = (0.8, 0.5)  # confidence and share of unlabelled samples, everywhere else
HEAVY = 0.7  # cloud

_CHIPS = {"size": 128}


def _labels(n: int) -> Competitor:
    return Competitor(f"FLoRA, {n} labelled scenes", FewLabels(WITHOUT_TEACHER, n))


def _output(n: int, **teacher: Any) -> Competitor:
    # The label is all water, so the image from after the flood shows all that there is to know.
    by = FewLabels(WITHOUT_TEACHER, n, "output", dates="after", **teacher)
    return Competitor(f"FLoRA, {n} labelled scenes, a teacher's maps of all pairs", by)


_TAUGHT = _output(FEW)
SIMULATED_LABELS = Experiment(
    question="What is an optical teacher worth where labels are few, and what under cloud, or "
    "where it sees the ground in the wrong place?",
    train=Source("simulated", "train", {"count": 256, **_CHIPS}),
    tests={"test": Source("simulated", "test", {"count": 64, **_CHIPS})},
    holds_out="Other scenes of the same simulator. Radar and labels of the test are the same for "
    "all; its clouds, which only a teacher's own scores see, are those of the competitor.",
    competitors={
        **{f"labels_{n}": _labels(n) for n in LABELS},
        **{f"output_{n}": _output(n) for n in LABELS},
        f"output_{FEW}_clear": replace(
            _TAUGHT, says=f"{_TAUGHT.says}, without a cloud", options={"cloud": 0.0}
        ),
        f"output_{FEW}_cloudy": replace(
            _TAUGHT, says=f"{_TAUGHT.says}, {HEAVY:.0%} under cloud", options={"cloud": HEAVY}
        ),
        f"output_{FEW}_shifted": replace(
            _TAUGHT, says=f"{_TAUGHT.says}, images off by 4 px", change="shifted"
        ),
        "otsu_vh": OTSU_VH,
    },
    training=TrainingConfig(steps=500, crop=64),
    cite="Simulated by flora.simulate.scene.",
)

HEARING = replace(
    SIMULATED_LABELS,
    question="How sure must a teacher be to be heard, and how often?",
    tests={"valid": Source("simulated", "valid", {"count": 64, **_CHIPS})},
    holds_out="Other scenes of the same simulator, of the split that chooses.",
    competitors={
        **{
            f"confidence_{confidence * 100:.0f}_share_{share * 100:.0f}": replace(
                _output(FEW, confidence=confidence, share=share),
                says=f"heard from {confidence:g} on, {share:.0%} of the samples unlabelled",
            )
            for confidence in CONFIDENCES
            for share in SHARES
            if confidence == CHOSEN[0] or share == CHOSEN[1]
        },
        "otsu_vh": OTSU_VH,
    },
)
