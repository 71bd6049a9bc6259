"""Study of prognosis: comparison of true and predicted categories of calcium as predictors of events.

After Hong et al. (2025, 10.1016/j.jcct.2025.03.010): Kaplan–Meier curves, log-rank test, Cox hazard ratios and index of
concordance of true and predicted categories of the same patients.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from CACScoringLib.core.errors import TableError
from CACScoringLib.core.progress import Progress
from CACScoringLib.core.tables import Table as CsvTable
from CACScoringLib.core.tables import read_table

from ..evaluation.figures import survival_curves
from ..evaluation.jobs import make_folder
from ..evaluation.measures import Comparison, Measure
from ..evaluation.page import write_study
from ..evaluation.parts import Cell, Figure, Section, Table, heading, p_cell
from ..statistics.agreement import kappa
from ..statistics.bootstrap import RESAMPLES
from ..statistics.patient_folds import CATEGORY_LIMITS as LIMITS
from ..statistics.patient_folds import CATEGORY_TITLES, category_of
from ..statistics.survival import concordance, hazard_ratios, kaplan_meier, linear_predictor, log_rank

PROBABILITIES = tuple(f"chance_{limit:g}" for limit in LIMITS)
"""Columns of predicted probabilities of a score above 0, from 100, and from 400."""

FACTORS = ("age_years", "sex", "bmi_kg_m2")


@dataclass(frozen=True)
class Events:
    """Events of n patients.

    Attributes:
        patients: Patient IDs.
        years: Time to the event or the end of observation [n].
        event: True for an event, False if censored, bool [n].
        true: True categories, index in CATEGORY_TITLES [n].
        predicted: Predicted categories, index in CATEGORY_TITLES [n].
        risk: Expected category or predicted score, finer than the predicted category; None if unknown [n].
        score: True scores; None if unknown [n].
        factors: Factors known for all patients and not constant, by name [n]; sex is 1 for men.
        how: Sentence on the origin of the predicted category.
    """

    patients: tuple[str, ...]
    years: np.ndarray
    event: np.ndarray
    true: np.ndarray
    predicted: np.ndarray
    risk: np.ndarray | None
    score: np.ndarray | None
    factors: dict[str, np.ndarray]
    how: str


def read_events(path: Path) -> Events:
    """Read a CSV table, a row for each patient.

    Columns: patient; time_years; event (0, 1); agatston, or category (0 to 3, as CATEGORY_TITLES); predicted_category
    (0 to 3), predicted_agatston, or PROBABILITIES. Optional, in all rows or none: FACTORS (sex F or M). Raises
    TableError.
    """
    table = read_table(path, ("patient", "time_years", "event"))
    for line in table.lines:
        line.need("patient")
    patients = tuple(line.text("patient") for line in table.lines)
    table.need_distinct(patients, "patient")
    score = _numbers(table, "agatston") if "agatston" in table else None
    true = category_of(score) if score is not None else _categories(table, "category", "agatston")
    predicted, risk, how = _predicted(table)
    factors = {}
    for name in FACTORS:
        if name in table and all(line.text(name) for line in table.lines):
            if name == "sex":
                values = np.array([float(line.choice(name, ("F", "M")) == "M") for line in table.lines])
            else:
                values = _numbers(table, name)
            if np.ptp(values) > 0:
                factors[name] = values
    years, event = _numbers(table, "time_years"), _numbers(table, "event", 1, integers=True) > 0
    return Events(patients, years, event, true, predicted, risk, score, factors, how)


def likely_category(probabilities: np.ndarray) -> np.ndarray:
    """Return the highest category whose probability, and that of all below it, is at least one half, int [n].

    probabilities: of PROBABILITIES, [n, 3].
    """
    return np.cumprod(probabilities >= 0.5, axis=1).sum(1)


def _predicted(table: CsvTable) -> tuple[np.ndarray, np.ndarray | None, str]:
    if all(name in table for name in PROBABILITIES):
        probabilities = np.stack([_numbers(table, name, 1) for name in PROBABILITIES], 1)
        how = "The predicted category is the highest whose probability, and that of all below it, is at least one half."
        return likely_category(probabilities), probabilities.sum(1), how
    if "predicted_agatston" in table:
        score = _numbers(table, "predicted_agatston")
        return category_of(score), score, "The predicted category is that of the predicted score."
    category = _categories(table, "predicted_category", f"predicted_agatston, or {', '.join(PROBABILITIES)}")
    return category, None, "The predicted category is as the table gives it."


def _numbers(table: CsvTable, name: str, high: float = math.inf, integers: bool = False) -> np.ndarray:
    for line in table.lines:
        line.need(name)
    return np.array([line.number_in(name, 0, high, integers) for line in table.lines])


def _categories(table: CsvTable, name: str, otherwise: str) -> np.ndarray:
    if name not in table:
        raise TableError(f"The table {table.path} has neither {name} nor {otherwise}. Add one of them.")
    return _numbers(table, name, len(CATEGORY_TITLES) - 1, integers=True).astype(int)


TRUE, PREDICTED = "True category", "Predicted category"
LANDMARKS_YEARS = (1, 2, 5, 10)
EVENTS_PER_VARIABLE = 10
"""Least events per variable of a reliable Cox model (Peduzzi 1995, 10.1016/0895-4356(95)00048-8)."""


def evaluate_prognosis(table: Path, output: Path, seed: int = 0, progress: Progress | None = None) -> Path:
    """Write `study.html` of a table of events (see `read_events`) and return its path.

    seed: seed of the bootstrap. Raises TableError, OutputError.
    """
    progress = progress or Progress()
    progress.begin(["events", "page"])
    with progress.step("events"):
        events = read_events(table)
    with progress.step("page"):
        facts = {
            "Data": str(table),
            "Bootstrap": f"seed {seed}, {RESAMPLES} resamples of patients",
            "Software": "SciPy: Kaplan–Meier; statsmodels: log-rank test and Cox model (Efron's ties)",
        }
        sections = [_categories_section(events), _concordance_section(events, seed)]
        make_folder(output)
        return write_study(output, "Events by true and by predicted calcium", sections, facts, digital=False)


def _categories_section(events: Events) -> Section:
    """Return the section on events, hazards and curves of each true and predicted category."""
    n_events = int(events.event.sum())
    text = [
        f"{len(events.years):,} patients with {n_events:,} events. {events.how}",
        "Hazard ratios hold if hazards are proportional over time, which the curves help to assess.",
    ]
    if n_events < EVENTS_PER_VARIABLE * (len(CATEGORY_TITLES) - 1):
        text.append(f"Fewer than {EVENTS_PER_VARIABLE} events for each category: too few for reliable hazard ratios.")
    landmarks = [year for year in LANDMARKS_YEARS if year <= events.years.max()]
    columns = ("Category", "Patients", "Events", *(f"{year} y" for year in landmarks), "Hazard ratio", "Adjusted")
    rows: list[tuple[Cell, ...]] = []
    panels = []
    for title, group in {TRUE: events.true, PREDICTED: events.predicted}.items():
        test = log_rank(events.years, events.event, group)
        test_text = "" if test is None else f"; log-rank p {p_cell(test)}"
        rows.append(heading(f"{title}{test_text}", columns))
        crude, adjusted = _hazards(events, group, {}), _hazards(events, group, events.factors)
        curves = {}
        for number, name in enumerate(CATEGORY_TITLES):
            members = group == number
            at: list[Cell] = [None] * len(landmarks)
            if members.any():
                curve = kaplan_meier(events.years[members], events.event[members])
                at = [share if math.isfinite(share.value) else None for share in map(curve.at, landmarks)]
                curves[name] = curve
            counts = int(members.sum()), int(events.event[members].sum())
            rows.append((f"  {name}", *counts, *at, crude.get(name), adjusted.get(name) if events.factors else None))
        panels.append((title, curves))
    note = (
        "Years: proportion without event by Kaplan–Meier. Hazard ratios of Cox models against category 0, adjusted for "
        f"{', '.join(events.factors) or 'nothing'}; – where nobody of a category, or of category 0, had an event."
    )
    table = Table("categories", "Events by category", columns, tuple(rows), note)
    draw = partial(survival_curves, panels=panels)
    figure = Figure("survival_figure", "Proportion without event", draw, "Bands are 95 % intervals.", (7, 3.6))
    return Section("categories", "Events by category", tuple(text), (table,), (figure,))


def _hazards(events: Events, group: np.ndarray, factors: dict[str, np.ndarray]) -> dict[str, Cell]:
    """Return the hazard ratio of each category with events against category 0."""
    with_events = [n for n in range(len(CATEGORY_TITLES)) if events.event[group == n].any()]
    if len(with_events) < 2 or with_events[0] != 0:
        return {}
    rows = np.isin(group, with_events)
    columns = {CATEGORY_TITLES[n]: (group == n)[rows].astype(float) for n in with_events[1:]}
    columns |= {name: values[rows] for name, values in factors.items()}
    return dict(hazard_ratios(events.years[rows], events.event[rows], columns))


def _concordance_section(events: Events, seed: int) -> Section:
    comparison = Comparison(events.patients, {}, np.random.default_rng(seed))
    about = {
        "patient": events.patients,
        "scan": events.patients,
        "item": 0,
        "years": events.years,
        "event": events.event,
    }
    categories = pd.DataFrame({**about, "method": PREDICTED, "truth": events.true, "value": events.predicted})
    agreement = Measure("κ", partial(kappa, classes=len(CATEGORY_TITLES)), categories)
    risks: dict[str, np.ndarray | None] = {
        TRUE: events.true,
        PREDICTED: events.predicted,
        "Predicted, finer than categories": events.risk,
        "True score": events.score,
    }
    if events.factors:
        factors = np.column_stack(list(events.factors.values()))
        for title, extra in {
            "": None,
            " and true category": events.true,
            " and predicted category": events.predicted,
        }.items():
            design = factors if extra is None else np.column_stack([factors, extra])
            risks[f"Clinical factors{title}"] = linear_predictor(events.years, events.event, design)
    tables = {
        title: pd.DataFrame({**about, "method": title, "truth": 0, "value": risk})
        for title, risk in risks.items()
        if risk is not None
    }

    def harrell(weights: np.ndarray, _: np.ndarray, risk: np.ndarray) -> np.ndarray:
        return concordance(weights, events.years, events.event, risk)

    ranked = pd.concat(tables.values())
    measure = Measure("C", harrell, ranked)
    rows: list[tuple[Cell, ...]] = []
    for title in tables:
        result, _, change = comparison.difference(measure, TRUE, title)
        rows.append((title, result.estimate, *((None, None) if title == TRUE else (change.estimate, p_cell(change.p)))))
    columns = ("Sorted by", "Harrell's C", "Less true category", "p")
    note = (
        "Proportion of pairs in which the patient with the earlier event had the higher risk; 0.5 is chance. "
        "Differences are paired. Models with clinical factors are evaluated on the patients that they were fitted to, "
        "so their values are optimistic."
    )
    table = Table("concordance", "Concordance", columns, tuple(rows), note)
    text = (
        f"Agreement of true and predicted categories: linearly weighted κ {comparison.estimate(agreement, PREDICTED)}."
    )
    values = (categories.assign(item="category"), ranked)
    return Section("concordance", "Concordance and agreement", (text,), (table,), values=values)
