"""What is compared in an experiment: how each competitor is made, sees, and is asked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from flora.datasets.base import FloodDataset
from flora.datasets.changes import CHANGES, Misaligned, Shifted
from flora.datasets.wrapped import InMemory
from flora.experiments.makers import MakeFlora, Maker
from flora.experiments.rules import Rule
from flora.predictors import Mode


@dataclass(frozen=True)
class Competitor:
    """One line of a comparison.

    Attributes:
        says: What it is, for tables.
        by: How it comes to its weights, or the rule that needs none, such as
            `flora.experiments.makers.MakeFlora`.
        group: Heading under which it stands: "FLoRA", "baseline", "ablation", "release".
        modes: Guidance modes it is scored in; a baseline has the one it sees.
        options: Further options of the datasets, e.g. `sar_dates`.
        change: Name of a change to the chips: "stretched", "ranked", "anchored", "misaligned" or
            "shifted"; None leaves them.

    Example:
        >>> from dataclasses import replace
        >>> from flora.experiments import named_experiment
        >>> from flora.experiments.competitors import Competitor
        >>> from flora.experiments.makers import MakeFlora
        >>> no_gate = Competitor("no gate", MakeFlora(config={"gated": False}), "ablation")
        >>> compared = {"flora": Competitor("FLoRA"), "no_gate": no_gate}
        >>> asked = replace(named_experiment("simulated"), competitors=compared)
        >>> list(asked.competitors)
        ['flora', 'no_gate']
    """

    says: str
    by: Maker | Rule = field(default_factory=MakeFlora)
    group: str = "FLoRA"
    modes: tuple[Mode, ...] = ("sar",)
    options: Mapping[str, Any] = field(default_factory=dict)
    change: str | None = None

    @property
    def learns(self) -> bool:
        """Whether there is something to train."""
        return hasattr(self.by, "make")


def prepared(chips: FloodDataset, competitor: Competitor, test: bool) -> FloodDataset:
    """Chips with a competitor's change; the alignment of test chips is never changed."""
    if competitor.change is None:
        return chips
    change = CHANGES[competitor.change]
    if test and change in (Misaligned, Shifted):
        return chips
    if change is Misaligned:  # acts on windows, so nothing may be kept after it
        return change(chips)
    return InMemory(change(chips))
