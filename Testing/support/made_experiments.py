"""The three experiments on tables that are made up, with trainings that take no time."""

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
from CACTrainingLib.experiments.engine import ExperimentSettings, TrainingBudget
from CACTrainingLib.radiograph.study.study import RadiographStudySettings, evaluate_radiographs
from CACTrainingLib.whole_scan.radiomics.study import RadiomicsStudySettings, evaluate_radiomics
from CACTrainingLib.whole_scan.vessels.study import VesselBudget, VesselStudySettings, evaluate_vessels


def make_quick(monkeypatch, resamples: int) -> None:
    """Without processes, scans of whole-scan studies, pictures and most resamples."""
    whole_scan_studies.without_scans(monkeypatch)
    monkeypatch.setattr("CACTrainingLib.experiments.jobs.Workers", InThisProcess)
    monkeypatch.setattr("CACTrainingLib.report.page.rendered", lambda figure: {"png": b"", "svg": b"<svg/>"})
    monkeypatch.setattr("CACTrainingLib.statistics.bootstrap.Bootstrap.__init__.__defaults__", (resamples,))


@dataclass(frozen=True)
class MadeExperiment:
    """write_table: of patients, with the number of the first. evaluate: of settings, and by whom runs are done."""

    settings: Callable[..., ExperimentSettings]
    evaluate: Callable[..., Path]
    trainer: Callable
    write_table: Callable[..., Path]
    predicted: str
    """Column of the predictions that names the scan."""

    def page(
        self, settings: ExperimentSettings, train: Callable | None = None, progress: Progress | None = None
    ) -> str:
        return self.evaluate(settings, progress=progress, train=train or self.trainer).read_text(encoding="utf-8")


EXPERIMENTS = {
    "radiograph": MadeExperiment(
        partial(RadiographStudySettings, names=("base",), budget=TrainingBudget(3)),
        evaluate_radiographs,
        radiograph_study.fake_trainer,
        radiograph_study.write_table,
        "name",
    ),
    "vessels": MadeExperiment(
        partial(VesselStudySettings, budget=VesselBudget(folds=2, networks=("cnn-log", "voxel-sum-log"))),
        evaluate_vessels,
        whole_scan_studies.fake_trainer,
        whole_scan_studies.write_table,
        "scan",
    ),
    "radiomics": MadeExperiment(
        partial(RadiomicsStudySettings, budget=TrainingBudget(folds=2), workers=1),
        evaluate_radiomics,
        whole_scan_studies.fake_trainer,
        whole_scan_studies.write_table,
        "scan",
    ),
}


def index_of(settings: ExperimentSettings) -> dict:
    """`study.json`: what the page holds, by names that stay."""
    return json.loads((settings.output / "study.json").read_text(encoding="utf-8"))


def sections_of(settings: ExperimentSettings) -> list[str]:
    """Names of the page's sections."""
    return [section["name"] for section in index_of(settings)["sections"]]


class Counting:
    """Trains, and keeps what was asked for. fails: where a run fails; ends: the number of runs that are still done."""

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
    """Keeps the warnings."""

    def __init__(self):
        super().__init__()
        self.warnings = []

    def warning(self, warning):
        self.warnings.append(warning)


def table_of(settings: ExperimentSettings, name: str) -> list[list[str]]:
    """A table of the page."""
    with (settings.output / "tables" / f"{name}.csv").open(encoding="utf-8", newline="") as stream:
        return list(csv.reader(stream))
