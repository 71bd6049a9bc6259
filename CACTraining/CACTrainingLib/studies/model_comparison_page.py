"""What a comparison of models found, as sections of a study."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from CACScoringLib.models.cards import StoredModel

from ..data.datasets import TrainingScan
from ..report import figures as study_figures
from ..report.page import shown
from ..report.parts import Figure, Section, Table, count, heading, p_cell
from ..statistics.bootstrap import LEAST_PATIENTS, Difference, Estimate, Found, paired_difference
from ..statistics.resamples import Resamples
from .model_measures import Evaluator, HeartEvaluator, MapEvaluator, SliceEvaluator

HIGHER, LOWER = "higher than the first model's", "lower than the first model's"
NO_DIFFERENCE = "not shown to differ from the first model's"


@dataclass(frozen=True)
class Case:
    """A scan by which all models were judged, and what was found (see the judges of `model_measures`)."""

    name: str
    scan: TrainingScan
    found: object


@dataclass(frozen=True)
class Comparator:
    """A model with what to call it. known: by patient its uses in the model's training; None where that is unknown."""

    label: str
    stored: StoredModel
    known: Mapping[str, set[str]] | None


def flattered(comparators: Sequence[Comparator], patients: set[str]) -> list[str]:
    """Of models that know some of the patients, a sentence each."""
    said = []
    for comparator in comparators:
        uses = _uses(comparator, patients)
        if not any(uses.values()):
            continue
        parts = [f"{'trained' if use == 'training' else 'chosen'} on {n}" for use, n in uses.items() if n]
        said.append(
            f"{comparator.label} was {' and '.join(parts)} of these {count(patients, 'patient')}: its results here "
            "are better than on new patients, and so is its difference from a model that has not seen them."
        )
    return said


def _uses(comparator: Comparator, patients: set[str]) -> dict[str, int]:
    """How many of the patients a model's weights were trained, or chosen, on."""
    known = comparator.known or {}
    return {use: sum(use in known.get(p, ()) for p in patients) for use in ("training", "validation")}


def models_section(
    comparators: Sequence[Comparator],
    cases: Sequence[Case],
    refused: Sequence[tuple[str, str]],
    origin: str,
    warnings: Sequence[str],
    evaluator: Evaluator,
) -> Section:
    patients = {case.scan.patient for case in cases}
    text = [
        f"{origin} {count(cases, 'scan')} of {count(patients, 'patient')} could be used, and every model was "
        "evaluated on the same ones.",
        *warnings,
    ]
    unknown = [comparator.label for comparator in comparators if comparator.known is None]
    if unknown:
        text.append(
            f"It is not known which patients {', '.join(unknown)} saw in training: the list that training writes does "
            "not lie beside the model. Make sure that none of these patients is among them."
        )
    if evaluator.items == "slices":
        text.append(
            "The slices are those of the outlined heart, or of the proposed one where none is outlined. The models "
            "receive them exactly as in scoring."
        )
    rows = []
    for comparator in comparators:
        card, uses = comparator.stored.card, _uses(comparator, patients)
        seen = (None, None) if comparator.known is None else tuple(uses.values())
        rows.append(
            (comparator.label, comparator.stored.origin, card.preset, card.sha256[:16], *seen, card.training.data)
        )
    columns = ("Model", "From", "Preset", "SHA-256", "Patients trained on", "Patients chosen on", "Training data")
    note = "Trained on, chosen on: number of patients of this page on whom a model's weights were fitted, or chosen."
    tables = [Table("models", "The models", columns, tuple(rows), note)]
    if refused:
        tables.append(Table("scans_left_out", "Scans that are left out", ("Scan", "Why"), tuple(refused)))
    return Section("models", "The models and the scans", tuple(text), tuple(tables))


def results_section(
    comparators: Sequence[Comparator],
    cases: Sequence[Case],
    evaluator: Evaluator,
    thresholds: Sequence[float | None],
    generator: np.random.Generator,
) -> Section:
    patients = [case.scan.patient for case in cases]
    found = [case.found for case in cases]
    results = evaluator.evaluator(Resamples(patients, generator), found, thresholds)
    first = results[0]
    rows = []
    for key, measure in evaluator.measures.items():
        if any(key in result for result in results):
            own = (result[key].estimate if key in result else None for result in results)
            rows.append((measure.title, measure.better, *own))
    columns = ("Measure", "Better", *(comparator.label for comparator in comparators))
    tables = [Table("model_measures", "Results of each model", columns, tuple(rows), evaluator.note)]
    differences = {
        comparator.label: {
            key: paired_difference(result[key], first[key])
            for key in evaluator.measures
            if key in result and key in first
        }
        for comparator, result in zip(comparators[1:], results[1:], strict=True)
    }
    tables.append(_difference_table(comparators, results, differences, evaluator))
    text = [
        _summary(comparators, cases, evaluator),
        *(_in_words(label, own, evaluator) for label, own in differences.items()),
    ]
    if len(set(patients)) < LEAST_PATIENTS:
        text.append(f"There are fewer than {LEAST_PATIENTS} patients: too few for intervals, and for any conclusion.")
    if isinstance(evaluator, SliceEvaluator) and None in thresholds:
        lacking = ", ".join(r.label for r, threshold in zip(comparators, thresholds, strict=True) if threshold is None)
        text.append(f"There is no threshold on the card of {lacking}, so that only the area under the curve is known.")
    figures = [_forest(comparators[0], differences, evaluator), _own_figure(comparators, cases, evaluator)]
    return Section("comparison", "The comparison", tuple(text), tuple(tables), tuple(f for f in figures if f))


def _summary(comparators: Sequence[Comparator], cases: Sequence[Case], evaluator: Evaluator) -> str:
    patients = len({case.scan.patient for case in cases})
    text = f"{len(comparators)} models on {count(cases, 'scan')} of {count(patients, 'patient')}"
    if isinstance(evaluator, SliceEvaluator):
        slices = sum(len(case.found.visible) for case in cases)
        shown = sum(int(case.found.visible.sum()) for case in cases)
        text += f", {count(slices, 'slice')} of known label, {shown} of them with visible coronary calcium"
    if isinstance(evaluator, MapEvaluator):
        slices = sum(len(case.found.true_mass) for case in cases)
        sick = sum(case.found.true_mass.sum() > 0 for case in cases)
        text += f", {count(slices, 'slice')} with heart; {count(int(sick), 'scan')} hold coronary calcium"
    return (
        f"{text}. Intervals and p are by a bootstrap over patients whose resamples all models share, so that "
        f"differences are paired; each is a model minus {comparators[0].label}. p is not adjusted for the number of "
        "measures."
    )


def _in_words(label: str, own: Mapping[str, Difference], evaluator: Evaluator) -> str:
    """The judge's first measure, which is the one that models are compared by where only one is wanted."""
    key, measure = next(iter(evaluator.measures.items()))
    found, p = own[key].estimate, own[key].p
    if math.isnan(found.low):
        return (
            f"{measure.title}: {label} cannot be compared with the first model; there are too few patients for an "
            "interval."
        )
    word = HIGHER if found.low > 0 else LOWER if found.high < 0 else NO_DIFFERENCE
    shown_p = p_cell(p) if p < 0.001 else f"= {shown(p)}"
    return f"{measure.title}: that of {label} is {word} ({shown(found, with_n=False)}, p {shown_p})."


def _difference_table(
    comparators: Sequence[Comparator],
    results: Sequence[Mapping[str, Found]],
    differences: Mapping[str, Mapping[str, Difference]],
    evaluator: Evaluator,
) -> Table:
    columns = ("Measure", comparators[0].label, "The other", "Difference", "p")
    if comparators[0].label == "The other":
        columns = ("Measure", "The first", *columns[2:])
    rows = []
    for comparator, result in zip(comparators[1:], results[1:], strict=True):
        rows.append(heading(comparator.label, columns))
        for key, change in differences[comparator.label].items():
            values = (float(results[0][key].values[0]), float(result[key].values[0]))
            rows.append((f"  {evaluator.measures[key].title}", *values, change.estimate, p_cell(change.p)))
    note = (
        f"Each model minus {comparators[0].label} on the same cases. Which direction is better is in "
        "[[model_measures]]."
    )
    return Table("model_differences", "Differences between the models", columns, tuple(rows), note)


def _forest(
    first: Comparator, differences: Mapping[str, Mapping[str, Difference]], evaluator: Evaluator
) -> Figure | None:
    """Differences of what lies between 0 and 1; any others would hide them."""
    rows: list[tuple[str, Estimate]] = []
    for label, own in differences.items():
        for key, change in own.items():
            measure = evaluator.measures[key]
            if not measure.unit and measure.better == "higher" and math.isfinite(change.estimate.value):
                name = measure.title if len(differences) == 1 else f"{label}: {measure.title}"
                rows.append((name, change.estimate))
    if not rows:
        return None
    other = next(iter(differences)) if len(differences) == 1 else "Model"
    draw = partial(study_figures.forest, rows=rows, x_title=f"{other} minus {first.label}", reference=0.0)
    title = "Differences between the models with their 95 % intervals"
    return Figure("model_differences_figure", title, draw, "Right of the line is better.", (7, 0.7 + 0.28 * len(rows)))


def _own_figure(comparators: Sequence[Comparator], cases: Sequence[Case], evaluator: Evaluator) -> Figure | None:
    labels = [comparator.label for comparator in comparators]
    if isinstance(evaluator, HeartEvaluator):
        dice = np.array([case.found[:, 0] for case in cases]).T
        limits = (math.floor(10 * dice.min()) / 10, 1.0)
        draw = partial(study_figures.against_first, labels=labels, values=dice, quantity="Dice", limits=limits)
        note = "Each mark is a scan; above the line the model on the left axis is better."
        return Figure("dice_figure", "Dice of each scan", draw, note, (3.4 * min(2, len(labels) - 1), 3.2))
    if isinstance(evaluator, SliceEvaluator):
        _, truth, probabilities = evaluator.pooled([case.found for case in cases])
        if truth.all() or not truth.any():
            return None
        draw = partial(study_figures.roc_curves, labels=labels, truth=truth, scores=probabilities)
        return Figure("roc_figure", "ROC curves over all slices", draw, "", (3.6, 3.6))
    masses = [
        study_figures.AgainstTruth(
            label,
            [case.found.true_mass.sum() for case in cases],
            [case.found.mass[n].sum() for case in cases],
            [case.scan.kind == "distractor" for case in cases],
        )
        for n, label in enumerate(labels)
    ]
    draw = partial(study_figures.against_truth, panels=masses, unit="HU·mm³", linear_to=100.0)
    note = "Axes are linear below 100 HU·mm³ and logarithmic beyond. Open marks: scans whose calcium is not coronary."
    return Figure("mass_figure", "Mass found and true mass of each scan", draw, note, (min(7, 2.6 * len(labels)), 2.8))


def case_table(
    comparators: Sequence[Comparator],
    cases: Sequence[Case],
    evaluator: Evaluator,
    thresholds: Sequence[float | None],
) -> Table:
    columns = ("Scan", "Patient", "Model", *evaluator.columns())
    rows = tuple(
        (case.name, case.scan.patient, comparator.label, *evaluator.row(case.found, n, threshold))
        for case in cases
        for n, (comparator, threshold) in enumerate(zip(comparators, thresholds, strict=True))
    )
    return Table("cases", "Every scan", columns, rows)
