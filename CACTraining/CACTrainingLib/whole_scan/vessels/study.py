"""The study of vessel regression: every configuration of `vessels.configurations`, cross-validated and tested once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path

from CACScoringLib.core.progress import Progress
from CACScoringLib.core.tables import write_table

from ...data.scan_table import TableScan, table_hash
from ...experiments.configuration import ExperimentRun, chosen_tables
from ...experiments.engine import PREDICTIONS, Experiment, ExperimentSettings, Trainer, carry_out
from ...experiments.errors import StudyError
from ...experiments.results import by_configuration
from ...report.page import write_study
from ...report.parts import Section
from ..scan_table import ARTERIES, read_scan_table
from ..split import folds, learned_and_tested
from . import checks
from .configurations import (
    SUPERVISED,
    TABLES,
    Chosen,
    Configuration,
    VesselBudget,
    VesselRun,
    chosen_of,
    configurations_of,
    grid_runs,
    run_key,
    runs_of,
)
from .results import Result, Study, read_result
from .scans import Known, data_section, read_scans
from .study_runs import Data, trainer
from .tables import errors_section, goals_section, models_section, shown


@dataclass(frozen=True)
class VesselStudySettings(ExperimentSettings):
    """test: to test on; None: a fifth of data. noncoronary_controls: of patients whose calcium lies elsewhere only.
    tables: names in TABLES; none: all. cache: where prepared scans are kept; None: in the output folder. Otherwise as
    all experiments'.
    """

    budget: VesselBudget = field(default_factory=VesselBudget)
    test: Path | None = None
    noncoronary_controls: Path | None = None
    tables: tuple[str, ...] = ()
    cache: Path | None = None


def evaluate_vessels(
    settings: VesselStudySettings,
    progress: Progress | None = None,
    train: Trainer = trainer,
    read: Callable[..., Known] = read_scans,
) -> Path:
    """Make the study; see `experiments.engine.carry_out`. read: what prepares the scans.

    Raises StudyError, TableError, OutputError, and CTError where no scan can be prepared.
    """
    progress = progress or Progress()
    tables = chosen_tables(settings.tables, TABLES, always=("models",))
    reads = partial(_read, settings, tables, read, progress)
    return carry_out(settings, reads, train, ("scans", "trainings", "page"), progress)


def _read(
    settings: VesselStudySettings, tables: tuple[str, ...], read: Callable[..., Known], progress: Progress
) -> _VesselStudy:
    given = [read_scan_table(path) if path else () for path in (settings.data, settings.test)]
    without = [tuple(scan for scan in table if not scan.contrast) for table in given]
    if any(table and not plain for table, plain in zip(given, without, strict=True)):
        raise StudyError("There is no scan without contrast agent; scores are predicted for such scans only.")
    plain, training, test = learned_and_tested(*without)
    noncoronary_controls: tuple[TableScan, ...] = ()
    if settings.noncoronary_controls is not None:
        patients = {scan.patient for scan in plain}
        asked = read_scan_table(settings.noncoronary_controls, scored=False)
        # Of whom a network may have learned, and those who have coronary calcium after all, it would say nothing.
        noncoronary_controls = tuple(scan for scan in asked if scan.patient not in patients and not scan.total)
        if not noncoronary_controls:
            raise StudyError(
                f"None of the {len(asked)} scans of --noncoronary-controls is of a new patient without coronary "
                "calcium."
            )
    cache = settings.cache or settings.output / "prepared"
    known = read(plain, noncoronary_controls, test, settings.budget, cache, settings.workers, progress)
    if not known.digital:  # where calcium lies is not known
        budget = settings.budget
        kinds = tuple(kind for kind in budget.kinds if kind != SUPERVISED)
        settings = replace(settings, budget=replace(budget, kinds=kinds))
    there = set(known.scans.names)
    rest = [scan for scan in plain if scan.name in there and scan.name in set(training)]
    split = folds(rest, settings.budget.folds, settings.budget.seed)
    data = Data(
        known.inputs,
        {name: tuple(map(float, scores)) for name, scores in zip(known.scans.names, known.scans.agatston, strict=True)},
        tuple((tuple(outside), tuple(inside)) for outside, inside in split),
        tuple(name for name in test if name in there),
        () if known.noncoronary_controls is None else known.noncoronary_controls.names,
        known.saliency_patients,
        settings.output,
        settings.device,
    )
    if not data.test:
        raise StudyError("None of the scans that were held out could be prepared.")
    left_out = sum(map(len, given)) - len(plain)
    stamp = f"{table_hash(plain)[:16]} {table_hash(noncoronary_controls)[:16]}"
    return _VesselStudy(settings, data, tables, known, stamp, left_out)


@dataclass(frozen=True)
class _VesselStudy(Experiment):
    """stamp: stands for the tables. with_contrast: how many scans were left out."""

    settings: VesselStudySettings
    data: Data
    tables: tuple[str, ...]
    known: Known
    stamp: str
    with_contrast: int

    def key(self, run: VesselRun) -> str:
        failed = sorted(self.known.failed)
        # Only what the run uses is in its key: without a test, other patients change nothing.
        of = self.stamp if run.evaluated else self.stamp.partition(" ")[0]
        return run_key(run, self.settings.budget, f"{of} {failed}" if failed else of)

    def title_of(self, run: ExperimentRun) -> str:
        return f"{run.configuration.name}, fold {run.fold + 1}"

    def stages(self) -> Iterator[Sequence[VesselRun]]:
        if "grid" not in self.tables:
            yield runs_of(self.tables, self.settings.budget, {})
            return
        yield self.grid_runs
        chosen = self.chosen()
        runs = runs_of(self.tables, self.settings.budget, chosen)
        yield [run for run in runs if run.configuration.kind in chosen]

    @cached_property
    def grid_runs(self) -> list[VesselRun]:
        return grid_runs(self.settings.budget) if "grid" in self.tables else []

    def chosen(self) -> Chosen:
        """Of the kinds whose grid is whole, those that gave nothing among it."""
        lacking = {run.configuration.kind for run in set(self.grid_runs) - set(self.kept(self.grid_runs))}
        found = self.results(self.grid_runs)
        errors = {one: self.study.error_of(results[0].validation) for one, results in found.items()}
        return chosen_of({one: error for one, error in errors.items() if one.kind not in lacking})

    @cached_property
    def study(self) -> Study:
        rows = self.known.scans.rows(self.data.test)
        return Study(
            self.known.scans, self.known.noncoronary_controls, self.data.folds, rows, self.settings.budget.seed
        )

    def results(self, runs: Sequence[VesselRun]) -> dict[Configuration, list[Result]]:
        kept = {run: found for run, found in self.kept(runs).items() if "useless" not in found}
        return {
            one: [read_result(self.known.scans, self.known.noncoronary_controls, found) for found in results]
            for one, results in by_configuration(kept).items()
        }

    def write_page(self, failed: Mapping[ExperimentRun, str]) -> Path:
        budget, study = self.settings.budget, self.study
        grid, chosen = self.results(self.grid_runs), self.chosen()
        results = self.results(runs_of(self.tables, budget, chosen))
        models = configurations_of("models", budget, chosen)
        page = shown(study, results, models, budget.folds_of("models"))
        sections: list[Section | None] = [
            goals_section(page),
            data_section(self.known, self.data, self.with_contrast, self.failed_tables(failed)),
            models_section(page),
            errors_section(page),
            checks.control_section(page),
            checks.saliency_section(page, self.settings.output),
        ]
        for table in ("augmentation", "published"):
            if table in self.tables:
                variants = configurations_of(table, budget, chosen)
                sections.append(checks.variants_section(page, table, variants, budget.folds_of(table)))
        if "grid" in self.tables:
            tried = [run.configuration for run in self.grid_runs]
            sections.append(checks.grid_section(study, {one: found[0] for one, found in grid.items()}, tried, chosen))
        self._write_predictions(page.models, results)
        title = "Coronary calcium scores by vessel regression, without finding lesions"
        done = [{"seconds": one.seconds} for part in (results, grid) for found in part.values() for one in found]
        shown_sections = list(filter(None, sections))
        return write_study(self.settings.output, title, shown_sections, self._facts(done), self.known.digital)

    def _write_predictions(self, models: Sequence[Configuration], results: Mapping) -> None:
        scores = [f"{what}_{artery}" for what in ("true", "predicted") for artery in ARTERIES]
        rows = [
            (
                *(one.title, result.fold + 1, of.names[row], of.patients[row], use),
                *(round(float(score), 2) for score in (*of.agatston[row], *predicted)),
            )
            for one in models
            for result in results.get(one, ())
            for use, part, of in (
                ("validation", result.validation, self.known.scans),
                ("held out", result.test, self.known.scans),
                ("others", result.noncoronary_controls, self.known.noncoronary_controls),
            )
            if part is not None
            for row, predicted in zip(part.rows, part.agatston, strict=True)
        ]
        columns = ("network", "fold", "scan", "patient", "use", *scores)
        write_table(self.settings.output / PREDICTIONS, columns, rows)

    def _facts(self, results: Sequence[Mapping]) -> dict[str, str]:
        budget, noncoronary_controls = self.settings.budget, self.settings.noncoronary_controls
        own = {
            "Training budget": f"preset {budget.preset}; {budget.folds_text}",
            "Steps": "at most those of the preset" if budget.steps is None else f"at most {budget.steps}",
            "Every patient": f"{PREDICTIONS}: predictions of each network",
        }
        return self.facts(results, {"Others": str(noncoronary_controls)} if noncoronary_controls else {}, own)
