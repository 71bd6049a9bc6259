"""Reproducibility study: two scans of the same patients by every method, after van Velzen et al., section 5.3.

False positives may be as reproducible as calcium. Therefore every table has the control that only counts slices, and
methods are compared on identical pairs.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

import numpy as np

from CACScoringLib.core.decoding import restore
from CACScoringLib.core.errors import CTError
from CACScoringLib.core.labels import ARTERIES
from CACScoringLib.models.cards import list_models
from CACScoringLib.models.store import store_repeatability
from CACScoringLib.quality.calibration import Limits, Repeatability
from CACScoringLib.scoring.scores import ROUNDING, class_number
from CACScoringLib.statistics.agreement import (
    LIMIT_FACTOR,
    Statistic,
    absolute_difference_fit,
    icc,
    kappa,
    limits_of_agreement,
    mean_relative_difference,
)
from CACScoringLib.statistics.bootstrap import RESAMPLES, mean

from ..evaluation.figures import bland_altman
from ..evaluation.measures import Measure, agreement_rate, count_table, mean_difference, of_classes
from ..evaluation.parts import METHODS, Figure, Section, TablePart
from .records import (
    AGATSTON,
    MASS,
    MG,
    TEXTS,
    TOTALS,
    VESSELS,
    WITH_AGATSTON,
    WITH_MASS,
    ComparedScan,
    Sample,
    pair_table,
    pairs_of,
)

MIN_PAIRS = 20
"""Fewest pairs for limits of agreement."""
LEVELS = {AGATSTON: (10.0, 100.0, 400.0), MG: (3.0, 10.0, 30.0), "HU·mm³": (3000.0, 10000.0, 30000.0)}
"""Scores at which limits are listed, for Agatston scores and for masses by unit."""

CLASSES = ("0–10", "11–100", "101–400", "> 400")
"""Risk categories by the Agatston score, as in table 5 of van Velzen et al."""

POSITIVE_IN_EITHER = "Relative difference, positive in either scan"
POSITIVE_IN_BOTH = "Relative difference, positive in both"
ICC_MASS, ICC_AGATSTON = "ICC of mass", "ICC of Agatston score"
KAPPA, SAME_CATEGORY = "κ of categories", "Same category"


def sections(records: Sequence[ComparedScan], generator: np.random.Generator) -> tuple[Section, ...]:
    """Sections on reproducibility of scores and of risk categories. Raises CTError."""
    sample = Sample(records, generator)
    if not sample.pairs:
        text = f"{sample.opening()} Without pairs, reproducibility cannot be evaluated."
        return (Section("between_scans", TEXTS.parts["between_scans"].title, (text,)),)
    return (_between_scans(sample), *_categories(sample))


def relative_difference(sample: Sample, in_both: bool = True, vessels: Mapping[str, Sequence[str]] = TOTALS) -> Measure:
    """Mean over pairs of |a − b| over the mean of a and b, for masses.

    Args:
        sample: The study's scans.
        in_both: True for pairs positive in both scans, False for pairs positive in either.
        vessels: Parts of the score by vessel, a pair for each.
    """
    rows = pair_table(sample.pairs, MASS, vessels)
    positive = (rows.truth > 0) & (rows.value > 0) if in_both else (rows.truth > 0) | (rows.value > 0)
    return Measure(POSITIVE_IN_BOTH if in_both else POSITIVE_IN_EITHER, mean_relative_difference, rows[positive])


def icc_of_pairs(sample: Sample, quantity: str = MASS, positive: bool = False) -> Measure:
    """ICC of the two scans; `positive` restricts it to pairs whose mass the method finds positive in both."""
    rows = pair_table(sample.pairs, quantity)
    if positive:
        rows = rows[rows.index.isin(relative_difference(sample).rows.index)]
    title = (ICC_MASS if quantity == MASS else ICC_AGATSTON) + (", positive in both" if positive else "")
    return Measure(title, icc, rows, methods=WITH_AGATSTON if quantity == AGATSTON else None)


def category_measures(sample: Sample) -> tuple[Measure, Measure]:
    """Linearly weighted κ of the two scans' categories, and the proportion of pairs in the same category."""
    rows = pair_table(sample.pairs, AGATSTON)
    weighted_kappa = of_classes(partial(kappa, classes=len(CLASSES)), category)
    return (
        Measure(KAPPA, weighted_kappa, rows, methods=WITH_AGATSTON),
        Measure(SAME_CATEGORY, of_classes(agreement_rate, category), rows, True, WITH_AGATSTON),
    )


def category(agatston: np.ndarray) -> np.ndarray:
    """Index of each score's class in CLASSES."""
    return np.array([max(class_number(score) - 1, 0) for score in np.ravel(agatston)], int)


def limits(records: Sequence[ComparedScan], method: str, quantity: str, of: str = "total") -> Limits | None:
    """Limits of agreement of two scans of one patient (`limits_of_agreement`); None for fewer than MIN_PAIRS pairs.

    Pairs that are zero in both scans are left out.

    Args:
        records: Records of the study.
        method: Key of METHODS.
        quantity: "mass" or "agatston".
        of: "total", or "artery" for the pairs of all four arteries in one regression.
    """
    rows = pair_table(pairs_of(records), quantity, {a: (a,) for a in ARTERIES} if of != "total" else TOTALS)
    rows = rows[rows.method == method]
    return _limits(rows.truth.to_numpy(float), rows.value.to_numpy(float), empirical=True)


def _limits(first: np.ndarray, second: np.ndarray, empirical: bool = False) -> Limits | None:
    positive = first + second > 0
    if positive.sum() < MIN_PAIRS:
        return None
    return limits_of_agreement(first[positive], second[positive], empirical)


def _between_scans(sample: Sample) -> Section:
    positive_in_either, positive_in_both = (relative_difference(sample, in_both) for in_both in (False, True))
    iccs = [icc_of_pairs(sample, quantity, positive) for quantity in (MASS, AGATSTON) for positive in (False, True)]
    title, about = TEXTS.texts("between_scans", resamples=RESAMPLES)
    text: tuple[str, ...] = (sample.opening(), about)
    if not any(record.truth_mg for record in sample.scans):
        text += ("The true mass of no scan is known, so it is not known whether reproducible scores are accurate.",)
    tables = (
        sample.value_table(TEXTS, "relative_difference", (positive_in_either, positive_in_both)),
        sample.difference_table(TEXTS, "identical_pairs", (positive_in_both, *iccs[::2])),
        sample.value_table(TEXTS, "icc", iccs),
        *_artery_tables(sample),
        *(_limit_table(sample, quantity) for quantity in (MASS, AGATSTON)),
    )
    figures = tuple(_bland_altman(sample, quantity) for quantity in (MASS, AGATSTON))
    return Section("between_scans", title, text, tables, figures)


def _artery_tables(sample: Sample) -> list[TablePart]:
    if not any(record.visible_arteries for record in sample.scans):
        return []
    measures = []
    for title in VESSELS:
        for in_both in (False, True):
            measure = relative_difference(sample, in_both, VESSELS)
            rows = measure.rows[measure.rows.visible & (measure.rows.item == title)]
            title_of_both = f"{title}, {'both' if in_both else 'either'}"
            measures.append(replace(measure, title=title_of_both, rows=rows, methods=WITH_MASS))
    return [sample.value_table(TEXTS, "artery_differences", measures)]


def _limit_table(sample: Sample, quantity: str) -> TablePart:
    levels = LEVELS[AGATSTON if quantity == AGATSTON else sample.unit]
    unit = "" if quantity == AGATSTON else f" {sample.unit}"

    rows = pair_table(sample.pairs, quantity)
    rows = rows[(rows.truth > 0) | (rows.value > 0)]
    rows = rows[rows.groupby("method").scan.transform("size") >= MIN_PAIRS]

    def limit_at(level: float, weights: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        intercept, slope = absolute_difference_fit(weights, first, second)
        return LIMIT_FACTOR * (intercept + slope * level)

    def within(weights: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        if not len(first):
            return np.full(len(weights), np.nan)
        return mean(weights, np.abs(second - first) <= limits_of_agreement(first, second).at((first + second) / 2))

    statistics: dict[str, Statistic] = {
        "Mean difference": mean_difference,
        "Intercept": lambda *values: absolute_difference_fit(*values)[0],
        "Slope": lambda *values: absolute_difference_fit(*values)[1],
        **{f"Limit at {level:g}{unit}": partial(limit_at, level) for level in levels},
        "Share within": within,
    }
    methods = WITH_AGATSTON if quantity == AGATSTON else WITH_MASS
    measures = [Measure(name, s, rows, name == "Share within", methods) for name, s in statistics.items()]
    values = {"pairs": MIN_PAIRS, "factor": LIMIT_FACTOR, "unit": sample.unit}
    return sample.value_table(TEXTS, f"limits_{quantity}", measures, **values)


def _bland_altman(sample: Sample, quantity: str) -> Figure:
    methods = [method for method in WITH_AGATSTON if method in sample.titles]
    rows, unit = pair_table(sample.pairs, quantity), "Agatston" if quantity == AGATSTON else sample.unit
    linear = LEVELS[AGATSTON if quantity == AGATSTON else sample.unit][0]
    draw = partial(bland_altman, rows=rows, methods=methods, limits_of=_limits, unit=unit, linear_to=linear)
    return TEXTS.figure(f"bland_altman_{quantity}", draw, (7, 3))


def _categories(sample: Sample) -> tuple[Section, ...]:
    """Section on risk categories; empty without Agatston scores."""
    measures = category_measures(sample)
    methods = [method for method in WITH_AGATSTON if len(measures[0].rows_of(method))]
    if not methods:
        return ()
    title, text = TEXTS.texts("risk_categories", classes=", ".join(CLASSES), rounding=ROUNDING)
    rows = {METHODS[method]: measures[0].rows_of(method) for method in methods}
    tables = (
        sample.value_table(TEXTS, "categories", measures),
        sample.difference_table(TEXTS, "kappa_differences", measures[:1]),
        count_table(TEXTS, "category_counts", ("First scan", "Second scan"), CLASSES, rows, category),
    )
    return (Section("categories", title, (text,), tables),)


_METHODS = {"decomposition": "map", "threshold": "reader", "automatic": "automatic"}
"""Method of the study by method of `Repeatability.limits`."""
_ACQUISITION = ("kvp", "slice_thickness_mm", "slice_spacing_mm")
_TOLERANCE = 1e-6


def store_limits(records: Sequence[ComparedScan], card: Path | None = None) -> Path:
    """Store the limits of a study's pairs; return the card.

    Args:
        records: Records of the study.
        card: Card of the calcium map's model; None for the installed model that scored the records.

    Raises:
        CTError: The records give no limits, or were scored with several sets of models.
        ModelError: The card cannot be written.
    """
    content = repeatability_of(records)
    restore(content, Repeatability)  # checks it as readers will
    return store_repeatability(card or _card(records), content)


def repeatability_of(records: Sequence[ComparedScan]) -> dict[str, object]:
    """Limits with their conditions, as the fields of `Repeatability`. Raises CTError.

    Patients with a scan outside the calibration range are left out.
    """
    out_of_range = {r.patient for r in records if "beyond-calibration" in r.facts.warnings}
    scored = [record for record in records if record.refused is None and record.patient not in out_of_range]
    setups = {str((r.facts.models, r.facts.decomposition_settings, r.facts.candidate_evidence)): r for r in scored}
    if not scored:
        raise CTError(
            "There is no repeatability coefficient: every patient has a scan that was refused or is out of the "
            "calibration range. study.html lists the scans; scan patients within the range."
        )
    if len(setups) != 1:
        raise CTError(
            f"The scans were scored with {len(setups)} sets of models and settings; a repeatability coefficient "
            "belongs to one. Evaluate with --overwrite."
        )
    first = scored[0]
    coefficients: dict[str, dict[str, dict[str, dict[str, float]]]] = {}
    for name, method in _METHODS.items():
        if name == "automatic" and first.facts.candidate_evidence is None:
            continue  # without verdicts all candidates count, which is no score
        for quantity, title in (("mass", "pseudo_mass_hu_mm3"), ("agatston", "agatston")):
            factor = _hu_mm3_per_mass(scored) if quantity == "mass" else 1.0
            if factor is None:
                continue
            for part in ("total", "artery"):
                if (fit := limits(scored, method, quantity, part)) is not None:
                    scaled = replace(fit, intercept=fit.intercept * factor, highest=fit.highest * factor)
                    coefficients.setdefault(name, {}).setdefault(title, {})[part] = asdict(scaled)
    if not coefficients:
        raise CTError(f"{len(pairs_of(scored))} pairs are too few for a repeatability coefficient.")
    patients = list(dict.fromkeys(record.patient for record in scored))
    digital = first.truth_mg is not None
    span = f" ({patients[0]} to {patients[-1]})" if digital else ""
    without = f"; {len(out_of_range)} whose scans are beyond the calibration are left out" if out_of_range else ""
    return {
        "digital": digital,
        "data": f"{len(patients)} {'digital ' if digital else ''}patients{span}, two scans each{without}",
        "date": datetime.date.today().isoformat(),
        "models": {model.network: model.sha256 for model in first.facts.models},
        "settings": first.facts.decomposition_settings,
        "acquisition": {name: ends for name in _ACQUISITION if (ends := _range(scored, name))},
        "limits": coefficients,
        "candidate_evidence": first.facts.candidate_evidence,
    }


def _hu_mm3_per_mass(records: Sequence[ComparedScan]) -> float | None:
    """HU·mm³ for one unit of mass; None if it differs between scans, so that limits in mg cannot be converted."""
    values = [record.facts.hu_mm3_per_mass for record in records]
    if records[0].unit == MG and max(values) - min(values) > _TOLERANCE * max(values):
        return None
    return values[0]


def _range(records: Sequence[ComparedScan], name: str) -> list[float] | None:
    values = [getattr(record.facts, name) for record in records]
    numbers = [float(value) for value in values if value is not None]
    return [min(numbers), max(numbers)] if numbers else None


def _card(records: Sequence[ComparedScan]) -> Path:
    """Card of the installed model that made the maps. Recalibrated copies of it have other names."""
    scored = next(record for record in records if record.refused is None)
    models = [(model.name, model.sha256) for model in scored.facts.models if model.network == "decomposition"]
    fitting = [model for model in list_models("decomposition") if (model.card.name, model.card.sha256) in models]
    if not fitting:
        raise CTError("The model that scored the scans is not installed. Name its card as study.store_limits.")
    return fitting[-1].path
