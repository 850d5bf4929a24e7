"""The experiments on OMBRIA: real floods, one date or two, labels that are many or few."""

from __future__ import annotations

from dataclasses import replace

from flora.datasets.ombria import Ombria
from flora.experiments.competitors import Competitor
from flora.experiments.field import (
    BOTH_DATES,
    FLORA,
    FLORA_JITTER,
    NO_DISTILLATION,
    NO_TEACHER,
    OTSU_VV,
    SEES_OPTICAL,
    UNET,
    UNET_GROUP,
    UNET_JITTER,
    UNET_WATER,
    WITHOUT_TEACHER,
    at_lengths,
)
from flora.experiments.makers import (
    Adapted,
    FewLabels,
    ForSteps,
    MakeFlora,
    MakeUNet,
)
from flora.experiments.rules import OtsuChange
from flora.experiments.runner import Experiment, Source
from flora.training.config import TrainingConfig

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
    "same flood. unseen: the 79 chips of three sites of which no chip is trained on. Nothing that "
    "learns was chosen on either; the rule otsu_two_dates was.",
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
        holds_out=f"unseen: the sites {'; '.join(sites)}, whole. Nothing that learns was chosen on "
        "them; the rule otsu_two_dates was.",
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

OMBRIA_LENGTHS = replace(
    OMBRIA,
    question="How long must a training on real floods be until its curve is flat, and who gains "
    "by it?",
    competitors=at_lengths(
        {
            "flora": TWO_DATES["flora_two_dates"],
            "no_teacher": TWO_DATES["no_teacher_two_dates"],
            "unet": TWO_DATES["unet_two_dates"],
        }
    ),
)

_UNET = MakeUNet(norm="group")
LABELS = (27, 55, 109, 273, 545)


def _few(
    says: str, by: FewLabels | Adapted | ForSteps | MakeFlora, group: str = "FLoRA"
) -> Competitor:
    return Competitor(says, by, group, options=BOTH_DATES)


# The publisher stretched every chip by itself, so absolute backscatter is lost: what reads it needs
# the statistics of the whole chip, as group normalisation has them.
OMBRIA_LABELS = replace(
    OMBRIA,
    question="What is an optical teacher worth where labels are few?",
    holds_out=f"{OMBRIA.holds_out} So were, in pilots, group normalisation and that of the optical "
    "teacher.",
    competitors={
        **{
            f"labels_{n}": _few(f"FLoRA, {n} labelled chips", FewLabels(WITHOUT_TEACHER, n))
            for n in LABELS
        },
        **{
            f"output_{n}": _few(
                f"FLoRA, {n} labelled chips, a teacher's maps of all pairs",
                FewLabels(WITHOUT_TEACHER, n, "output"),
            )
            for n in LABELS
        },
        **{
            f"pairs_{n}": _few(
                f"FLoRA, {n} labelled chips, the images of all pairs",
                FewLabels(WITHOUT_TEACHER, n, "pairs"),
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
            "FLoRA, no label, a water index of all pairs", FewLabels(WITHOUT_TEACHER, 0, "index")
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
        "radar and optical, but no label of them. Group normalisation and the optical teacher's "
        "batch normalisation were chosen in pilots, with the sites of ombria_sites_0 in view.",
        competitors={
            "not_adapted": _few("FLoRA, VV before and after", WITHOUT_TEACHER),
            "adapted": _few(
                "FLoRA, adapted to the pairs of the new sites", Adapted(WITHOUT_TEACHER)
            ),
            **{
                f"adapted_alone_{of}": _few(
                    f"FLoRA, adapted to the pairs of {site} alone",
                    Adapted(WITHOUT_TEACHER, site=site),
                )
                for of, site in enumerate(sites)
                if len(sites) > 1
            },
            # As many steps as what is adapted has had in all, on the labels of the other sites:
            # by the same two schedules, and by one.
            "further": _few(
                "FLoRA, trained further without the pairs", Adapted(WITHOUT_TEACHER, word="none")
            ),
            "longer": _few("FLoRA, 2000 steps, not adapted", ForSteps(WITHOUT_TEACHER, 2000)),
            "otsu_two_dates": TWO_DATES["otsu_two_dates"],
        },
        training=TrainingConfig(steps=1500, crop=96),
        norm="group",
    )
    for number, sites in _NEW_SITES.items()
}
