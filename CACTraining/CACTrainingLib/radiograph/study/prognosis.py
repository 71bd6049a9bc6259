"""The study of prognosis: do predicted categories of calcium predict events as the true ones do?

As Hong et al. (2025, 10.1016/j.jcct.2025.03.010): Kaplan–Meier curves, the log-rank test, Cox's hazard ratios and the
index of concordance, of true and of predicted categories of the same patients.
"""

from __future__ import annotations

import datetime
import math
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from CACScoringLib.core.output import OutputError
from CACScoringLib.core.progress import Progress

from ...experiments.results import CATEGORIES
from ...report import curves
from ...report.page import write_study
from ...report.parts import Figure, Section, Table, heading, p_cell
from ...statistics.agreement import kappa
from ...statistics.bootstrap import RESAMPLES, Bootstrap, Estimate, Found, paired_difference
from ...statistics.survival import concordance, hazard_ratios, kaplan_meier, linear_predictor, log_rank
from ..events import Events, read_events

if TYPE_CHECKING:
    from ...report.parts import Cell as Entry

TRUE, PREDICTED = "True category", "Predicted category"
LANDMARKS_YEARS = (1, 2, 5, 10)
EVENTS_PER_VARIABLE = 10
"""Fewer make a Cox model's ratios unreliable (Peduzzi 1995, 10.1016/0895-4356(95)00048-8)."""

_FACTOR_TITLES = {
    "age_years": "Age, per 10 years",
    "sex": "Men against women",
    "bmi_kg_m2": "Body mass index, per 5 kg/m²",
}
_FACTOR_NAMES = {"age_years": "age", "sex": "sex", "bmi_kg_m2": "body mass index"}
_FACTOR_UNITS = {"age_years": 10.0, "sex": 1.0, "bmi_kg_m2": 5.0}


def evaluate_prognosis(table: Path, output: Path, seed: int = 0, progress: Progress | None = None) -> Path:
    """Write `study.html` of a table of events (see `events.read_events`) and return its path.

    seed: of the bootstrap. Raises TableError, OutputError.
    """
    progress = progress or Progress()
    progress.begin(["events", "page"])
    with progress.step("events"):
        events = read_events(table)
    with progress.step("page"):
        sections = sections_of(events, seed)
        facts = {
            "Date": datetime.date.today().isoformat(),
            "Data": str(table),
            "Bootstrap": f"seed {seed}, {RESAMPLES} resamples of patients",
            "Software": "Kaplan–Meier, log-rank test and Cox model (Efron's ties): statsmodels",
        }
        try:
            output.mkdir(parents=True, exist_ok=True)
            return write_study(output, "Events by true and by predicted calcium", sections, facts, digital=False)
        except OSError as error:
            raise OutputError(f"Cannot write to {output}: {error.strerror}. Choose another --output.") from error


def sections_of(events: Events, seed: int) -> list[Section]:
    groups = {TRUE: events.true, PREDICTED: events.predicted}
    return [
        _patients_section(events, seed),
        _survival_section(events, groups),
        _hazard_section(events, groups),
        _concordance_section(events, seed),
    ]


def _patients_section(events: Events, seed: int) -> Section:
    n, happened = len(events.years), int(events.event.sum())
    # How long patients were followed is itself a time that events cut short.
    followed = kaplan_meier(events.years, ~events.event) if (~events.event).any() else None
    median = math.nan
    if followed is not None and (followed.proportion <= 0.5).any():
        median = float(followed.times[np.argmax(followed.proportion <= 0.5)])
    text = [
        f"{n:,} patients with {happened:,} events. {events.how}",
        "Events and times are as the table gives them; the definition of an event is that of its source.",
    ]
    if math.isfinite(median):
        text.insert(1, f"Patients were followed for {median:.1f} years (median, by the reverse Kaplan–Meier method).")
    if happened < EVENTS_PER_VARIABLE * (len(CATEGORIES) - 1):
        text.append(
            f"There are fewer than {EVENTS_PER_VARIABLE} events for each category that is compared: too few for "
            "reliable hazard ratios."
        )
    weights = Bootstrap(events.patients, np.random.default_rng(seed)).weights(events.patients)
    values = kappa(weights, events.true, events.predicted, len(CATEGORIES))
    agreement = Found(values, n, n).estimate
    crossed = np.zeros((len(CATEGORIES), len(CATEGORIES)), int)
    np.add.at(crossed, (events.true, events.predicted), 1)
    rows = [(title, *map(int, line)) for title, line in zip(CATEGORIES, crossed, strict=True)]
    columns = ("True", *(f"Predicted {title}" for title in CATEGORIES))
    proportion = float((events.true == events.predicted).mean())
    low, high = (f"{end:.2f}" for end in (agreement.low, agreement.high))
    note = (
        f"Patients. In {100 * proportion:.0f} % both agree; weighted (linear) κ {agreement.value:.2f} [{low}, {high}]."
    )
    table = Table("categories", "True and predicted categories", columns, tuple(rows), note)
    return Section("patients", "Patients and events", tuple(text), (table,))


def _survival_section(events: Events, groups: Mapping[str, np.ndarray]) -> Section:
    last = float(events.years.max())
    landmarks = [year for year in LANDMARKS_YEARS if year <= last]
    columns = ("Category", "Patients", "Events", "Per 100 years", *(f"{year} y" for year in landmarks))
    rows: list[tuple[Entry, ...]] = []
    panels, tests = [], []
    for title, group in groups.items():
        rows.append(heading(title, columns))
        survival = []
        for number, name in enumerate(CATEGORIES):
            own = group == number
            if not own.any():
                rows.append((f"  {name}", 0, 0, *[None] * (1 + len(landmarks))))
                continue
            found = kaplan_meier(events.years[own], events.event[own])
            count, years = int(events.event[own].sum()), float(events.years[own].sum())
            at = []
            for year in landmarks:
                kept = found.at(year)
                at.append(None if math.isnan(kept.value) else kept)
            rows.append((f"  {name}", int(own.sum()), count, 100 * count / years if years else None, *at))
            survival.append(curves.Survival(name, found.times, found.proportion, found.low, found.high, found.n))
        panels.append((title, tuple(survival)))
        test = log_rank(events.years, events.event, group)
        tests.append((title, test.chi_square, test.degrees, p_cell(test.p)) if test else (title, None, None, None))
    note = (
        "Proportion without event, by Kaplan–Meier, with Greenwood's error on the log(−log) scale. Per 100 years: "
        "events per 100 patient-years."
    )
    tables = (
        Table("survival", "Without event", columns, tuple(rows), note),
        Table("log_rank", "Log-rank test of categories", ("Categories", "χ²", "Degrees", "p"), tuple(tests)),
    )
    draw = partial(curves.survival_curves, panels=panels)
    figure = Figure("survival_figure", "Proportion without event", draw, "Bands are 95 % intervals.", (7, 3.6))
    return Section("survival", "Events over time", (), tables, (figure,))


def _hazard_section(events: Events, groups: Mapping[str, np.ndarray]) -> Section:
    factors = {_FACTOR_TITLES[name]: values / _FACTOR_UNITS[name] for name, values in events.factors.items()}
    columns = ("Against category 0", "Unadjusted", *(("Adjusted",) if factors else ()))
    rows: list[tuple[Entry, ...]] = []
    for title, group in groups.items():
        rows.append(heading(title, columns))
        # A category nobody is in, or none of whom had an event, has no ratio; it stays with the rest of the table.
        told = [n for n in range(len(CATEGORIES)) if events.event[group == n].any()]
        kept = np.isin(group, told) if told else np.zeros(len(group), bool)
        steps = {CATEGORIES[n]: (group == n)[kept].astype(float) for n in told[1:]}
        usable = bool(told) and told[0] == 0 and bool(steps)
        years, event = events.years[kept], events.event[kept]
        alone = hazard_ratios(years, event, steps) if usable else {}
        more = {name: values[kept] for name, values in factors.items()}
        full = hazard_ratios(years, event, steps | more) if usable and factors else {}
        for name in CATEGORIES[1:]:
            cells = [alone.get(name), full.get(name)][: len(columns) - 1]
            rows.append((f"  {name}", *cells))
        trend = {"Per category": group.astype(float)}
        cells = [hazard_ratios(events.years, events.event, trend)["Per category"]]
        if factors:
            cells.append(hazard_ratios(events.years, events.event, trend | factors)["Per category"])
        rows.append(("  Per category", *cells))
        rows += [(f"  {name}", None, full.get(name)) for name in factors]
    note = (
        "Hazard ratios of Cox models with Efron's ties. Per category: of a model in which each step has the same "
        "effect."
    )
    if factors:
        note += f" Adjusted for {', '.join(_FACTOR_NAMES[name] for name in events.factors)}."
    note += " – where no patient of a category, or none of category 0, had an event."
    table = Table("hazards", "Hazard ratios", columns, tuple(rows), note)
    text = ("They are valid if hazards are proportional over time, which the curves help to assess.",)
    return Section("hazards", "Hazard ratios", text, (table,))


def _concordance_section(events: Events, seed: int) -> Section:
    weights = Bootstrap(events.patients, np.random.default_rng(seed)).weights(events.patients)
    risks: dict[str, np.ndarray] = {TRUE: events.true, PREDICTED: events.predicted}
    if events.risk is not None:
        risks["Predicted, finer than categories"] = events.risk
    if events.score is not None:
        risks["True score"] = events.score
    if events.factors:
        known = np.column_stack(list(events.factors.values()))
        for title, extra in {
            "Clinical factors": None,
            "Factors and true category": events.true,
            "Factors and predicted category": events.predicted,
        }.items():
            design = known if extra is None else np.column_stack([known, extra])
            logs = linear_predictor(events.years, events.event, design)
            if logs is not None:
                risks[title] = logs
    n = len(events.years)
    found = {
        title: Found(concordance(weights, events.years, events.event, risk), n, n) for title, risk in risks.items()
    }
    rows: list[tuple[Entry, ...]] = []
    for title, one in found.items():
        change = None if title == TRUE else paired_difference(one, found[TRUE])
        cells: tuple[Entry, ...] = (None, None) if change is None else (change.estimate, p_cell(change.p))
        rows.append((title, one.estimate, *cells))
    columns = ("Sorted by", "Harrell's C", "Less true category", "p")
    note = (
        "Proportion of pairs in which the patient with the earlier event had the higher risk; 0.5 is chance. "
        "Differences are paired. Models with clinical factors are evaluated on the patients that they were fitted to, "
        "so their values are optimistic."
    )
    table = Table("concordance", "Concordance", columns, tuple(rows), note)
    return Section("concordance", "Concordance", (_in_words(found),), (table,))


def _in_words(found: Mapping[str, Found]) -> str:
    change = paired_difference(found[PREDICTED], found[TRUE])
    own: Estimate = change.estimate
    if math.isnan(own.low):
        return "There are too few events to compare true and predicted categories."
    if own.high < 0:
        return "Predicted categories discriminate events less well than true ones."
    if own.low > 0:
        return "Predicted categories discriminate events better than true ones."
    return "This sample does not show that predicted categories discriminate events better or less well than true ones."
