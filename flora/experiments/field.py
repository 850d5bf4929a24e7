"""Competitors that several experiments have in common."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace

from flora.experiments.competitors import Competitor
from flora.experiments.makers import (
    ForSteps,
    MakeFlora,
    MakeLateFusion,
    MakePix2Pix,
    MakeReleased,
    MakeUNet,
)
from flora.experiments.rules import Otsu
from flora.predictors import MODES
from flora.training.jitter import RadiometricJitter
from flora.training.objective import LossWeights
from flora.training.recipes import ONLY_SAR
from flora.training.tasks import GuidanceMix

BOTH_DATES = {"sar_dates": ("before", "after")}
UNDISTILLED = {"distill_fused": 0.0, "distill_prior": 0.0}
NEVER_SAR = GuidanceMix(sar=0.0, before=0.5, oracle=0.5)

FLORA = Competitor("FLoRA", modes=MODES)
UNET = Competitor("multitask U-Net", MakeUNet(), "baseline")
UNET_WATER = Competitor("U-Net, water alone", MakeUNet(optical=False), "baseline")
UNET_GROUP = Competitor("multitask U-Net, group normalisation", MakeUNet(norm="group"), "baseline")
FLORA_JITTER = Competitor(
    "FLoRA, radiometric jitter", MakeFlora(change=RadiometricJitter()), modes=MODES
)
UNET_JITTER = Competitor(
    "multitask U-Net, group normalisation, radiometric jitter",
    MakeUNet(norm="group", change=RadiometricJitter()),
    "baseline",
)
OTSU_VV = Competitor("Otsu on VV, 9 px median", Otsu(median=9), "baseline")
OTSU_VH = Competitor("Otsu on VH, 9 px median", Otsu(band=1, median=9), "baseline")
PIX2PIX = Competitor("pix2pix with a water head", MakePix2Pix(), "baseline")
NO_DISTILLATION = Competitor("no distillation", MakeFlora(loss=UNDISTILLED), "ablation")
WITHOUT_TEACHER = MakeFlora(loss=UNDISTILLED, mix=ONLY_SAR, teacher=False)
NO_TEACHER = Competitor(
    "no teacher: no guidance but its own, no distillation", WITHOUT_TEACHER, "ablation"
)

WITHOUT_ONE_TERM = {
    f"without_{term.name}": Competitor(
        f"loss without {term.name.replace('_', ' ')}",
        MakeFlora(loss={term.name: 0.0}),
        "ablation",
    )
    for term in fields(LossWeights)
    if term.name not in ("perceptual", "distill_output")  # of weight 0, or without chips to act on
}

ABLATIONS = {
    "no_teacher": NO_TEACHER,
    "decoders_only": Competitor(
        "no guidance and no distillation; the decoders pre-trained with the teacher",
        MakeFlora(loss=UNDISTILLED, mix=ONLY_SAR),
        "ablation",
    ),
    "random_teacher": Competitor(
        "teacher left at its random start", MakeFlora(teacher=False), "ablation"
    ),
    "no_attention": Competitor(
        "no attention", MakeFlora(config={"attention_levels": ()}), "ablation", MODES
    ),
    "no_film": Competitor("no FiLM", MakeFlora(config={"film": False}), "ablation", MODES),
    "no_gate": Competitor("no gate", MakeFlora(config={"gated": False}), "ablation"),
    "one_window": Competitor(
        "one window size (8)", MakeFlora(config={"window_sizes": (8,)}), "ablation"
    ),
    "no_distillation": NO_DISTILLATION,
    "no_sar_guidance": Competitor(
        "never guided by SAR alone in training", MakeFlora(mix=NEVER_SAR), "ablation", MODES
    ),
    "detached_water": Competitor(
        "water branch detached", MakeFlora(config={"detach_water": True}), "ablation"
    ),
    **WITHOUT_ONE_TERM,
}

RELEASE = {
    "untrained_prior": Competitor(
        "never guided by SAR alone, no distillation",
        MakeFlora(mix=NEVER_SAR, loss=UNDISTILLED),
        "release",
        MODES,
    ),
    "terms_off": Competitor(
        "edge, spectrum and hydrology terms off",
        MakeFlora(loss={"edge": 0.0, "spectrum": 0.0, "hydrology": 0.0}),
        "release",
    ),
    "stretched": Competitor(
        "SAR stretched chip by chip", MakeFlora(), "release", change="stretched"
    ),
    "misaligned": Competitor(
        "layers cropped at different places", MakeFlora(), "release", change="misaligned"
    ),
    "released": Competitor(
        "the released wiring: untrained guidance, detached water, terms off, stretched SAR",
        MakeReleased(),
        "release",
        ("sar", "oracle"),
        change="stretched",
    ),
    "released_misaligned": Competitor(
        "the released wiring, and its misaligned crops",
        MakeReleased(),
        "release",
        ("sar", "oracle"),
        change="misaligned",
    ),
}

SEES_OPTICAL = {
    "early_before": Competitor(
        "early fusion with the image from before", MakeUNet(sees="before"), "baseline", ("before",)
    ),
    "late_before": Competitor(
        "late fusion with the image from before",
        MakeLateFusion(sees="before"),
        "baseline",
        ("before",),
    ),
    "early_oracle": Competitor(
        "early fusion with the image itself", MakeUNet(sees="oracle"), "baseline", ("oracle",)
    ),
}

STEPS = (500, 1500, 4500)


def at_lengths(competitors: Mapping[str, Competitor]) -> dict[str, Competitor]:
    """Competitors that learn, trained for each of `STEPS`, by names like "flora_500"."""
    return {
        f"{name}_{steps}": replace(
            competitor,
            says=f"{competitor.says.partition(':')[0]}, {steps} steps",
            by=ForSteps(competitor.by, steps),  # type: ignore[arg-type]
        )
        for steps in STEPS
        for name, competitor in competitors.items()
    }
