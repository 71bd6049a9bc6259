"""What the study of radiographs trains: each way once, however many tables show it, in the order of their importance.

A way to train is a `Cell`; a table is one or more of them, and all but one thing is the same in them. Each is trained
anew for each fold of the patients, and the folds are the same for all.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace

import numpy as np

from ...experiments.errors import StudyError
from ...statistics.patient_folds import CATEGORIES, category_of, parts_by_patient

THRESHOLDS = tuple(map(int, CATEGORIES))
THRESHOLD_TITLES = ("> 0", "≥ 100", "≥ 400")
BACKBONES = {"light": "Light", "resnet18": "ResNet18", "densenet121": "DenseNet121"}
SHARPENINGS = {"none": "As projected", "interpolated": "Thin slices, interpolated", "learned": "Thin slices, learned"}
ENHANCEMENTS = {
    "none": "None",
    "clahe": "CLAHE",
    "equalised": "Histogram equalised",
    "unsharp": "Unsharp mask",
}
LABELS = {"truth": "True mass", "reader": "Reader's score", "automatic": "Score without a reader"}


@dataclass(frozen=True)
class Cell:
    """A way to train. external: on all patients, and judged by another cohort; else by cross-validation.

    labels: a key of LABELS: what it learns from; it is judged by the truth always. curriculum: severe calcium first.
    twins: with radiographs of the same patients whose calcium is scaled or taken out. located: asked, in training,
    where the calcium is; only the light network can be.
    """

    backbone: str = "light"
    views: tuple[str, ...] = ("PA",)
    sharpening: str = "none"
    enhancement: str = "none"
    labels: str = "truth"
    curriculum: bool = False
    twins: bool = True
    located: bool = True
    external: bool = False

    @property
    def name(self) -> str:
        """Short, and unlike any other cell's; fit for a folder."""
        parts = [self.backbone, "+".join(self.views)]
        parts += [getattr(self, f.name) for f in fields(self)[2:5] if getattr(self, f.name) != f.default]
        flags = (("curriculum", self.curriculum), ("no-twins", not self.twins), ("not-located", not self.located))
        flags += (("external", self.external),)
        return "-".join([*parts, *(name for name, there in flags if there)])


BASE = Cell()
"""What all else is compared with."""
UNAIDED = replace(BASE, twins=False, located=False)
"""As the papers train: from pictures and scores only."""

TABLES: dict[str, tuple[Cell, ...]] = {
    "thresholds": (BASE,),
    "fusion": tuple(replace(BASE, views=views) for views in (("PA",), ("lateral",), ("PA", "lateral"))),
    "capacity": (BASE, *(replace(BASE, backbone=backbone, located=False) for backbone in BACKBONES)),
    "twins": tuple(replace(BASE, twins=twins, located=located) for twins in (True, False) for located in (True, False)),
    "curriculum": tuple(
        replace(UNAIDED, labels=labels, curriculum=curriculum) for labels in LABELS for curriculum in (False, True)
    ),
    "sharpening": tuple(
        replace(BASE, sharpening=sharpening, enhancement=enhancement)
        for sharpening in SHARPENINGS
        for enhancement in ENHANCEMENTS
    ),
    "external": (replace(BASE, external=True),),
}
"""The cells of each table, the most important table first."""


@dataclass(frozen=True)
class Effort:
    """How much is trained. folds: of the cross-validation. only: by table, how many of the folds are trained, where
    that is less; a cell of several tables gets the most. steps: of a light network's training, of the others in
    proportion to their presets; None: as the presets say. seed: of folds, trainings and bootstrap.
    """

    folds: int = 5
    only: Mapping[str, int] = field(default_factory=dict)
    steps: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        unknown = sorted(set(self.only) - set(TABLES))
        if unknown:
            raise StudyError(f"There is no table {unknown[0]!r}; choose of {', '.join(TABLES)}.")
        if self.folds < 3 or any(not 1 <= count <= self.folds for count in self.only.values()):
            raise StudyError(
                f"Cross-validation takes 3 folds or more (one to test, one to choose by, the rest to learn), and a "
                f"table 1 to all of them; these are {self.folds} folds and {dict(self.only)}."
            )

    def folds_of(self, cell: Cell, tables: Sequence[str]) -> int:
        """How many folds of a cell are trained for these tables."""
        if cell.external:
            return 1
        if cell == BASE:
            return self.folds
        return max(self.only.get(table, self.folds) for table in tables if cell in TABLES[table])


@dataclass(frozen=True)
class Job:
    """One training: a cell, and which fold is its test. fold: from 0; of an external cell 0."""

    cell: Cell
    fold: int

    def key(self, effort: Effort, data: str) -> str:
        """All that its result depends on. data: what stands for the table's content."""
        folds = 0 if self.cell.external else effort.folds
        settings = {"fold": self.fold, "folds": folds, "steps": effort.steps, "seed": effort.seed, "data": data}
        return json.dumps(asdict(self.cell) | settings, sort_keys=True)


def chosen_tables(names: Sequence[str]) -> tuple[str, ...]:
    """In the order of TABLES; all when none is named. Raises StudyError for an unknown one."""
    unknown = sorted(set(names) - set(TABLES))
    if unknown:
        raise StudyError(f"There is no table {unknown[0]!r}; choose of {', '.join(TABLES)}.")
    return tuple(name for name in TABLES if not names or name in names)


def cells_of(tables: Sequence[str]) -> list[Cell]:
    """Each once, the base first."""
    return list(dict.fromkeys([BASE, *(cell for table in tables for cell in TABLES[table])]))


def jobs_of(tables: Sequence[str], effort: Effort) -> list[Job]:
    """All trainings, in the order in which they are worth most if the rest is never done."""
    return [Job(cell, fold) for cell in cells_of(tables) for fold in range(effort.folds_of(cell, tables))]


def folds_of_patients(patients: Sequence, agatston: np.ndarray, folds: int, seed: int) -> np.ndarray:
    """Which fold each radiograph is tested in, int [n]: no patient in two, and each category's share the same in all.

    Raises StudyError with fewer patients than folds.
    """
    if len(set(patients)) < folds:
        raise StudyError(f"{len(set(patients))} patients cannot be split into {folds} folds. Give fewer --folds.")
    return parts_by_patient(patients, category_of(agatston), folds, seed)
