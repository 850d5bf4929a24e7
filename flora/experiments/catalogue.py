"""The experiments of the book, by name."""

from __future__ import annotations

from dataclasses import fields, replace

from flora.datasets.ombria import Ombria
from flora.errors import FloraError
from flora.experiments.competitors import Competitor
from flora.experiments.makers import (
    Adapted,
    FewLabels,
    MakeFlora,
    MakeLateFusion,
    MakePix2Pix,
    MakeReleased,
    MakeUNet,
    Otsu,
    OtsuChange,
)
from flora.experiments.runner import Experiment, Source
from flora.models.layers import NORMS
from flora.predictors import MODES
from flora.training.fit import TrainingConfig
from flora.training.jitter import RadiometricJitter
from flora.training.losses import LossWeights
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
NO_TEACHER = Competitor(
    "no teacher: no guidance but its own, no distillation",
    MakeFlora(loss=UNDISTILLED, mix=ONLY_SAR, teacher=False),
    "ablation",
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

TWO_DATES = {
    "flora_two_dates": replace(FLORA, says="FLoRA, VV before and after", options=BOTH_DATES),
    "unet_two_dates": replace(
        UNET_GROUP,
        says="multitask U-Net, group normalisation, VV before and after",
        options=BOTH_DATES,
    ),
    "no_teacher_two_dates": replace(
        NO_TEACHER, says=f"{NO_TEACHER.says}, VV before and after", options=BOTH_DATES
    ),
    "otsu_two_dates": Competitor(
        "Otsu on VV, two dates, 9 px median: dark, and darker than before",
        OtsuChange(median=9),
        "baseline",
        options=BOTH_DATES,
    ),
}
ANCHORED = {
    f"{name}_anchored": replace(
        TWO_DATES[name], says=f"{TWO_DATES[name].says}, less Otsu's thresholds", change="anchored"
    )
    for name in ("flora_two_dates", "unet_two_dates")
}
EARLY_BEFORE = replace(
    SEES_OPTICAL["early_before"],
    says="early fusion, VV before and after, optical before",
    options=BOTH_DATES,
)

OMBRIA = Experiment(
    question="On real floods, with equal inputs at deployment, is FLoRA better than a U-Net?",
    train=Source("ombria", "train"),
    tests={"official": Source("ombria", "test"), "unseen": Source("ombria", "valid")},
    holds_out="official: the publisher's test chips, many of them beside training chips of the "
    "same flood. unseen: the 79 chips of three sites of which no chip is trained on; nothing was "
    "chosen on either.",
    competitors={
        "flora": FLORA,
        "unet": UNET,
        "unet_group": UNET_GROUP,
        "unet_water": UNET_WATER,
        "otsu_vv": OTSU_VV,
        "flora_jitter": FLORA_JITTER,
        "unet_jitter": UNET_JITTER,
        **TWO_DATES,
        **ANCHORED,
        "early_before": EARLY_BEFORE,
        "early_before_group": replace(
            EARLY_BEFORE,
            says=f"{EARLY_BEFORE.says}, group normalisation",
            by=MakeUNet(sees="before", norm="group"),
        ),
        "no_teacher": NO_TEACHER,
        "no_distillation": NO_DISTILLATION,
        "flora_ranked": replace(FLORA, says="FLoRA, SAR as ranks", change="ranked"),
    },
    training=TrainingConfig(steps=1500, crop=96),
    teacher_steps=300,
    norm="group",
    cite="OMBRIA, Drakonakis et al. 2022. Contains modified Copernicus Sentinel data.",
)

# Together with the three sites of "unseen" in `OMBRIA`, each of the 14 sites is held out once.
FLOODS = (
    ("chips 436-718",),
    ("chips 1-17", "chips 18-31", "chips 135-257", "chips 392-398", "chips 759-787"),
    (
        "chips 74-105",
        "chips 106-132, 258-312",
        "chips 313-341",
        "chips 342-391",
        "chips 737-758",
    ),
)
HELD_OUT_FLOODS = {
    f"ombria_floods_{number}": replace(
        OMBRIA,
        question="How do the models do on sites of which they have seen nothing?",
        train=Source("ombria", "train", {"held_out": sites}),
        tests={"unseen": Source("ombria", "valid", {"held_out": sites})},
        holds_out=f"unseen: the sites {'; '.join(sites)}, whole; nothing was chosen on them.",
        competitors={
            "flora": FLORA,
            "unet_group": UNET_GROUP,
            "otsu_vv": OTSU_VV,
            **TWO_DATES,
            **ANCHORED,
        },
    )
    for number, sites in enumerate(FLOODS, start=1)
}

_ALONE = MakeFlora(loss=UNDISTILLED, mix=ONLY_SAR, teacher=False)
_UNET = MakeUNet(norm="group")
LABELS = (27, 55, 109, 273, 545)


def _few(says: str, by: FewLabels | Adapted | MakeFlora, group: str = "FLoRA") -> Competitor:
    return Competitor(says, by, group, options=BOTH_DATES)


# The publisher stretched every chip by itself, so absolute backscatter is lost, and only a network
# that sees the whole chip's statistics reads it: after 700 steps with all labels, two-class mIoU
# of the official test and the unseen sites was .65/.75 with group normalisation, and .53 to .54 /
# .57 to .65 with batch and layer normalisation, chips standardised or not.
OMBRIA_LABELS = replace(
    OMBRIA,
    question="What is an optical teacher worth where labels are few?",
    competitors={
        **{f"labels_{n}": _few(f"FLoRA, {n} labelled chips", FewLabels(_ALONE, n)) for n in LABELS},
        **{
            f"output_{n}": _few(
                f"FLoRA, {n} labelled chips, a teacher's maps of all pairs",
                FewLabels(_ALONE, n, "output"),
            )
            for n in LABELS
        },
        **{
            f"pairs_{n}": _few(
                f"FLoRA, {n} labelled chips, the images of all pairs",
                FewLabels(_ALONE, n, "pairs"),
                "ablation",
            )
            for n in LABELS
        },
        **{
            f"features_{n}": _few(
                f"FLoRA, {n} labelled chips, feature distillation on all pairs",
                FewLabels(MakeFlora(), n, "pairs"),
            )
            for n in LABELS
        },
        **{
            f"both_{n}": _few(
                f"FLoRA, {n} labelled chips, maps and features of all pairs",
                FewLabels(MakeFlora(), n, "output"),
            )
            for n in LABELS
        },
        "free_0": _few(
            "FLoRA, no label, a water index of all pairs", FewLabels(_ALONE, 0, "index")
        ),
        **{
            f"unet_labels_{n}": _few(f"U-Net, {n} labelled chips", FewLabels(_UNET, n), "baseline")
            for n in LABELS
        },
        **{
            f"unet_output_{n}": _few(
                f"U-Net, {n} labelled chips, a teacher's maps of all pairs",
                FewLabels(_UNET, n, "output"),
                "baseline",
            )
            for n in LABELS
        },
        "otsu_two_dates": TWO_DATES["otsu_two_dates"],
    },
    training=TrainingConfig(steps=1500, crop=96),
    teacher_steps=750,
    norm="group",
)

_NEW_SITES = {0: Ombria.valid_sites, **dict(enumerate(FLOODS, start=1))}
OMBRIA_SITES = {
    f"ombria_sites_{number}": replace(
        OMBRIA,
        question="A new flood without labels: what do its own unlabelled pairs give?",
        train=Source("ombria", "train", {"held_out": sites}),
        tests={"unseen": Source("ombria", "valid", {"held_out": sites})},
        pairs=Source("ombria", "valid", {"held_out": sites}),
        holds_out=f"unseen: the sites {'; '.join(sites)}. What is adapted has seen their images, "
        "radar and optical, but no label of them.",
        competitors={
            "not_adapted": _few("FLoRA, VV before and after", _ALONE),
            "adapted": _few("FLoRA, adapted to the pairs of the new sites", Adapted(_ALONE)),
            "otsu_two_dates": TWO_DATES["otsu_two_dates"],
        },
        training=TrainingConfig(steps=1500, crop=96),
        norm="group",
    )
    for number, sites in _NEW_SITES.items()
}

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
    "true_colour": TRUE_COLOUR,
    "sim_to_real": SIM_TO_REAL,
    "normalisations": NORMALISATIONS,
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
