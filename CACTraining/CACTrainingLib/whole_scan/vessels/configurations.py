"""What the study of vessel regression trains: each configuration once for each fold, however many tables show it.

The learning rate and weight decay of each kind of network are chosen first, on the first fold alone; all its other
trainings take what was chosen. The held-out patients are predicted by the networks of the table `models` only, so that
nothing is chosen by them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import ClassVar

from ...experiments.configuration import ExperimentRun, TrainingBudget, check_known
from ...experiments.errors import StudyError

PAPERS = {"cnn": "CNN", "se-cnn": "SE-CNN", "vit": "ViT"}
SUPERVISED = "voxel-sum-supervised"
KINDS = {**PAPERS, "voxel-sum": "Voxel sum", SUPERVISED: "Voxel sum, supervised"}
"""Title by way to train (`whole_scan.vessels.fitting.TRAINABLE`). Where calcium lies is known of digital patients
alone."""

_STORED_KINDS = {"voxel-sum": "summed", SUPERVISED: "summed-shown"}
"""Names in files of results, which are older."""

OUTPUTS = {"linear": "", "log": ", logarithm"}
"""What is added to a network's title where it learns logarithms of scores, not the scores."""

PRESETS = {"compact": "average+max", "paper": "average"}
"""Pooling by preset."""

TABLES = ("models", "augmentation", "published", "grid")
"""What can be asked for, the most important first; the grid is trained first all the same."""

LEARNING_RATES, WEIGHT_DECAYS = (3e-4, 1e-3, 3e-3), (0.01, 0.1)
GRID = tuple((rate, decay) for rate in LEARNING_RATES for decay in WEIGHT_DECAYS)


@dataclass(frozen=True)
class Configuration:
    """How to train. output: of OUTPUTS. rates: learning rate and weight decay; None: as the preset has them."""

    kind: str
    output: str = "linear"
    pooling: str = "average+max"
    augmented: bool = True
    rates: tuple[float, float] | None = None

    @property
    def name(self) -> str:
        """Short, and unlike any other configuration's; fit for a folder."""
        kind = _STORED_KINDS.get(self.kind, self.kind)
        parts = [kind, self.output, *(["average"] if self.pooling == "average" else [])]
        parts += [] if self.augmented else ["plain"]
        return "-".join([*parts, *(f"{rate:g}" for rate in self.rates or ())])

    @property
    def title(self) -> str:
        """Of the network and what it learns."""
        return KINDS[self.kind] + OUTPUTS[self.output]


@dataclass(frozen=True)
class VesselRun(ExperimentRun):
    """fold: whose patients validate it. evaluated: whether it predicts the held-out and other patients.

    saliency: whether its saliency is computed. grid: whether it is of the grid.
    """

    evaluated: bool = False
    saliency: bool = False
    grid: bool = False


@dataclass(frozen=True)
class VesselBudget(TrainingBudget):
    """outputs: of OUTPUTS. Of the grid one fold is trained always. Who is held out does not depend on the seed."""

    TABLES: ClassVar[Sequence[str]] = TABLES

    kinds: tuple[str, ...] = tuple(KINDS)
    outputs: tuple[str, ...] = tuple(OUTPUTS)
    preset: str = "compact"

    def __post_init__(self) -> None:
        check_known(self.kinds, KINDS, "network")
        check_known(self.outputs, OUTPUTS, "output")
        check_known([self.preset], PRESETS, "preset")
        if not (self.kinds and self.outputs):
            raise StudyError(f"Name a network with --kinds, of {', '.join(KINDS)}.")
        super().__post_init__()

    def folds_of(self, table: str) -> int:
        """How many folds of each of a table's configurations are trained."""
        return 1 if table == "grid" else self.only.get(table, self.folds)


def run_key(run: VesselRun, budget: VesselBudget, data: str) -> str:
    """All that a run's result depends on. data: what stands for the tables' content and the prepared scans."""
    # Keys are called as when the first studies were kept.
    kept = {"cell": asdict(run.configuration), "fold": run.fold, "judged": run.evaluated, "looked_at": run.saliency}
    kept["cell"]["kind"] = _STORED_KINDS.get(run.configuration.kind, run.configuration.kind)
    settings = {"folds": budget.folds, "steps": budget.steps, "seed": budget.seed, "preset": budget.preset}
    return json.dumps(kept | settings | {"choosing": run.grid, "data": data}, sort_keys=True)


Chosen = Mapping[str, tuple[float, float]]
"""Learning rate and weight decay by kind."""


def grid_runs(budget: VesselBudget) -> list[VesselRun]:
    """Trainings that the learning rate and weight decay of each kind are chosen by."""
    return [
        VesselRun(replace(_base(kind, {}, budget), rates=rates), 0, grid=True)
        for kind in budget.kinds
        for rates in GRID
    ]


def chosen_of(grid: Mapping[Configuration, float]) -> dict[str, tuple[float, float]]:
    """The rates with the lowest validation error of each kind. grid: that error by configuration."""
    best: dict[str, Configuration] = {}
    for configuration, error in grid.items():
        if configuration.kind not in best or error < grid[best[configuration.kind]]:
            best[configuration.kind] = configuration
    return {kind: configuration.rates for kind, configuration in best.items() if configuration.rates is not None}


def configurations_of(table: str, budget: VesselBudget, chosen: Chosen) -> list[Configuration]:
    """Of any table but the grid, in the order of its rows."""
    bases = [_base(kind, chosen, budget) for kind in budget.kinds]
    if table == "models":
        return [replace(base, output=output) for base in bases for output in budget.outputs]
    if table == "augmentation":
        return [replace(base, augmented=augmented) for base in bases for augmented in (True, False)]
    papers = [base for base in bases if base.kind in PAPERS]
    as_published = {"output": "linear", "pooling": "average", "augmented": False}
    return [configuration for base in papers for configuration in (base, replace(base, **as_published))]


def runs_of(tables: Sequence[str], budget: VesselBudget, chosen: Chosen) -> list[VesselRun]:
    """All trainings but the grid's, in the order in which they are worth most if the rest is never done."""
    models = configurations_of("models", budget, chosen)
    runs = {
        (configuration, fold): VesselRun(configuration, fold, evaluated=True, saliency=fold == 0)
        for fold in range(budget.folds_of("models"))
        for configuration in models
    }
    for table in tables:
        if table not in ("models", "grid"):
            for fold in range(budget.folds_of(table)):
                for configuration in configurations_of(table, budget, chosen):
                    runs.setdefault(
                        (configuration, fold),
                        VesselRun(configuration, fold, configuration in models, configuration in models and fold == 0),
                    )
    return list(runs.values())


def _base(kind: str, chosen: Chosen, budget: VesselBudget) -> Configuration:
    """What other ways to train a kind are compared with."""
    # Only convolutional networks pool; the others' configurations must not differ by what does nothing.
    pooling = PRESETS[budget.preset] if kind in ("cnn", "se-cnn") else "average"
    return Configuration(kind, budget.outputs[0], pooling, rates=chosen.get(kind))
