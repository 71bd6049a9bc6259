"""The study of radiograph models: every configuration of `radiograph.study.configurations`, cross-validated."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np

from CACScoringLib.core.progress import Progress
from CACScoringLib.core.tables import write_table

from ...experiments.configuration import ExperimentRun, chosen_tables
from ...experiments.engine import PREDICTIONS, Experiment, ExperimentSettings, Trainer, carry_out
from ...experiments.errors import StudyError
from ...experiments.results import SCORE_COLUMNS, by_configuration, score_counts
from ...report.page import write_study
from ...report.parts import Section, Table
from ..cohort import SETTINGS
from ..events import FACTORS, PROBABILITIES
from .configurations import (
    BASE,
    TABLES,
    Configuration,
    RadiographBudget,
    configurations_of,
    folds_of_patients,
    run_key,
    runs_of,
)
from .results import Predictions, Radiographs, Study, factors_model, gathered, read_radiographs
from .study_runs import Data, trainer
from .tables import PUBLISHED_EXTERNAL, comparators_of, sections_of, thresholds_section


@dataclass(frozen=True)
class RadiographStudySettings(ExperimentSettings):
    """data: table of radiographs, or its folder. external: another, tested on once. tables: names in TABLES; none:
    all. Otherwise as all experiments' settings.
    """

    budget: RadiographBudget = field(default_factory=RadiographBudget)
    external: Path | None = None
    tables: tuple[str, ...] = ()


def evaluate_radiographs(
    settings: RadiographStudySettings, progress: Progress | None = None, train: Trainer = trainer
) -> Path:
    """Make the study; see `experiments.engine.carry_out`. Raises StudyError, TableError, OutputError."""
    tables = chosen_tables(settings.tables, TABLES)
    if settings.external is None:
        if settings.tables and "external" in tables:
            raise StudyError("The table “external” takes another cohort. Name it with --external.")
        tables = tuple(name for name in tables if name != "external")
    if not _is_digital(settings.data):
        tables = tuple(name for name in tables if name != "counterfactual_pairs")  # takes CTs whose calcium is known
    return carry_out(settings, partial(_read, settings, tables), train, ("radiographs", "trainings", "page"), progress)


def _read(settings: RadiographStudySettings, tables: tuple[str, ...]) -> _RadiographStudy:
    known = read_radiographs(settings.data)
    other = read_radiographs(settings.external) if settings.external else None
    both = sorted(set(known.patients) & set(other.patients)) if other is not None else []
    if both:
        raise StudyError(f"Patient {both[0]} is in the external cohort too. Give one of other patients.")
    folds = folds_of_patients(known.patients, known.agatston, settings.budget.folds, settings.budget.seed)
    data = Data(settings.data, tuple(map(int, folds)), settings.external, settings.output, settings.device)
    return _RadiographStudy(settings, data, tables, known, other, folds)


@dataclass(frozen=True)
class _RadiographStudy(Experiment):
    settings: RadiographStudySettings
    data: Data
    tables: tuple[str, ...]
    known: Radiographs
    other: Radiographs | None
    folds: np.ndarray

    def stages(self) -> Iterator[Sequence[ExperimentRun]]:
        yield runs_of(self.tables, self.settings.budget)

    def key(self, run: ExperimentRun) -> str:
        stamp = self.known.sha256[:16]
        if run.configuration.external and self.other:
            stamp += f" {self.other.sha256[:16]}"
        return run_key(run, self.settings.budget, stamp)

    def write_page(self, failed: Mapping[ExperimentRun, str]) -> Path:
        budget = self.settings.budget
        kept = self.kept(runs_of(self.tables, budget))
        results = by_configuration(kept)
        trained = {
            one: (len(results.get(one, ())), budget.folds_of(one, self.tables))
            for one in configurations_of(self.tables)
        }
        # Of the base, what is there is shown; others only whole, so that all have the same patients.
        whole = {
            one: gathered(self.known, found)
            for one, found in results.items()
            if not one.external and (one == BASE or trained[one][0] == trained[one][1])
        }
        study = Study(self.known, whole, self.folds, budget.seed)
        digital = _is_digital(self.settings.data) and (self.other is None or _is_digital(self.settings.external))
        sections = [self._data_section(digital, trained, failed), *sections_of(study, self.tables, trained, digital)]
        if "external" in self.tables:
            sections.append(self._external_section([f for one, f in results.items() if one.external], digital))
        if BASE in whole:
            _write_predictions(self.settings.output / PREDICTIONS, self.known, whole[BASE])
        title = "Detection of coronary calcium on chest radiographs"
        return write_study(self.settings.output, title, sections, self._facts(list(kept.values())), digital)

    def _data_section(
        self,
        digital: bool,
        trained: Mapping[Configuration, tuple[int, int]],
        failed: Mapping[ExperimentRun, str],
    ) -> Section:
        done, planned = (sum(counts[n] for counts in trained.values()) for n in (0, 1))
        text = [
            f"{len(self.known.names)} radiographs of {len(set(self.known.patients))} patients, cross-validated in "
            f"{self.settings.budget.folds} folds. {done} of {planned} trainings are done.",
            "No real radiograph whose calcium is known was available. Nothing here was measured on one."
            if digital
            else "The table does not state whether an image is a real radiograph or was projected from a CT.",
            "Training methods were compared on the patients on whom the best of them would be chosen: the best value "
            "of a table is higher than is to be expected in new patients."
            + (" The external cohort was used for no choice." if self.other is not None else ""),
        ]
        if digital:
            text.append(
                "The radiographs were projected from computed CTs with the whole chest. Of what makes calcium hard to "
                "see in patients, they have ribs, spine, vessels and calcium outside the coronary arteries, but "
                "neither "
                "scatter nor the finer blur of a real detector; and age shows in nothing but calcium, shape and size."
            )
        rows = [
            score_counts(title, data.patients, data.agatston)
            for title, data in (("Cross-validated", self.known), ("External", self.other))
            if data is not None
        ]
        columns = ("Radiographs", *SCORE_COLUMNS)
        tables = [Table("radiographs", "Radiographs by the reference score", columns, tuple(rows))]
        tables += self.failed_tables(failed)
        return Section("data", "The radiographs", tuple(text), tuple(tables))

    def _external_section(self, results: list[list[dict]], digital: bool) -> Section:
        if not results or self.other is None:
            text = ("It has not been run yet. Run the same command again to go on.",)
            return Section("external", "External test", text)
        found = gathered(self.other, results[0])
        study = Study(self.other, {}, np.zeros(len(self.other.names), int), self.settings.budget.seed)
        alone = self._factors_alone()
        text = [
            f"One network was trained on all patients of the cohort, and evaluated once on "
            f"{len(set(self.other.patients))} patients who were used neither for its training nor for any choice.",
        ]
        if digital:
            text.append("They are digital patients too, so that the test allows no conclusion about real hospitals.")
        return thresholds_section(
            study, comparators_of(found, alone), "external", text, PUBLISHED_EXTERNAL, "External test"
        )

    def _factors_alone(self) -> Predictions | None:
        if self.known.factors is None or self.other is None or self.other.factors is None:
            return None
        probabilities = factors_model(self.known, np.ones(len(self.known.names), bool))(self.other.factors)
        everyone = np.arange(len(self.other.names))
        return Predictions(
            everyone, np.zeros(len(everyone), int), probabilities, probabilities, probabilities, (), (), None
        )

    def _facts(self, results: Sequence[Mapping]) -> dict[str, str]:
        budget, external = self.settings.budget, self.settings.external
        steps = "at most those of the presets"
        if budget.steps is not None:
            steps = f"at most {budget.steps} of a light network, of others in proportion to their presets"
        others = {"Training budget": budget.folds_text, "Steps": steps}
        others["Every patient"] = f"{PREDICTIONS}: predictions of the base, for cac evaluate prognosis"
        return self.facts(results, {"External cohort": str(external)} if external else {}, others)


def _write_predictions(file: Path, data: Radiographs, found: Predictions) -> None:
    """The base's chances, with clinical factors where they are known, as `events.read_events` takes them."""
    columns = ["name", "patient", "fold", "agatston", *PROBABILITIES, *(() if data.factors is None else FACTORS)]
    rows = []
    for row, fold, probability in zip(
        found.rows, found.folds, found.image if found.both is None else found.both, strict=True
    ):
        known = () if data.factors is None else data.factors[row]
        told = [value if n != 1 else "FM"[int(value)] for n, value in enumerate(known)]
        own = (data.names[row], data.patients[row], fold, data.agatston[row])
        rows.append((*own, *(round(float(c), 4) for c in probability), *told))
    write_table(file, columns, rows)


def _is_digital(table: Path | None) -> bool:
    """Whether a table is of digital patients: their cohort's settings lie beside it."""
    return table is not None and ((table if table.is_dir() else table.parent) / SETTINGS).is_file()
