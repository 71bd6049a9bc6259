"""The training configurations that the study of radiographs compares, each with the base."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace

from ...experiments.configuration import ExperimentRun, TrainingBudget
from ...statistics.patient_folds import CATEGORIES
from ..cases import SUPER_RESOLUTIONS
from ..table import LABELS

THRESHOLDS = tuple(map(int, CATEGORIES))
THRESHOLD_TITLES = ("> 0", "≥ 100", "≥ 400")

HELD_OUT = -1
"""In place of a fold: trained on all patients, and tested on the external cohort."""


@dataclass(frozen=True)
class Configuration:
    """How a network is trained; it is always tested by the true score.

    name: unlike any other configuration's; fit for a folder and the command line. label: score that it learns from,
    one of `table.LABELS`. curriculum: severe calcium first. counterfactual: with radiographs of the same patients whose
    calcium is scaled or taken out. located: trained on where the calcium is, as only the light network can be.
    """

    name: str = "base"
    backbone: str = "light"
    views: tuple[str, ...] = ("PA",)
    super_resolution: str = "none"
    enhancement: str = "none"
    label: str = LABELS[0]
    curriculum: bool = False
    counterfactual: bool = True
    located: bool = True


BASE = Configuration()
"""What all others are compared with."""

CONFIGURATIONS = (
    BASE,
    replace(BASE, name="lateral", views=("lateral",)),
    replace(BASE, name="two-views", views=("PA", "lateral")),
    replace(BASE, name="resnet18", backbone="resnet18", located=False),
    replace(BASE, name="densenet121", backbone="densenet121", located=False),
    replace(BASE, name="not-located", located=False),
    replace(BASE, name="no-pairs", counterfactual=False),
    # As the papers train: from pictures and scores only.
    *(
        replace(BASE, name=name, label=label, curriculum=curriculum, counterfactual=False, located=False)
        for label, kind in zip(LABELS, ("plain", "reader-labels", "automatic-labels"), strict=True)
        for name, curriculum in ((kind, False), (f"{kind}-curriculum", True))
    ),
    *(
        replace(BASE, name=f"{slices}-{contrast}", super_resolution=slices, enhancement=contrast)
        for slices in SUPER_RESOLUTIONS
        for contrast in ("none", "clahe", "equalised", "unsharp")
        if (slices, contrast) != ("none", "none")
    ),
)
"""The most important first."""


def run_key(run: ExperimentRun, budget: TrainingBudget, data: str) -> str:
    """All that a run's result depends on. data: what stands for the tables' content."""
    folds = 0 if run.fold == HELD_OUT else budget.folds
    settings = {"fold": run.fold, "folds": folds, "steps": budget.steps, "seed": budget.seed, "data": data}
    return json.dumps(asdict(run.configuration) | settings, sort_keys=True)
