"""One training of the study, in a process of its own: which radiographs it learns from, and what it predicts."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from CACScoringLib.core.ct import CTError
from CACScoringLib.core.tables import write_table

from ...data.scan_table import TableScan
from ...experiments.configuration import ExperimentRun
from ...experiments.engine import running_folder
from ...experiments.jobs import Prepared
from ..table import LABELS, read_table
from .configurations import THRESHOLDS, Configuration, RadiographBudget, folds_of_patients, run_key

if TYPE_CHECKING:
    from ..dataset import RadiographSet
    from ..fitting import FitSettings

MERGED = "external.csv"
"""Both cohorts as one table, in the output folder: the external patients are the test of one training."""

EXTERNAL = "external "
"""Before the names and patients of the external cohort in that table."""

VALIDATION_PARTS = 5
"""One of so many parts of the patients that are not tested is validated and calibrated by."""

_COLUMNS = {"truth": LABELS[0], "reader": LABELS[1], "automatic": LABELS[2]}


@dataclass(frozen=True)
class Data:
    """table: of radiographs. folds: in which each row is tested. external: table of the other cohort. folder: for what
    trainings leave while they run. device: of the networks.
    """

    table: Path
    folds: tuple[int, ...]
    external: Path | None
    folder: Path
    device: str


def trainer(data: Data, budget: RadiographBudget) -> Prepared:
    """What does a run: trains, and returns what the study keeps of it. Each process works on one core."""
    import torch

    torch.set_num_threads(1)
    return _Trainer(data, budget)


def fit_settings(configuration: Configuration, budget: RadiographBudget, device: str) -> FitSettings:
    """A configuration as the settings of its training."""
    from CACScoringLib.networks.radiograph import RadiographNetConfig

    from ..fitting import FitSettings
    from ..task import SEVERE_FIRST
    from ..train import PRESETS

    config = RadiographNetConfig(
        backbone=configuration.backbone,
        views=configuration.views,
        thresholds=THRESHOLDS,
        enhancement=configuration.enhancement,
    )
    preset = PRESETS[configuration.backbone]
    proportion = 1.0 if budget.steps is None else budget.steps / PRESETS["light"].loop.steps
    loop = replace(preset.loop, seed=budget.seed, steps=max(1, round(proportion * preset.loop.steps)))
    training = replace(
        preset,
        loop=loop,
        label=_COLUMNS[configuration.labels],
        scaled_share=preset.scaled_share if configuration.counterfactual else 0.0,
        curriculum=SEVERE_FIRST if configuration.curriculum else (),
        locate_weight=preset.locate_weight if configuration.located else 0.0,
    )
    return FitSettings(config, training, device)


class _Trainer:
    """Holds the radiographs of the last run, for those of the next are mostly the same."""

    def __init__(self, data: Data, budget: RadiographBudget) -> None:
        self._data, self._budget = data, budget
        self._held: tuple[tuple, RadiographSet] | None = None

    def __call__(self, run: ExperimentRun) -> dict:
        from CACScoringLib.networks.radiograph import RadiographNet

        from ..fitting import fit_fold

        configuration = run.configuration
        table = self._merged() if configuration.external else self._data.table
        known = self._radiographs(table, configuration)
        training, validation, test = self._split(known, run)
        settings = fit_settings(configuration, self._budget, self._data.device)
        key = run_key(run, self._budget, known.sha256)
        with running_folder(self._data.folder, f"{configuration.name}-{run.fold}", key) as folder:
            found = fit_fold(known, training, validation, test, settings, folder)
        if not (np.isfinite(found.logits).all() and np.isfinite(found.image).all()):
            raise CTError(
                f"The training of {configuration.name} gave no numbers. Choose fewer --steps, or another --seed."
            )
        names = [known.names[n].removeprefix(EXTERNAL if configuration.external else "") for n in found.test]
        return {
            "names": names,
            "fold": run.fold,
            "logits": found.logits.tolist(),
            "image": found.image.tolist(),
            "both": found.fused.tolist() if np.isfinite(found.fused).all() else None,
            "seconds": float(found.seconds),
            "steps": int(found.steps),
            "best_step": int(found.best_step),
            "epochs": float(found.epochs),
            "weights": sum(p.numel() for p in RadiographNet(settings.config).parameters()),
            "learned_from": len(training),
        }

    def _radiographs(self, table: Path, configuration: Configuration) -> RadiographSet:
        from ..dataset import SCALES, load_radiographs

        scales = SCALES if configuration.counterfactual else SCALES[:1]
        pictures = (configuration.views, configuration.enhancement, configuration.super_resolution, scales)
        if self._held is None or self._held[0] != (table, *pictures):
            self._held = None  # so that there is never room needed for both
            if configuration.super_resolution != "none" and any(
                f.suffix != ".npz" for r in read_table(table) for f in r.files.values()
            ):
                raise CTError(
                    "Only radiographs projected from CTs with thick slices can be made with super-resolution."
                )
            self._held = (table, *pictures), load_radiographs(table, LABELS[0], *pictures)
        return self._held[1]

    def _split(self, known: RadiographSet, run: ExperimentRun) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        everything = np.arange(len(known))
        if run.configuration.external:
            tested = np.array([name.startswith(EXTERNAL) for name in known.names])
        else:
            tested = np.array(self._data.folds) == run.fold
        rest = everything[~tested]
        seed = self._budget.seed + 1 + run.fold
        part = folds_of_patients(known.patients[rest], known.scores[LABELS[0]][rest], VALIDATION_PARTS, seed)
        return rest[part != 0], rest[part == 0], everything[tested]

    def _merged(self) -> Path:
        path = self._data.folder / MERGED
        if self._data.external is None:
            raise CTError("There is no external cohort.")
        own, others = read_table(self._data.table), read_table(self._data.external)
        rows = [*own, *(replace(row, name=EXTERNAL + row.name, patient=EXTERNAL + row.patient) for row in others)]
        columns = ("name", "patient", "file", "lateral", "age_years", "sex", "bmi_kg_m2", *LABELS)
        write_table(path, columns, (_line(row, path.parent) for row in rows))
        return path


def _line(row: TableScan, folder: Path) -> dict[str, object]:
    own = {view: os.path.relpath(file.resolve(), folder.resolve()) for view, file in row.files.items()}
    digital = row.files["PA"].suffix == ".npz"
    return {
        "name": row.name,
        "patient": row.patient,
        "file": own["PA"],
        "lateral": "" if digital else own.get("lateral", ""),
        **{name: getattr(row, name) for name in ("age_years", "sex", "bmi_kg_m2")},
        **{label: row.scores.get(label, "") for label in LABELS},
    }
