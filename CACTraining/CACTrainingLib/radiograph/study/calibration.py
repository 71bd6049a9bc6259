"""Calibration of predicted probabilities, and predictive values at another mix of patients."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from ...report import curves
from ...report.parts import Figure, Section, Table, heading
from ...statistics.bootstrap import estimate, ratio
from ...statistics.patient_folds import category_of
from ...statistics.regression import calibration_fit
from .configurations import THRESHOLD_TITLES, THRESHOLDS
from .results import Study

if TYPE_CHECKING:
    from ...report.parts import Cell as Entry
    from .tables import Comparator

NATURAL_MIX = (0.507, 0.336, 0.143, 0.014)
"""Proportions of the categories 0, above 0, from 100, from 400 in 4,000 digital patients as they are drawn (numbers
900,000 to 903,999), without the choice that makes a cohort of radiographs (`demographics.STRATA`)."""

BINS = 8
SENSITIVITY = 0.9
"""Proportion of those above a threshold that a cut has to find: as for ruling calcium out."""


def calibration_section(study: Study, comparators: Sequence[Comparator], digital: bool) -> Section:
    """Of comparators that give probabilities. digital: whether NATURAL_MIX is theirs."""
    tables = [_calibration_table(study, comparators), _predictive_table(study, comparators, digital)]
    panels = []
    for n, title in enumerate(THRESHOLD_TITLES):
        groups = [_bins(study, comparator, n) for comparator in comparators]
        panels.append((title, tuple(groups)))
    draw = partial(curves.reliability, panels=panels)
    note = (
        f"Patients in {BINS} groups of equal size by rising predicted probability; bars are 95 % intervals. The "
        "line is equality."
    )
    figure = Figure("reliability_figure", "Predicted probabilities and observed proportions", draw, note, (7, 3.1))
    text = [
        "Probabilities are calibrated in each fold on patients that the network was not trained on, and evaluated on "
        "others."
    ]
    if digital:
        proportions = ", ".join(f"{100 * part:.1f} %" for part in NATURAL_MIX)
        text.append(
            f"The cohort was selected to hold more severe calcium than an unselected population: probabilities and "
            f"predictive values are those of its case mix. Unselected digital patients have the categories 0, 1–99, "
            f"100–399 and 400 or more in the proportions {proportions}; [[predictive]] gives both."
        )
    return Section("calibration", "Calibration and predictive values", tuple(text), tuple(tables), (figure,))


def _calibration_table(study: Study, comparators: Sequence[Comparator]) -> Table:
    columns = ("Threshold", "Truly above", "Mean probability", "Brier score", "Brier skill", "Slope", "Intercept")
    rows: list[tuple[Entry, ...]] = []
    for comparator in comparators:
        rows.append(heading(comparator.title, columns))
        own = comparator.predictions.rows
        for n, title in enumerate(THRESHOLD_TITLES):
            truth, probabilities = study.data.above(THRESHOLDS[n])[own], comparator.scores[:, n]
            error = (probabilities - truth) ** 2
            brier = study.resamples.over_items(own, lambda w, error=error: w @ error / w.sum(1))
            level = study.resamples.over_items(own, lambda w, truth=truth: w @ truth.astype(float) / w.sum(1))
            with np.errstate(invalid="ignore", divide="ignore"):
                skill = 1 - brier.values / (level.values * (1 - level.values))
            line = calibration_fit(truth, probabilities) or (None, None)
            skilled = estimate(skill, brier.n, brier.patients)
            rows.append((f"  {title}", level.estimate, float(probabilities.mean()), brier.estimate, skilled, *line))
    note = (
        "Brier skill: 1 for correct certainty, 0 for predicting the proportion in the cohort for every patient. "
        "Slope and intercept are those of the logistic regression on the log odds of the probability, ideally 1 and "
        "0; with a slope below 1 the probabilities are too extreme."
    )
    return Table("calibration_table", "Calibration", columns, tuple(rows), note)


def _predictive_table(study: Study, comparators: Sequence[Comparator], digital: bool) -> Table:
    mixes = ("PPV", "NPV", *(("PPV, natural mix", "NPV, natural mix") if digital else ()))
    columns = ("Threshold", "Cut", "Sensitivity", "Specificity", *mixes)
    category = category_of(study.data.agatston)
    present = np.bincount(category, minlength=len(NATURAL_MIX)) / len(category)
    factor = np.divide(NATURAL_MIX, present, out=np.zeros(len(NATURAL_MIX)), where=present > 0)[category]
    rows: list[tuple[Entry, ...]] = []
    for comparator in comparators:
        rows.append(heading(comparator.title, columns))
        own = comparator.predictions.rows
        for n, title in enumerate(THRESHOLD_TITLES):
            truth, probabilities = study.data.above(THRESHOLDS[n])[own], comparator.scores[:, n]
            if not truth.any():
                continue
            cut = float(np.quantile(probabilities[truth], 1 - SENSITIVITY, method="lower"))
            found = probabilities >= cut
            wanted = [(found, truth, 1.0), (~found, ~truth, 1.0), (truth, found, 1.0), (~truth, ~found, 1.0)]
            wanted += [(truth, found, factor[own]), (~truth, ~found, factor[own])] if digital else []
            cells = [
                study.resamples.over_items(own, lambda w, h=hits, o=of, f=scale: ratio(w * f, h & o, o)).estimate
                for hits, of, scale in wanted
            ]
            rows.append((f"  {title}", cut, *cells))
    note = (
        f"At the cut-off of the probability that has a sensitivity of {100 * SENSITIVITY:.0f} % for scores above "
        "the threshold, chosen on these same patients. PPV and NPV: positive and negative predictive value."
    )
    if digital:
        note += " Natural mix: each patient is weighted by how common the category is in unselected digital patients."
    return Table("predictive", "Ruling out", columns, tuple(rows), note)


def _bins(study: Study, comparator: Comparator, threshold: int) -> curves.Bins:
    own, probabilities = comparator.predictions.rows, comparator.scores[:, threshold]
    truth = study.data.above(THRESHOLDS[threshold])[own]
    parts = [part for part in np.array_split(np.argsort(probabilities, kind="stable"), BINS) if len(part)]
    proportions = [
        study.resamples.proportion(own[part], truth[part], np.ones(len(part), bool)).estimate for part in parts
    ]
    return curves.Bins(comparator.title, [float(probabilities[part].mean()) for part in parts], proportions)
