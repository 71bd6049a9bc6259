"""The three experiments on synthetic tables, with fake trainings that take no time."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import radiograph_study
import whole_scan_studies
from in_this_process import InThisProcess

from CACScoringLib.core.ct import CTError
from CACScoringLib.core.progress import Progress
from CACTrainingLib.evaluation.experiment import ExperimentSettings, TrainingBudget
from CACTrainingLib.radiograph.study.study import RadiographStudySettings, evaluate_radiographs
from CACTrainingLib.whole_scan.radiomics.study import RadiomicsStudySettings, evaluate_radiomics
from CACTrainingLib.whole_scan.vessels.study import VesselBudget, VesselStudySettings, evaluate_vessels


def make_quick(monkeypatch, resamples: int) -> None:
    """Remove processes, scans of whole-scan studies, pictures and most resamples."""
    whole_scan_studies.without_scans(monkeypatch)
    monkeypatch.setattr("CACTrainingLib.evaluation.jobs.Workers", InThisProcess)
    monkeypatch.setattr("CACTrainingLib.evaluation.page.rendered", lambda figure: {"png": b"", "svg": b"<svg/>"})
    monkeypatch.setattr("CACTrainingLib.statistics.bootstrap.Bootstrap.__init__.__defaults__", (resamples,))


@dataclass(frozen=True)
class FakeExperiment:
    """An experiment with its fake data and trainings.

    Attributes:
        settings: Function that makes its settings from table and output folder.
        evaluate: Function that runs it, with settings and a trainer.
        trainer: Fake trainer.
        write_table: Function that writes a table of patients, from the number of the first.
        predicted: Column of the predictions that names the scan.
    """

    settings: Callable[..., ExperimentSettings]
    evaluate: Callable[..., Path]
    trainer: Callable
    write_table: Callable[..., Path]
    predicted: str

    def page(
        self, settings: ExperimentSettings, train: Callable | None = None, progress: Progress | None = None
    ) -> str:
        return self.evaluate(settings, progress=progress, train=train or self.trainer).read_text(encoding="utf-8")


EXPERIMENTS = {
    "radiograph": FakeExperiment(
        partial(RadiographStudySettings, names=("base",), budget=TrainingBudget(3)),
        evaluate_radiographs,
        radiograph_study.fake_trainer,
        radiograph_study.write_table,
        "name",
    ),
    "vessels": FakeExperiment(
        partial(VesselStudySettings, budget=VesselBudget(folds=2, networks=("cnn-log", "voxel-sum-log"))),
        evaluate_vessels,
        whole_scan_studies.fake_trainer,
        whole_scan_studies.write_table,
        "scan",
    ),
    "radiomics": FakeExperiment(
        partial(RadiomicsStudySettings, budget=TrainingBudget(folds=2), workers=1),
        evaluate_radiomics,
        whole_scan_studies.fake_trainer,
        whole_scan_studies.write_table,
        "scan",
    ),
}


def index_of(settings: ExperimentSettings) -> dict:
    """Read `study.json`, the content of the page."""
    return json.loads((settings.output / "study.json").read_text(encoding="utf-8"))


def sections_of(settings: ExperimentSettings) -> list[str]:
    """Names of the page's sections."""
    return [section["name"] for section in index_of(settings)["sections"]]


class RecordingTrainer:
    """Trainer that records its runs.

    Args:
        trainer: Trainer to call.
        fails: Function that returns True for runs that fail.
        ends: Number of runs after which it is interrupted.
    """

    def __init__(self, trainer: Callable, fails: Callable[[object], bool] | None = None, ends: int | None = None):
        self.trainer, self.fails, self.ends = trainer, fails, ends
        self.done, self.data = [], None

    def __call__(self, data, budget):
        do, self.data = self.trainer(data, budget), data

        def counted(run):
            if self.ends is not None and len(self.done) >= self.ends:
                raise KeyboardInterrupt
            self.done.append(run)
            if self.fails and self.fails(run):
                raise CTError("there is no memory for it")
            return do(run)

        return counted


class Warned(Progress):
    """Progress that records the warnings."""

    def __init__(self):
        super().__init__()
        self.warnings = []

    def warning(self, warning):
        self.warnings.append(warning)


def table_of(settings: ExperimentSettings, name: str) -> list[list[str]]:
    """Read a table of the page."""
    with (settings.output / "tables" / f"{name}.csv").open(encoding="utf-8", newline="") as stream:
        return list(csv.reader(stream))
