"""What the study of vessel regression trains: each way once for each fold, however many tables show it.

The learning rate and weight decay of each kind of network are chosen first, on the first fold alone; all its other
trainings take what was chosen. The held-out patients are foretold by the networks of the table `models` only, so that
nothing is chosen by them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace

from ...experiments.errors import StudyError

PAPERS = {"cnn": "CNN", "se-cnn": "SE-CNN", "vit": "ViT"}
SHOWN = "summed-shown"
KINDS = {**PAPERS, "summed": "Summed", SHOWN: "Summed, shown where"}
"""Title by way to train (`whole_scan.vessels.fitting.WAYS`). Where calcium lies is known of digital patients alone."""

OUTPUTS = {"linear": "", "log": ", logarithm"}
"""What is added to a network's title where it learns logarithms of scores, not the scores."""

PRESETS = {"compact": "average+max", "paper": "average"}
"""Pooling by preset."""

TABLES = ("models", "augmentation", "published", "grid")
"""What can be asked for, the most important first; the grid is trained first all the same."""

LEARNING_RATES, WEIGHT_DECAYS = (3e-4, 1e-3, 3e-3), (0.01, 0.1)
GRID = tuple((rate, decay) for rate in LEARNING_RATES for decay in WEIGHT_DECAYS)


@dataclass(frozen=True)
class Cell:
    """A way to train. output: of OUTPUTS. rates: learning rate and weight decay; None: as the preset has them."""

    kind: str
    output: str = "linear"
    pooling: str = "average+max"
    augmented: bool = True
    rates: tuple[float, float] | None = None

    @property
    def name(self) -> str:
        """Short, and unlike any other cell's; fit for a folder."""
        parts = [self.kind, self.output, *(["average"] if self.pooling == "average" else [])]
        parts += [] if self.augmented else ["plain"]
        return "-".join([*parts, *(f"{rate:g}" for rate in self.rates or ())])

    @property
    def title(self) -> str:
        """Of the network and what it learns."""
        return KINDS[self.kind] + OUTPUTS[self.output]


@dataclass(frozen=True)
class Job:
    """One training. fold: whose patients validate it. judged: whether it foretells the held-out and other patients.

    looked_at: whether its saliency is looked at. choosing: whether it is of the grid.
    """

    cell: Cell
    fold: int
    judged: bool = False
    looked_at: bool = False
    choosing: bool = False

    def key(self, effort: Effort, data: str) -> str:
        """All that its result depends on. data: what stands for the tables' content and the prepared scans."""
        settings = {"folds": effort.folds, "steps": effort.steps, "seed": effort.seed, "preset": effort.preset}
        return json.dumps(asdict(self) | settings | {"data": data}, sort_keys=True)


@dataclass(frozen=True)
class Effort:
    """How much is trained. outputs: of OUTPUTS. only: by table, how many of the folds are trained, where that is less
    (of the grid it is always one). steps: of a training; None: as the preset says. seed: of folds, trainings and
    bootstrap; who is held out does not depend on it.
    """

    kinds: tuple[str, ...] = tuple(KINDS)
    outputs: tuple[str, ...] = tuple(OUTPUTS)
    folds: int = 5
    only: Mapping[str, int] = field(default_factory=dict)
    steps: int | None = None
    preset: str = "compact"
    seed: int = 0

    def __post_init__(self) -> None:
        for names, known, what in (
            (self.kinds, KINDS, "network"),
            (self.outputs, OUTPUTS, "output"),
            (self.only, TABLES, "table"),
            ((self.preset,), PRESETS, "preset"),
        ):
            _check_known(names, known, what)
        if not (self.kinds and self.outputs):
            raise StudyError(f"Name a network with --kinds, of {', '.join(KINDS)}.")
        if self.folds < 2 or any(not 1 <= count <= self.folds for count in self.only.values()):
            raise StudyError(
                f"Cross-validation takes 2 folds or more, and a table 1 to all of them; these are {self.folds} folds "
                f"and {dict(self.only)}."
            )

    def folds_of(self, table: str) -> int:
        """How many folds of each of a table's ways to train are trained."""
        return 1 if table == "grid" else self.only.get(table, self.folds)


Chosen = Mapping[str, tuple[float, float]]
"""Learning rate and weight decay by kind."""


def chosen_tables(names: Sequence[str]) -> tuple[str, ...]:
    """In the order of TABLES, the models always; all when none is named. Raises StudyError for an unknown one."""
    _check_known(names, TABLES, "table")
    return tuple(name for name in TABLES if not names or name in names or name == "models")


def grid_jobs(effort: Effort) -> list[Job]:
    """Trainings that the learning rate and weight decay of each kind are chosen by."""
    return [
        Job(replace(_base(kind, {}, effort), rates=rates), 0, choosing=True) for kind in effort.kinds for rates in GRID
    ]


def chosen_of(grid: Mapping[Cell, float]) -> dict[str, tuple[float, float]]:
    """The rates with the lowest validation error of each kind. grid: that error by cell."""
    best: dict[str, Cell] = {}
    for cell, error in grid.items():
        if cell.kind not in best or error < grid[best[cell.kind]]:
            best[cell.kind] = cell
    return {kind: cell.rates for kind, cell in best.items() if cell.rates is not None}


def cells_of(table: str, effort: Effort, chosen: Chosen) -> list[Cell]:
    """Of any table but the grid, in the order of its rows."""
    bases = [_base(kind, chosen, effort) for kind in effort.kinds]
    if table == "models":
        return [replace(base, output=output) for base in bases for output in effort.outputs]
    if table == "augmentation":
        return [replace(base, augmented=augmented) for base in bases for augmented in (True, False)]
    papers = [base for base in bases if base.kind in PAPERS]
    as_published = {"output": "linear", "pooling": "average", "augmented": False}
    return [cell for base in papers for cell in (base, replace(base, **as_published))]


def jobs_of(tables: Sequence[str], effort: Effort, chosen: Chosen) -> list[Job]:
    """All trainings but the grid's, in the order in which they are worth most if the rest is never done."""
    models = cells_of("models", effort, chosen)
    jobs = {
        (cell, fold): Job(cell, fold, judged=True, looked_at=fold == 0)
        for fold in range(effort.folds_of("models"))
        for cell in models
    }
    for table in tables:
        if table not in ("models", "grid"):
            for fold in range(effort.folds_of(table)):
                for cell in cells_of(table, effort, chosen):
                    jobs.setdefault((cell, fold), Job(cell, fold, cell in models, cell in models and fold == 0))
    return list(jobs.values())


def _base(kind: str, chosen: Chosen, effort: Effort) -> Cell:
    """What other ways to train a kind are compared with."""
    # Only convolutional networks pool; the others' cells must not differ by what does nothing.
    pooling = PRESETS[effort.preset] if kind in ("cnn", "se-cnn") else "average"
    return Cell(kind, effort.outputs[0], pooling, rates=chosen.get(kind))


def _check_known(names: Sequence[str] | Mapping, known: Sequence[str] | Mapping, what: str) -> None:
    if unknown := sorted(set(names) - set(known)):
        raise StudyError(f"There is no {what} {unknown[0]!r}; choose of {', '.join(known)}.")
