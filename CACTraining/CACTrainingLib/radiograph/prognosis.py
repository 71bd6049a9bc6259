"""Study of prognosis: comparison of true and predicted categories of calcium as predictors of events.

After Hong et al. (2025, 10.1016/j.jcct.2025.03.010): Kaplan–Meier curves, log-rank test, Cox hazard ratios and index of
concordance of true and predicted categories of the same patients. The study of radiographs does it on simulated events.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from CACScoringLib.core.categories import CATEGORY_TITLES, category_numbers
from CACScoringLib.core.errors import TableError
from CACScoringLib.core.progress import Progress
from CACScoringLib.core.tables import Table, read_table
from CACScoringLib.statistics.agreement import kappa
from CACScoringLib.statistics.bootstrap import RESAMPLES
from CACScoringLib.statistics.patient_folds import CATEGORY_LIMITS as LIMITS
from CACScoringLib.statistics.survival import concordance, hazard_ratios, kaplan_meier, log_rank

from ..data.scan_table import SEXES
from ..evaluation.figures import survival_curves
from ..evaluation.jobs import make_folder
from ..evaluation.measures import ExperimentComparison, Measure
from ..evaluation.page import write_study
from ..evaluation.papers import texts_of
from ..evaluation.parts import Cell, Section, heading, p_cell

TEXTS = texts_of("prognosis")

PROBABILITIES = tuple(f"chance_{limit:g}" for limit in LIMITS)
"""Columns of predicted probabilities of a score above 0, from 100, and from 400."""

FACTORS = ("age_years", "sex", "bmi_kg_m2")

HAZARD_RATIOS = (1.0, 3.6, 7.7, 9.7)
"""Hazard ratios by true category of simulated events: those of major events for scores of 0, 1 to 100, 101 to 300, and
above 300 (Detrano 2008, 10.1056/NEJMoa072100)."""
YEARLY_HAZARD = 0.01
"""Hazard of a simulated event in a year in category 0."""
FOLLOW_UP_YEARS = (2.0, 12.0)
SIMULATED = (
    f"Events are simulated, to test the arithmetic and not prognosis: {YEARLY_HAZARD:.0%} a year in category 0, times "
    f"{', '.join(map(str, HAZARD_RATIOS[1:]))} in the higher true categories (Detrano 2008), in "
    f"{FOLLOW_UP_YEARS[0]:g} to {FOLLOW_UP_YEARS[1]:g} years of follow-up."
)


@dataclass(frozen=True)
class Events:
    """Events of n patients.

    Attributes:
        patients: Patient IDs.
        years: Time to the event or the end of observation [n].
        event: True for an event, False if censored, bool [n].
        predicted: Predicted categories, index in CATEGORY_TITLES [n].
        risk: Expected category or predicted score, finer than the predicted category [n].
        score: True scores [n].
        factors: Values of FACTORS, sex is 1 for men; NaN if unknown [n, 3].
        how: Sentence on the origin of the predicted category.
    """

    patients: tuple[str, ...]
    years: np.ndarray
    event: np.ndarray
    predicted: np.ndarray
    risk: np.ndarray
    score: np.ndarray
    factors: np.ndarray
    how: str

    @property
    def true(self) -> np.ndarray:
        """True categories, index in CATEGORY_TITLES [n]."""
        return category_numbers(self.score)

    @property
    def known_factors(self) -> dict[str, np.ndarray]:
        """Factors known for all patients and not constant, by name."""
        columns = zip(FACTORS, self.factors.T, strict=True)
        return {name: values for name, values in columns if np.isfinite(values).all() and np.ptp(values) > 0}


def simulate_events(category: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw times to an event or the end of observation, and True for events. category: true categories, int [n]."""
    generator = np.random.default_rng(seed)
    years = generator.exponential(1 / (YEARLY_HAZARD * np.array(HAZARD_RATIOS)[category]))
    end = generator.uniform(*FOLLOW_UP_YEARS, len(category))
    return np.minimum(years, end), years <= end


def read_events(path: Path) -> Events:
    """Read a CSV table, a row for each patient.

    Columns: patient; time_years; event (0, 1); agatston; predicted_agatston, or PROBABILITIES. Optional: FACTORS (sex F
    or M), used if all patients have them. Raises TableError.
    """
    table = read_table(path, ("patient", "time_years", "event", "agatston"))
    for line in table.lines:
        line.need("patient")
    patients = tuple(line.text("patient") for line in table.lines)
    table.need_distinct(patients, "patient")
    predicted, risk, how = _predicted(table)
    age, bmi = ([line.number_in(name, 0.0) for line in table.lines] for name in (FACTORS[0], FACTORS[2]))
    sex = [None if (sex := line.choice("sex", SEXES)) is None else SEXES.index(sex) for line in table.lines]
    factors = np.array([age, sex, bmi], float).T
    years, event = _numbers(table, "time_years"), _numbers(table, "event", 1, integers=True) > 0
    return Events(patients, years, event, predicted, risk, _numbers(table, "agatston"), factors, how)


def likely_category(probabilities: np.ndarray) -> np.ndarray:
    """Return the highest category whose probability, and that of all below it, is at least one half, int [n].

    probabilities: of PROBABILITIES, [n, 3].
    """
    return np.cumprod(probabilities >= 0.5, axis=1).sum(1)


def _predicted(table: Table) -> tuple[np.ndarray, np.ndarray, str]:
    if all(name in table for name in PROBABILITIES):
        probabilities = np.stack([_numbers(table, name, 1) for name in PROBABILITIES], 1)
        how = "The predicted category is the highest whose probability, and that of all below it, is at least one half."
        return likely_category(probabilities), probabilities.sum(1), how
    if "predicted_agatston" not in table:
        columns = f"predicted_agatston, or {', '.join(PROBABILITIES)}"
        raise TableError(f"The table {table.path} has no {columns}. Add one of them.")
    score = _numbers(table, "predicted_agatston")
    return category_numbers(score), score, "The predicted category is that of the predicted score."


def _numbers(table: Table, name: str, high: float = math.inf, integers: bool = False) -> np.ndarray:
    for line in table.lines:
        line.need(name)
    return np.array([line.number_in(name, 0, high, integers) for line in table.lines])


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
        sections = events_sections(events, seed)
        make_folder(output)
        return write_study(output, TEXTS.title, sections, facts, digital=False)


def events_sections(events: Events, seed: int) -> list[Section]:
    """Return the sections on events, hazards and concordance. seed: seed of the bootstrap."""
    return [_categories_section(events), _concordance_section(events, seed)]


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
        crude = _hazards(events, group, {})
        adjusted = _hazards(events, group, events.known_factors) if events.known_factors else {}
        curves = {}
        for number, name in enumerate(CATEGORY_TITLES):
            members = group == number
            at: list[Cell] = [None] * len(landmarks)
            if members.any():
                curve = kaplan_meier(events.years[members], events.event[members])
                at = [share if math.isfinite(share.value) else None for share in map(curve.at, landmarks)]
                curves[name] = curve
            counts = int(members.sum()), int(events.event[members].sum())
            rows.append((f"  {name}", *counts, *at, crude.get(name), adjusted.get(name)))
        panels.append((title, curves))
    factors = ", ".join(events.known_factors) or "nothing"
    table = TEXTS.table("categories", columns, rows, factors=factors)
    figure = TEXTS.figure("survival_figure", partial(survival_curves, panels=panels), (7, 3.6))
    return Section("categories", table.title, tuple(text), (table,), (figure,))


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
    comparison = ExperimentComparison(events.patients, {}, np.random.default_rng(seed))
    about = {
        "patient": events.patients,
        "scan": events.patients,
        "item": 0,
        "years": events.years,
        "event": events.event,
    }
    categories = pd.DataFrame({**about, "method": PREDICTED, "truth": events.true, "value": events.predicted})
    agreement = Measure("κ", partial(kappa, classes=len(CATEGORY_TITLES)), categories)
    risks = {
        TRUE: events.true,
        PREDICTED: events.predicted,
        "Predicted, finer than categories": events.risk,
        "True score": events.score,
    }
    tables = {
        title: pd.DataFrame({**about, "method": title, "truth": 0, "value": risk}) for title, risk in risks.items()
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
    table = TEXTS.table("concordance", columns, rows)
    text = (
        f"Agreement of true and predicted categories: linearly weighted κ {comparison.estimate(agreement, PREDICTED)}."
    )
    values = (categories.assign(item="category"), ranked)
    return Section("concordance", "Concordance and agreement", (text,), (table,), values=values)
