"""The experiments of the book, by name."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from flora.errors import FloraError
from flora.experiments.competitors import Competitor
from flora.experiments.field import (
    ABLATIONS,
    BOTH_DATES,
    FLORA,
    FLORA_JITTER,
    NO_TEACHER,
    OTSU_VH,
    PIX2PIX,
    RELEASE,
    SEES_OPTICAL,
    UNDISTILLED,
    UNET,
    UNET_GROUP,
    UNET_JITTER,
    UNET_WATER,
    at_lengths,
)
from flora.experiments.labels import HEARING, SIMULATED_LABELS
from flora.experiments.makers import ForSteps, MakeFlora, MakeUNet
from flora.experiments.ombria import (
    HELD_OUT_FLOODS,
    OMBRIA,
    OMBRIA_LABELS,
    OMBRIA_LENGTHS,
    OMBRIA_SITES,
)
from flora.experiments.rules import Otsu, ZScore
from flora.experiments.runner import Experiment, Source
from flora.models.norms import NORMS
from flora.predictors import MODES
from flora.training.config import TrainingConfig
from flora.training.recipes import ONLY_SAR
from flora.training.tasks import GuidanceMix

SIMULATED = Experiment(
    question="Which parts of FLoRA help when SAR alone is left, where the truth is known?",
    train=Source("simulated", "train", {"count": 256, "size": 128}),
    tests={"test": Source("simulated", "test", {"count": 96, "size": 128})},
    holds_out="Other scenes of the same simulator; no two splits share a seed.",
    competitors={
        "flora": FLORA,
        "unet": UNET,
        "unet_group": UNET_GROUP,
        "unet_water": UNET_WATER,
        "pix2pix": PIX2PIX,
        **SEES_OPTICAL,
        "otsu_vh": OTSU_VH,
        **ABLATIONS,
        **RELEASE,
    },
    training=TrainingConfig(steps=500, crop=64),
    teacher_steps=150,
    norm="group",
    cite="Simulated by flora.simulate.scene.",
)

TRUE_COLOUR = Experiment(
    question="On real true colour, is FLoRA's reconstruction better than a U-Net's or pix2pix's?",
    train=Source("sih1733", "pair-1"),
    tests={"other scene": Source("sih1733", "pair-2")},
    holds_out="The other of the two scenes, whole.",
    competitors={
        "flora": replace(FLORA, modes=("sar", "oracle")),
        "unet": UNET,
        "unet_group": UNET_GROUP,
        "pix2pix": PIX2PIX,
        "no_teacher": NO_TEACHER,
    },
    training=TrainingConfig(steps=600, crop=96),
    teacher_steps=150,
    norm="group",
    cite="SAR image colorization pairs, github.com/TharunMurugesh/sar-image-colorization.",
)

SIM_TO_REAL = Experiment(
    question="What do weights from simulated scenes alone know of a real flood?",
    train=Source("simulated", "train", {"count": 640, "size": 256}),
    tests={"Spain": Source("sen1floods11", "test", {"require_all": False})},
    holds_out="All real data. The one real chip that is here was looked at while the simulator "
    "was tuned.",
    competitors={
        "flora": replace(FLORA, modes=("sar", "oracle")),
        "flora_jitter": replace(FLORA_JITTER, modes=("sar", "oracle")),
        "unet_group": UNET_GROUP,
        "unet_jitter": UNET_JITTER,
        "otsu_vh": Competitor("Otsu on VH", Otsu(band=1), "baseline"),
        "otsu_vh_median": OTSU_VH,
    },
    training=TrainingConfig(steps=1500, crop=96),
    teacher_steps=300,
    norm="group",
    cite="Sen1Floods11, Bonafilia et al. 2020. Contains modified Copernicus Sentinel data 2019.",
)

NORMALISATIONS = Experiment(
    question="What does it cost that an answer depends on its neighbourhood only?",
    train=Source("simulated", "train", {"count": 480, "size": 192}),
    tests={
        "simulated": Source("simulated", "test", {"count": 48}),
        "Spain": Source("sen1floods11", "test", {"require_all": False}),
    },
    holds_out="simulated: other scenes of the same simulator. Spain: all real data; the chip was "
    "looked at while the simulator was tuned.",
    competitors={
        **{
            f"flora_{norm}": Competitor(
                f"FLoRA, {norm} normalisation",
                MakeFlora(config={"norm": norm}),
                modes=("sar", "oracle"),
            )
            for norm in NORMS
        },
        **{
            f"unet_{norm}": Competitor(
                f"U-Net, {norm} normalisation", MakeUNet(norm=norm), "baseline"
            )
            for norm in NORMS
        },
    },
    training=TrainingConfig(steps=1200, crop=96),
    teacher_steps=300,
    seeds=(0, 1),
    cite="Sen1Floods11, Bonafilia et al. 2020. Contains modified Copernicus Sentinel data 2019.",
)

_ONLY_AFTER = {"sar_dates": ("after",)}
_WATER_ALONE = Competitor(
    "",
    MakeFlora(
        loss={**UNDISTILLED, **dict.fromkeys(("charbonnier", "ssim", "edge", "spectrum"), 0.0)},
        mix=ONLY_SAR,
        teacher=False,
    ),
)
MANY_DATES = Experiment(
    question="What is one radar image from before the flood worth, and what each further one?",
    train=Source(
        "simulated", "train", {"count": 128, "size": 128, "sar_dates": ("before:1-8", "after")}
    ),
    tests={
        f"{dates} before": Source(
            "simulated",
            "test",
            {"count": 48, "size": 128, "sar_dates": (f"before:{dates}", "after")},
        )
        for dates in (1, 2, 4, 8)
    },
    holds_out="Other scenes of the same simulator. What sees no image before the flood, or one "
    "that is stacked, sees the same in every test. All learn water alone, without a teacher.",
    competitors={
        "after": replace(_WATER_ALONE, says="the flood's image alone", options=_ONLY_AFTER),
        "stacked": replace(
            _WATER_ALONE, says="the image before and the flood's, stacked", options=BOTH_DATES
        ),
        "statistics": replace(
            _WATER_ALONE, says="statistics of all images before, and the flood's"
        ),
        "z_score": Competitor("z-score over dates, or dark all along", ZScore(), "baseline"),
        "otsu_vh": replace(OTSU_VH, options=_ONLY_AFTER),
    },
    training=TrainingConfig(steps=700, batch=4, crop=64),
    cite="Simulated by flora.simulate.scene.",
)

_GUIDED = {"joining": "guided", "detail": 8, "marked": True}


def _fusion(says: str, group: str = "FLoRA", **config: Any) -> Competitor:
    return Competitor(says, MakeFlora(config={**_GUIDED, **config}), group, MODES)


_SHOWN_THE_IMAGE = MakeFlora(config=_GUIDED, mix=GuidanceMix(sar=0, before=0, oracle=1))
# The fusion with as many samples of an image as early fusion sees of it: all of the same steps,
# or a third of three times as many.
_AS_EARLY = {
    "before_only": Competitor(
        "guidance itself, of the image from before alone",
        MakeFlora(config=_GUIDED, mix=GuidanceMix(sar=0, before=1, oracle=0)),
        modes=("before",),
    ),
    "oracle_only": Competitor(
        "guidance itself, of the image to draw alone", _SHOWN_THE_IMAGE, modes=("oracle",)
    ),
    "oracle_taught": Competitor(
        "guidance itself, of the image to draw alone, teacher of 900 steps",
        ForSteps(_SHOWN_THE_IMAGE, 500, taught=900),
        modes=("oracle",),
    ),
    "even_1500": Competitor(
        "guidance itself, all three modes alike, 1500 steps",
        ForSteps(MakeFlora(config=_GUIDED, mix=GuidanceMix(sar=1, before=1, oracle=1)), 1500),
        modes=MODES,
    ),
}

FUSION = replace(
    SIMULATED,
    question="Does the fusion pass on what its guide shows, as early fusion with that image does?",
    competitors={
        "early_before": SEES_OPTICAL["early_before"],
        "early_oracle": SEES_OPTICAL["early_oracle"],
        "added": _fusion("guidance is added", joining="added", detail=0, marked=False),
        "blended": _fusion(
            "guidance is blended in, with full resolution and date of the guide", joining="blended"
        ),
        "guided": _fusion("guidance itself, with full resolution and date of the guide"),
        **_AS_EARLY,
        "no_attention": _fusion("no attention", "ablation", attention_levels=()),
        "no_film": _fusion("no FiLM", "ablation", film=False),
        "no_gate": _fusion("no gate", "ablation", gated=False),
        "no_detail": _fusion("no level at full resolution", "ablation", detail=0),
        "unmarked": _fusion("not told what the guide shows", "ablation", marked=False),
    },
    teacher_steps=300,
    norm="layer",
)

LENGTHS = replace(
    SIMULATED,
    question="How long must a training be until its curve is flat, and who gains by it?",
    tests={"valid": Source("simulated", "valid", {"count": 96, "size": 128})},
    holds_out="Other scenes of the same simulator, of the split that chooses.",
    competitors=at_lengths(
        {
            "flora": FLORA,
            "no_teacher": NO_TEACHER,
            "unet": replace(UNET, by=MakeUNet(norm="layer")),
        }
    ),
    norm="layer",
)

FULL_LENGTH = TrainingConfig(
    steps=20_000, batch=32, crop=224, learning_rate=1e-3, workers=8, checkpoint_every=1000
)
_REAL = {
    "flora": replace(FLORA, modes=("sar", "oracle")),
    "unet": UNET,
    "unet_group": UNET_GROUP,
    "unet_water": UNET_WATER,
    "no_teacher": NO_TEACHER,
}

SEN1FLOODS11 = Experiment(
    question="On Sen1Floods11 in full, is FLoRA better than a U-Net from SAR alone?",
    train=Source("sen1floods11", "train"),
    tests={
        "official": Source("sen1floods11", "test"),
        "Bolivia": Source("sen1floods11", "bolivia"),
    },
    holds_out="official: chips of floods that are trained on too. Bolivia: a flood held out.",
    competitors={
        **_REAL,
        "otsu_vh": OTSU_VH,
    },
    training=FULL_LENGTH,
    teacher_steps=4000,
    size="small",
    cite="Sen1Floods11, Bonafilia et al. 2020. Contains modified Copernicus Sentinel data.",
)

SEN12MS = replace(
    SEN1FLOODS11,
    question="On SEN12MS in full, how well is the optical image reconstructed?",
    train=Source("sen12ms", "train"),
    tests={"official": Source("sen12ms", "test")},
    holds_out="The publisher's test scenes. Water is permanent water of the land cover layer.",
    competitors={**_REAL, "pix2pix": PIX2PIX},
    cite="SEN12MS, Schmitt et al. 2019. Contains modified Copernicus Sentinel data.",
)

DEEPFLOOD = replace(
    SEN1FLOODS11,
    question="On DeepFlood in full, is FLoRA better than a U-Net from SAR alone?",
    train=Source("deepflood", "train"),
    tests={"held-out site": Source("deepflood", "test")},
    holds_out="Whole sites.",
    competitors=_REAL,
    cite="DeepFlood, doi 10.1038/s41597-025-04554-3.",
)

EXPERIMENTS: dict[str, Experiment] = {
    "simulated": SIMULATED,
    "ombria": OMBRIA,
    **HELD_OUT_FLOODS,
    "ombria_labels": OMBRIA_LABELS,
    **OMBRIA_SITES,
    "simulated_labels": SIMULATED_LABELS,
    "hearing": HEARING,
    "true_colour": TRUE_COLOUR,
    "sim_to_real": SIM_TO_REAL,
    "normalisations": NORMALISATIONS,
    "many_dates": MANY_DATES,
    "fusion": FUSION,
    "lengths": LENGTHS,
    "ombria_lengths": OMBRIA_LENGTHS,
    "sen1floods11": SEN1FLOODS11,
    "sen12ms": SEN12MS,
    "deepflood": DEEPFLOOD,
}

# With a GPU: the default model, longer, with larger crops and more seeds.
ON_A_GPU: dict[str, Experiment] = {
    f"{name}_gpu": replace(
        experiment,
        size="small",
        norm="layer",
        seeds=(0, 1, 2, 3, 4),
        teacher_steps=teacher_steps,
        training=replace(FULL_LENGTH, steps=steps, crop=crop),
    )
    for name, experiment, steps, teacher_steps, crop in (
        ("simulated", SIMULATED, 6000, 1500, 128),
        ("ombria", OMBRIA, 12_000, 3000, 224),
        *((name, floods, 12_000, 3000, 224) for name, floods in HELD_OUT_FLOODS.items()),
        ("true_colour", TRUE_COLOUR, 6000, 1500, 256),
        ("sim_to_real", SIM_TO_REAL, 12_000, 3000, 256),
    )
}


def named_experiment(name: str) -> Experiment:
    """The experiment of a name.

    Args:
        name: For instance "simulated" or "ombria"; the error for a wrong name lists all.

    Raises:
        FloraError: If there is none.

    Example:
        >>> from flora.experiments import named_experiment
        >>> experiment = named_experiment("simulated")
        >>> experiment.train.dataset, experiment.seeds, "no_film" in experiment.competitors
        ('simulated', (0, 1, 2), True)
    """
    known = EXPERIMENTS | ON_A_GPU
    if name not in known:
        raise FloraError(f"experiment {name!r}: expected one of {', '.join(known)}")
    return known[name]
