"""The three experiments on synthetic tables, with fake trainings that take no time."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch

import radiograph_study
import whole_scan_studies
from in_this_process import InThisProcess
from study_tables import csv_lines

from CACScoringLib.core.errors import CTError
from CACScoringLib.core.progress import Progress
from CACTrainingLib.evaluation.experiment import Experiment, ExperimentSettings, TrainingBudget
from CACTrainingLib.evaluation.study import carry_out
from CACTrainingLib.radiograph.study import RadiographStudy
from CACTrainingLib.whole_scan.radiomics.study import RadiomicsStudy
from CACTrainingLib.whole_scan.vessels.study import VesselStudy


def make_quick(monkeypatch, resamples: int) -> None:
    """Remove processes, scans of whole-scan studies, pictures and most resamples."""
    whole_scan_studies.without_scans(monkeypatch)
    monkeypatch.setattr("CACTrainingLib.evaluation.jobs.Workers", InThisProcess)
    monkeypatch.setattr("CACTrainingLib.evaluation.page.rendered", lambda figure: {"png": b"", "svg": b"<svg/>"})
    monkeypatch.setattr("CACScoringLib.statistics.bootstrap.RESAMPLES", resamples)


@dataclass(frozen=True)
class FakeExperiment:
    """An experiment with its fake data and trainings.

    Attributes:
        kind: Its class.
        changes: Settings besides table and output folder.
        training: Fake training.
        write_table: Function that writes a table of patients, from the number of the first.
    """

    kind: type[Experiment]
    changes: dict
    training: Callable
    write_table: Callable[..., Path]

    def settings(self, table: Path, output: Path) -> ExperimentSettings:
        return self.kind.SETTINGS(table, output, **self.changes)

    def page(
        self,
        settings: ExperimentSettings,
        train: Callable | None = None,
        progress: Progress | None = None,
        agrees: Callable[[str], bool] = bool,
        seconds: float = 1.0,
    ) -> str:
        training = train or self.training
        with (
            patch.object(self.kind, "validate", lambda *arguments: training(*arguments)),
            patch.object(self.kind, "training_seconds", lambda *arguments: seconds),
        ):
            return carry_out(self.kind, settings, progress, agrees).read_text(encoding="utf-8")


EXPERIMENTS = {
    "radiograph": FakeExperiment(
        RadiographStudy,
        {"names": ("base",), "budget": TrainingBudget(3)},
        radiograph_study.fake_training,
        radiograph_study.write_table,
    ),
    "vessels": FakeExperiment(
        VesselStudy,
        {"names": ("cnn-log", "voxel-sum-log"), "budget": TrainingBudget(folds=2)},
        whole_scan_studies.fake_training,
        whole_scan_studies.write_table,
    ),
    "radiomics": FakeExperiment(
        RadiomicsStudy,
        {"names": ("heart-logistic", "both-logistic"), "budget": TrainingBudget(folds=2)},
        whole_scan_studies.fake_training,
        whole_scan_studies.write_table,
    ),
}


def index_of(settings: ExperimentSettings) -> dict:
    """Read `study.json`, the content of the page."""
    return json.loads((settings.output / "study.json").read_text(encoding="utf-8"))


def sections_of(settings: ExperimentSettings) -> list[str]:
    """Names of the page's sections."""
    return [section["name"] for section in index_of(settings)["sections"]]


class RecordingTrainer:
    """Training that records its runs and the study.

    Args:
        training: Training to call.
        fails: Function that returns True for runs that fail.
    """

    def __init__(self, training: Callable, fails: Callable[[object], bool] | None = None):
        self.training, self.fails = training, fails
        self.done, self.study = [], None

    def __call__(self, study, run, folder):
        self.study = study
        self.done.append(run)
        if self.fails and self.fails(run):
            raise CTError("there is no memory for it")
        return self.training(study, run, folder)


class Warned(Progress):
    """Progress that records the warnings."""

    def __init__(self):
        super().__init__()
        self.warnings = []

    def warning(self, warning):
        self.warnings.append(warning)


def table_of(settings: ExperimentSettings, name: str) -> list[list[str]]:
    """Read a table of the page."""
    return csv_lines(settings.output / "tables" / f"{name}.csv")
