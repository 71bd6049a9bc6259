"""Outcomes by the features of calcium and by the Agatston score alone: Cox models, or logistic ones without times.

Each patient's risk comes from a model that was fitted on other patients: five outer folds, in each of which three inner
folds choose the ridge penalty. Features are scaled to a standard deviation of 1 in the patients that a model is fitted
on. Features that need calcium are 0 without it, which the Agatston score in every model accounts for.

Net reclassification compares absolute risks by `Outcomes.horizon`: models order them as their log cumulative hazards by
then, with Breslow's baseline of the patients that a model is fitted on, or as their log odds.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from CACScoringLib.cohort.folder import TABLE
from CACScoringLib.core.progress import Progress
from CACScoringLib.core.tables import Line, TableError, read_table
from CACScoringLib.record.features import PATIENT_FEATURES

from ..evaluation.jobs import StudyError, make_folder
from ..evaluation.measures import Comparison, Measure, long_table
from ..evaluation.page import facts_of, write_study
from ..evaluation.parts import Cell, Section, Table
from ..statistics.bootstrap import LEVEL, Estimate
from ..statistics.patient_folds import parts_by_patient
from ..statistics.roc import area_under_curve
from ..statistics.survival import concordance, hazard_ratios, net_reclassification

OUTER_FOLDS, INNER_FOLDS = 5, 3
PENALTIES = (0.001, 0.01, 0.05)
"""Ridge penalties per patient."""
NEWTON_STEPS = 25
MIN_EVENTS = 20
"""Fewest patients with, and without, an event."""
SCORE = "log_agatston"
"""Logarithm of 1 + the Agatston score."""

MODELS = {"score": "Agatston score", "features": "Agatston score and features"}


@dataclass(frozen=True)
class Outcomes:
    """Outcomes and calcium of patients, [n] each.

    Attributes:
        patients: Patient of each row.
        event: True if the event was observed, bool.
        years: Follow-up; None if unknown, for logistic models.
        columns: SCORE and features by name.
    """

    patients: list[str]
    event: np.ndarray
    years: np.ndarray | None
    columns: Mapping[str, np.ndarray]

    @property
    def horizon(self) -> float:
        """Years by which risks are predicted: median follow-up without event, or median time of events if later."""
        if self.years is None:
            return 0.0
        return float(max(np.median(self.years[self.event]), np.median(self.years[~self.event])))


def read_outcomes(path: Path, results: Path) -> Outcomes:
    """Read a table of outcomes and the scores of its scans.

    Args:
        path: CSV with `name` (of a scan in the cohort), `event` (0 or 1), and optionally `years` and `patient`.
        results: Folder that `cac cohort` wrote.

    Raises:
        TableError: A table cannot be read, or a scan has no score.
        StudyError: There are too few events.
    """
    table = read_table(path, ("name", "event"))
    scored = {line.text("name"): line for line in read_table(results / TABLE, ("name", "threshold_agatston")).lines}
    names = [line.text("name") for line in table.lines]
    if missing := [name for name in names if name not in scored or not scored[name].text("threshold_agatston")]:
        raise TableError(f"{results} has no score of {missing[0]!r} in {path}. Score it, or remove its line.")
    event = np.array([line.number_in("event", 0, 1, integer=True) or 0 for line in table.lines]) > 0
    if min(event.sum(), (~event).sum()) < MIN_EVENTS:
        raise StudyError(f"{path} has {event.sum()} events in {len(event)} lines; {MIN_EVENTS} of either are needed.")
    years = None
    if "years" in table:
        for line in table.lines:
            line.need("years")
        years = np.array([line.number_in("years", 0) for line in table.lines])
    scores = np.array([scored[name].number_in("threshold_agatston", 0) for name in names], float)
    columns = {SCORE: np.log1p(scores)}
    for feature in PATIENT_FEATURES:
        values = np.array([_feature(scored[name], f"threshold_{feature}") for name in names])
        values = np.log1p(values) if feature.endswith("_mm3") else values
        if values.std() > 0:
            columns[feature] = values
    return Outcomes([line.text("patient") or line.text("name") for line in table.lines], event, years, columns)


def _feature(line: Line, column: str) -> float:
    text = line.text(column)
    return float(text == "True") if text in ("True", "False") else line.number_in(column) or 0.0


def evaluate_outcomes(
    table: Path, results: Path, output: Path, seed: int = 0, progress: Progress | None = None
) -> Path:
    """Write the study's page, and return it. Arguments and errors as of `read_outcomes`. Raises OutputError, too."""
    progress, started = progress or Progress(), time.perf_counter()
    progress.begin(["outcomes", "page"])
    make_folder(output)
    with progress.step("outcomes"):
        outcomes = read_outcomes(table, results)
        section = outcome_section(outcomes, seed)
    with progress.step("page"):
        facts = {"Data": f"{table}, {len(outcomes.event)} scans", **facts_of((), seed, time.perf_counter() - started)}
        return write_study(output, "Outcomes by features of coronary calcium", [section], facts, False)


def outcome_section(outcomes: Outcomes, seed: int) -> Section:
    """Return discrimination and calibration of both models, and the ratio of each feature beside the score."""
    risks = {name: _cross_fitted(outcomes, columns, seed) for name, columns in _columns_of(outcomes).items()}
    rows = [
        {"patient": p, "scan": n, "method": name, "item": 0, "truth": float(event), "value": risk}
        for name, values in risks.items()
        for n, (p, event, risk) in enumerate(zip(outcomes.patients, outcomes.event, values, strict=True))
    ]
    values = long_table(rows)

    def discrimination(weights: np.ndarray, event: np.ndarray, risk: np.ndarray) -> np.ndarray:
        if outcomes.years is None:
            return area_under_curve(weights, event > 0, risk)
        return concordance(weights, outcomes.years, event > 0, risk)

    def reclassification(part: int, weights: np.ndarray, event: np.ndarray, change: np.ndarray) -> np.ndarray:
        years = np.zeros(len(event)) if outcomes.years is None else outcomes.years
        return net_reclassification(weights, years, event > 0, change, outcomes.horizon)[part]

    changes = values[values.method == "features"].assign(value=risks["features"] - risks["score"])
    parts = [
        Measure(title, partial(reclassification, part), changes, methods=("features",))
        for part, title in enumerate(("Events", "Non-events", "NRI"))
    ]
    kind = "AUC" if outcomes.years is None else "C-index"
    comparison = Comparison(outcomes.patients, MODELS, np.random.default_rng(seed), "features")
    measure = Measure(kind, discrimination, values)
    slopes = tuple((MODELS[name], _ratios(outcomes, {"risk": risk})["risk"]) for name, risk in risks.items())
    ratio = "Odds ratio" if outcomes.years is None else "Hazard ratio"
    period = "" if outcomes.years is None else f"Events by {outcomes.horizon:.3g} years, by Kaplan–Meier. "
    tables = (
        comparison.value_table("discrimination", f"{kind} of cross-fitted risks", (measure,)),
        comparison.difference_table("difference", "Features beside the score against the score alone", (measure,)),
        comparison.value_table(
            "reclassification",
            "Category-free net reclassification by features beside the score",
            parts,
            f"{period}Where a model is badly calibrated it may differ from 0 without information (Kerr 2014, "
            "doi:10.1097/EDE.0000000000000018).",
        ),
        Table("calibration", "Calibration", ("Model", f"{ratio} per unit of the log risk (e is ideal)"), slopes),
        Table(
            "ratios", f"{ratio} per standard deviation", ("Feature", "Alone", "Beside the score"), _ratio_rows(outcomes)
        ),
    )
    text = (
        f"{int(outcomes.event.sum())} events in {len(outcomes.event)} scans of {len(set(outcomes.patients))} patients. "
        "Risks are cross-fitted by patient, with an inner choice of the ridge penalty."
    )
    return Section("outcomes", "Outcomes", (text,), tables, values=(values,))


def _columns_of(outcomes: Outcomes) -> dict[str, np.ndarray]:
    columns = outcomes.columns
    return {"score": columns[SCORE][:, None], "features": np.column_stack(list(columns.values()))}


def _ratio_rows(outcomes: Outcomes) -> tuple[tuple[Cell, ...], ...]:
    scaled = {name: (values - values.mean()) / values.std() for name, values in outcomes.columns.items()}
    rows: list[tuple[Cell, ...]] = []
    for name, values in scaled.items():
        adjusted_ratio = None if name == SCORE else _ratios(outcomes, {name: values, SCORE: scaled[SCORE]})[name]
        rows.append((name, _ratios(outcomes, {name: values})[name], adjusted_ratio))
    return tuple(rows)


def _ratios(outcomes: Outcomes, columns: Mapping[str, np.ndarray]) -> dict[str, Estimate]:
    """Return the hazard ratio per unit of each column in one model, or the odds ratio without times."""
    if outcomes.years is not None:
        return hazard_ratios(outcomes.years, outcomes.event, columns)
    import statsmodels.api as sm

    design = sm.add_constant(np.column_stack(list(columns.values())))
    fit = sm.Logit(outcomes.event.astype(float), design).fit(disp=0)
    ends = np.exp(np.column_stack([fit.params, fit.conf_int(alpha=1 - LEVEL)]))[1:]
    n = len(outcomes.event)
    return {
        name: Estimate(value, low, high, n) for name, (value, low, high) in zip(columns, ends.tolist(), strict=True)
    }


def _cross_fitted(outcomes: Outcomes, columns: np.ndarray, seed: int) -> np.ndarray:
    """Return each row's log cumulative hazard by the horizon, or log odds, by models of other patients, [n]."""
    patients, event = np.array(outcomes.patients), outcomes.event
    risk = np.zeros(len(event))
    part = parts_by_patient(patients, event.astype(int), OUTER_FOLDS, seed)
    for fold in range(OUTER_FOLDS):
        fitted = np.flatnonzero(part != fold)
        inner = parts_by_patient(patients[fitted], event[fitted].astype(int), INNER_FOLDS, seed)
        scores = [_inner_score(outcomes, columns, fitted, inner, penalty) for penalty in PENALTIES]
        log_risk = _fit(outcomes, columns, fitted, PENALTIES[int(np.argmax(scores))])
        if outcomes.years is not None:
            years = outcomes.years[fitted]
            log_risk += math.log(_baseline(log_risk[fitted], years, event[fitted], outcomes.horizon))
        risk[part == fold] = log_risk[part == fold]
    return risk


def _inner_score(outcomes: Outcomes, columns: np.ndarray, rows: np.ndarray, part: np.ndarray, penalty: float) -> float:
    """Return the mean discrimination in the inner folds."""
    scores = []
    for fold in range(INNER_FOLDS):
        risk, tested = _fit(outcomes, columns, rows[part != fold], penalty), rows[part == fold]
        unit_weights = np.ones((1, len(tested)))
        if outcomes.years is None:
            scores.append(area_under_curve(unit_weights, outcomes.event[tested], risk[tested])[0])
        else:
            scores.append(concordance(unit_weights, outcomes.years[tested], outcomes.event[tested], risk[tested])[0])
    return float(np.nanmean(scores))


def _fit(outcomes: Outcomes, columns: np.ndarray, rows: np.ndarray, penalty: float) -> np.ndarray:
    """Return each row's log hazard ratio, or log odds, by a model fitted on some rows, [n]."""
    spread = columns[rows].std(axis=0)
    scaled = (columns - columns[rows].mean(axis=0)) / np.where(spread > 0, spread, 1)
    if outcomes.years is not None:
        return scaled @ _cox_ridge(scaled[rows], outcomes.years[rows], outcomes.event[rows], penalty)
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(C=1 / (penalty * len(rows)), max_iter=1000)
    return model.fit(scaled[rows], outcomes.event[rows]).decision_function(scaled)


def _cox_ridge(columns: np.ndarray, years: np.ndarray, event: np.ndarray, penalty: float) -> np.ndarray:
    """Return the coefficients of a ridge Cox model with Breslow's ties, by Newton's method.

    statsmodels fits penalised models by coordinate descent, which takes seconds each.
    """
    order = np.argsort(-years)
    x, event, years = columns[order], event[order], years[order]
    last = np.searchsorted(-years, -years, "right") - 1  # all who are followed as long or longer come before
    ridge = penalty * len(x) * np.eye(x.shape[1])
    coefficients = np.zeros(x.shape[1])
    for _ in range(NEWTON_STEPS):
        hazard = np.exp(x @ coefficients)
        total = np.cumsum(hazard)[last]
        mean = np.cumsum(hazard[:, None] * x, axis=0)[last] / total[:, None]
        square = np.cumsum(hazard[:, None, None] * x[:, :, None] * x[:, None, :], axis=0)[last] / total[:, None, None]
        gradient = (x - mean)[event].sum(axis=0) - ridge @ coefficients
        curvature = (square - mean[:, :, None] * mean[:, None, :])[event].sum(axis=0) + ridge
        step = np.linalg.solve(curvature, gradient)
        coefficients += step
        if np.abs(step).max() < 1e-6:
            break
    return coefficients


def _baseline(risk: np.ndarray, years: np.ndarray, event: np.ndarray, horizon: float) -> float:
    """Return Breslow's cumulative hazard by the horizon at a log risk of 0."""
    order = np.argsort(-years)
    last = np.searchsorted(-years[order], -years[event & (years <= horizon)], "right") - 1
    return float((1 / np.cumsum(np.exp(risk[order]))[last]).sum())
