"""Carry out a study of trainings: run what is missing, and write its tables, comparison with papers and page.

Predictions of a training are stored as a line of JSON, so that a study resumes and its page can be rewritten without
training.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from CACScoringLib.cohort.workers import sensible_count
from CACScoringLib.core.categories import CATEGORY_TITLES, category_numbers
from CACScoringLib.core.ct import ScanWarning
from CACScoringLib.core.errors import CTError, OutputError
from CACScoringLib.core.progress import Progress, duration_text
from CACScoringLib.core.tables import write_table
from CACScoringLib.statistics.bootstrap import RESAMPLES, BootstrapResult, paired_difference

from .experiment import (
    HELD_OUT,
    MADE_BY,
    USES,
    Cohort,
    Experiment,
    ExperimentRun,
    ExperimentSettings,
    predicted_rows,
    predicted_values,
    values_in,
)
from .jobs import JobSettings, kept_jobs, kept_results, make_folder
from .measures import ExperimentComparison
from .page import write_study
from .papers import Quantity, findings_section, published_figures
from .parts import Cell, Section, TablePart, heading, p_cell

MEMORY_EACH_BYTES = 500_000_000
"""Memory of one training process in bytes, for the default number of processes."""

TRAININGS, PREDICTIONS = "trainings.jsonl", "predictions.csv"
"""Files in the output folder: predictions of each training, a line each; predictions of each patient."""

STEPS = ("scans", "trainings", "page")

TIME_IS_UP = "The time given is used up."
"""Reason of a training that did not begin in time."""


def write_page(experiment: Experiment, failed: Mapping[ExperimentRun, str]) -> Path:
    """Write the page of an experiment's finished runs: tables of all models and comparators, and papers' findings.

    failed: reason of each other run, TIME_IS_UP if late.
    """
    settings, budget, runs = experiment.settings, experiment.settings.budget, experiment.runs()
    stored = kept_results(settings.output / TRAININGS)
    results = {run: stored[key] for run in runs if (key := experiment.key(run)) in stored}
    minutes, steps = sum(r["seconds"] for r in results.values()) / 60, budget.steps or "steps of the presets"
    facts = {
        "Data": str(settings.data),
        "Trainings": f"{len(results)} of {len(runs)}, {minutes:.0f} min of one core in all, kept in {TRAININGS}",
        "Power": experiment.power(),
        "Training budget": f"{budget.folds} folds, repeated {budget.repeats}×, {steps}",
        "Every patient": f"{PREDICTIONS}: predictions of each model",
        "Bootstrap": f"{RESAMPLES} resamples of patients; seed {budget.seed}, also of folds and trainings",
    }
    predicted, incomplete = _all_predicted(experiment, results)
    _write_predictions(experiment, predicted)
    sections = [
        *_results_sections(experiment, predicted[predicted.use.isin(USES)], incomplete),
        *experiment.more_sections(predicted),
        _data_section(experiment.cohort, failed),
    ]
    return write_study(settings.output, experiment.TEXTS.title, sections, facts, experiment.is_digital)


def _all_predicted(
    experiment: Experiment, results: Mapping[ExperimentRun, Mapping[str, Any]]
) -> tuple[pd.DataFrame, dict[str, str]]:
    """Return the values of all models and comparators, and how many folds of other models are trained.

    Models with a value that is unknown in any fold are left out.
    """
    parts: list[pd.DataFrame] = []
    incomplete: dict[str, str] = {}
    for configuration in experiment.configurations:
        runs = sorted((run for run in results if run.configuration == configuration), key=lambda run: run.fold)
        if len(runs) < experiment.n_models:
            incomplete[configuration.title] = f"{len(runs)} of {experiment.n_models} folds"
            continue
        for run in runs:
            for use, rows in experiment.predicted_by(run.fold):
                of_titles = experiment.predictors(configuration, np.array(results[run][use], float))
                parts += [predicted_values(title, use, run.fold, rows, values) for title, values in of_titles.items()]
    for title, fit in experiment.comparators().items():
        for fold in range(experiment.n_models):
            predict, of_uses = fit(experiment.cohort.training(fold)), experiment.predicted_by(fold)
            parts += [predicted_values(title, use, fold, rows, predict(rows)) for use, rows in of_uses]
    predicted = pd.concat(parts) if parts else pd.DataFrame(columns=[*MADE_BY, "row"])
    unknown = set(predicted.model[predicted.isna().any(axis=1)])
    return predicted[~predicted.model.isin(unknown)], incomplete


def _results_sections(
    experiment: Experiment, predicted: pd.DataFrame, incomplete: Mapping[str, str]
) -> Sequence[Section]:
    text = (experiment.TEXTS.explanation, *experiment.notes())
    if predicted.empty:
        return [Section("results", "Results", (*text, "No configuration was trained in all folds yet."))]
    table = pd.concat(_long_table(experiment, part) for _, part in predicted.groupby([*MADE_BY], sort=False))
    seed = experiment.settings.budget.seed
    comparison = ExperimentComparison(experiment.cohort.patients, {}, np.random.default_rng(seed))
    tables = [
        _table(experiment, use, table[table.use == use], comparison, incomplete)
        for use, _ in experiment.predicted_by(0)
        if use in USES
    ]

    def result_of(quantity: Quantity) -> BootstrapResult | None:
        """Return a figure of the tables; None if the model has none."""
        outcomes = experiment.ROWS[quantity.row]
        rows = table[(table.use == quantity.use) & (table.method == quantity.model) & table.outcome.isin(outcomes)]
        if rows.empty:
            return None
        measure = next(measure for measure in experiment.measures(rows) if measure.title == quantity.measure)
        return comparison.averaged(measure, quantity.model, quantity.spread)

    results = Section("results", "Results", text, tuple(tables), values=(table,))
    return [results, *findings_section(experiment.TEXTS.papers, result_of)]


def _long_table(experiment: Experiment, predicted: pd.DataFrame) -> pd.DataFrame:
    """Return the long table of one model of a fold on patients of one use."""
    (title, use, fold), rows = predicted[[*MADE_BY]].iloc[0], predicted.row.to_numpy()
    scans = experiment.cohort.scans_at(rows)
    parts = [
        predicted_rows(scans, columns, title, f"{outcome} {fold + 1}").assign(outcome=outcome)
        for outcome, columns in experiment.outcomes(rows, values_in(predicted)).items()
    ]
    return pd.concat(parts).assign(use=use)


def _table(
    experiment: Experiment,
    use: str,
    table: pd.DataFrame,
    comparison: ExperimentComparison,
    incomplete: Mapping[str, str],
) -> TablePart:
    """Return the table of all models and comparators on patients of a use; means over the models of the folds."""
    measures, reference = experiment.measures(table), experiment.reference
    columns = ("Model", *(measure.title for measure in measures), "Difference", "p")
    parts = {
        title: [replace(measure, rows=measure.rows[measure.rows.outcome.isin(outcomes)]) for measure in measures]
        for title, outcomes in experiment.ROWS.items()
    }
    has_reference = reference in set(table.method)
    rows: list[tuple[Cell, ...]] = []
    for model in dict.fromkeys([*table.method, *incomplete]):
        if model in incomplete:
            rows.append((model, incomplete[model], *[None] * (len(columns) - 2)))
            continue
        rows += [heading(model, columns)] if len(parts) > 1 else []
        for title, items in parts.items():
            results = [comparison.averaged(item, model) if len(item.rows) else None for item in items]
            cells: list[Cell] = [None if result is None else result.estimate for result in results]
            change: tuple[Cell, ...] = (None, None)
            if results[0] is not None and model != reference and has_reference:
                difference = paired_difference(results[0], comparison.averaged(items[0], reference))
                change = (difference.estimate, p_cell(difference.p))
            rows.append((f"  {title}" if title else model, *cells, *change))
    published = published_figures(experiment.TEXTS.papers, use)
    rows += [(title, *map(values.get, columns[1:])) for title, values in published.items()]
    note = (
        f"Means over the models of {experiment.n_models} folds. Difference: {measures[0].title} minus that of "
        f"“{reference}”, paired by patient; p is not adjusted for the number of comparisons."
    )
    return TablePart(use, f"{USES[use]} patients", columns, tuple(rows), note)


def _data_section(cohort: Cohort, failed: Mapping[ExperimentRun, str]) -> Section:
    rows_by_use = (cohort.training(HELD_OUT), cohort.held_out)
    counts = []
    for title, rows in zip(USES.values(), rows_by_use, strict=True):
        categories = np.bincount(category_numbers(cohort.score[rows]), minlength=len(CATEGORY_TITLES))
        counts.append((title, cohort.n_patients(rows), len(rows), *categories.tolist()))
    reasons = [
        (f"{run.configuration.title}, fold {run.fold + 1}", reason)
        for run, reason in failed.items()
        if reason != TIME_IS_UP
    ]
    columns, left_out = ("Scans", "Patients", "All", *CATEGORY_TITLES), sorted(cohort.failed.items())
    tables = [
        TablePart("scans", "Scans by true Agatston score", columns, tuple(counts)),
        TablePart("left_out", "Scans that could not be prepared", ("Scan", "Why"), tuple(left_out)),
        TablePart("failed", "Trainings that failed", ("Training", "Why"), tuple(reasons)),
    ]
    text = "Patients are split, never scans of one patient. The best of many models does better here than in others."
    return Section("data", "The scans", (text,), tuple(table for table in tables if table.rows))


def _write_predictions(experiment: Experiment, predicted: pd.DataFrame) -> None:
    truth, scans = experiment.truth.reshape(len(experiment.truth), -1), experiment.cohort.scans
    rows = []
    for title, use, fold, row, *values in predicted.itertuples(index=False):
        numbers = (round(float(value), 4) for value in (*truth[row], *values))
        rows.append((title, fold + 1, scans[row].name, scans[row].patient, use, *numbers))
    columns = ("model", "fold", "scan", "patient", "use", *experiment.COLUMNS)
    write_table(experiment.settings.output / PREDICTIONS, columns, rows)


LONG_SECONDS = 3600
"""Seconds of trainings above which a study asks before it begins."""


def carry_out(
    kind: type[Experiment],
    settings: ExperimentSettings,
    progress: Progress | None = None,
    agrees: Callable[[str], bool] = lambda size: True,
) -> Path:
    """Run the missing trainings, write `study.html` with its tables and figures, and return the page.

    A failed run is reported as a warning and on the page, and stops no other.

    Args:
        kind: Study.
        settings: Its settings.
        progress: Progress of STEPS.
        agrees: Function of the time, as a sentence, from LONG_SECONDS on; True to begin.

    Raises:
        OutputError: The output folder cannot be written to, or a person does not agree.
        CTError: The data cannot be read, or all trainings of a configuration failed; the page is there then.
    """
    progress = progress or Progress()
    if unknown := sorted(set(settings.names) - set(kind.CONFIGURATIONS)):
        choices = ", ".join(kind.CONFIGURATIONS)
        raise CTError(f"There is no configuration {unknown[0]!r}; choose one of {choices}.")
    if settings.budget.folds < 2:
        raise CTError(f"Cross-validation takes 2 folds or more, not {settings.budget.folds}.")
    if settings.budget.repeats < 1:
        raise CTError(f"A study takes one cross-validation or more; repeats is {settings.budget.repeats}.")
    limit = None if settings.minutes is None else time.time() + 60 * settings.minutes
    progress.begin(list(STEPS))
    make_folder(settings.output)
    with progress.step("scans"):
        experiment = kind.read(settings, progress)
        by_key = {experiment.key(run): run for run in experiment.runs()}
    with progress.step("trainings"):
        work = JobSettings(settings.workers or sensible_count(MEMORY_EACH_BYTES), settings.device, progress)
        stored = kept_results(settings.output / TRAININGS)
        waiting = [run for key, run in by_key.items() if key not in stored]
        if waiting and settings.minutes != 0:
            seconds = experiment.cost(waiting) / min(work.workers, len(waiting))
            size = f"{len(waiting)} trainings, estimated time {duration_text(seconds)}. {experiment.power()}"
            progress.note(size)
            if seconds > LONG_SECONDS and not agrees(f"These trainings take {duration_text(seconds)}."):
                raise OutputError("The study was not begun. Choose fewer configurations (names), folds or steps.")
        do_job = partial(_train, experiment, limit)
        _, reasons = kept_jobs(by_key, settings.output / TRAININGS, lambda: do_job, work)
    with progress.step("page"):
        for reason in sorted(set(reasons.values()) - {TIME_IS_UP}):
            progress.warning(ScanWarning("training-failed", f"A training failed: {reason}"))
        failed = {by_key[key]: reason for key, reason in reasons.items()}
        page = write_page(experiment, failed)
    _require_trainings(experiment, failed, page)
    return page


def _require_trainings(experiment: Experiment, failed: Mapping[ExperimentRun, str], page: Path) -> None:
    """Raise CTError if all trainings of a configuration failed, or some of each. failed: Reason by run."""
    reasons: dict[str, list[str]] = {configuration.title: [] for configuration in experiment.configurations}
    for run, reason in failed.items():
        reasons[run.configuration.title].append(reason)
    is_empty = all(reasons.values()) and TIME_IS_UP not in failed.values()
    for title, parts in reasons.items():
        is_lost = len(parts) == experiment.n_models and TIME_IS_UP not in parts
        if is_lost or is_empty:
            number = "No training" if is_lost else "Not every training"
            raise CTError(
                f"{number} of {title} ended: {parts[0]} The page of the others is {page}. Correct the cause and run "
                "the study again; finished trainings are kept."
            )


def _train(experiment: Experiment, limit: float | None, run: ExperimentRun) -> dict[str, Any]:
    """Train a run. Raises CTError after the limit, in seconds of `time.time`."""
    if limit is not None and time.time() >= limit:
        raise CTError(TIME_IS_UP)
    with running_folder(experiment.settings.output, experiment.key(run)) as folder:
        return experiment.validate(run, folder)


@contextmanager
def running_folder(output: Path, key: str) -> Iterator[Path]:
    """Make a training's working folder; remove it when the training is finished, else leave it to resume from.

    Args:
        output: Output folder of the study.
        key: Key of the training.
    """
    folder = output / "running" / sha256(key.encode()).hexdigest()[:16]
    folder.mkdir(parents=True, exist_ok=True)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)
