"""What the study's networks predicted, what age, sex and heart size alone predict, and how good each of them is.

Several networks of one kind predict the held-out patients, one of each fold. A statistic is that of one network, as
there would be one in use, averaged over the networks; their answers are never averaged, which would flatter them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from ...statistics.agreement import kappa
from ...statistics.bootstrap import Bootstrap, Found, mean, quantile
from ...statistics.patient_folds import category_of
from ...statistics.regression import rank_correlation
from ..scan_table import ARTERIES

PER_MILLE = 1000.0
"""Mean squared errors are shown in thousandths, as they are of squares of shares."""

TOTAL = len(ARTERIES)
"""In place of an artery's number: the sum of all."""

FACTORS = ("age", "sex", "heart size")

Statistic = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]
"""Of weights [resamples, patients], true scores and predicted ones [patients, 4]: float [resamples]."""


@dataclass(frozen=True)
class Scans:
    """The scans of a study's table, n of them. agatston: float [n, 4], by ARTERIES.

    factors: float [n, 3]: age in years, 1 for men, the heart's volume in ml; NaN where it is not known. elsewhere: what
    else holds calcium or metal, of digital patients; None where that is not known.
    """

    names: tuple[str, ...]
    patients: tuple[str, ...]
    agatston: np.ndarray
    factors: np.ndarray
    elsewhere: tuple[tuple[str, ...] | None, ...]

    @cached_property
    def place(self) -> dict[str, int]:
        return {name: n for n, name in enumerate(self.names)}

    def rows(self, names: Sequence[str]) -> np.ndarray:
        return np.array([self.place[name] for name in names], int)


@dataclass(frozen=True)
class Predicted:
    """Of one network, or of all folds' networks together. rows: int [m], of the scans. agatston: float [m, 4]."""

    rows: np.ndarray
    agatston: np.ndarray


@dataclass(frozen=True)
class Result:
    """One training as it was kept; see `whole_scan.vessels.study_runs`. curves: step, and error of
    training and validation in squared Agatston units, [v, 3].

    saliency, slice_weights: as kept; None where they were not looked at, or the network has none.
    """

    fold: int
    training: Predicted
    validation: Predicted
    test: Predicted | None
    noncoronary_controls: Predicted | None
    curves: np.ndarray
    seconds: float
    steps: int
    best_step: int
    weights: int
    saliency: Mapping | None
    slice_weights: Mapping | None


def read_result(scans: Scans, noncoronary_controls: Scans | None, kept: Mapping) -> Result:
    """A training's result from what its job returned."""

    def part(name: str, of: Scans | None) -> Predicted | None:
        found = kept.get(name)
        if found is None or of is None:
            return None
        return Predicted(of.rows(found["names"]), np.asarray(found["agatston"], float).reshape(-1, len(ARTERIES)))

    return Result(
        kept["fold"],
        part("training", scans),
        part("validation", scans),
        part("test", scans),
        part("others", noncoronary_controls),
        np.asarray(kept["curves"], float).reshape(-1, 3),
        kept["seconds"],
        kept["steps"],
        kept["best_step"],
        kept["weights"],
        kept.get("saliency"),
        kept.get("slice_weights"),
    )


@dataclass
class Study:
    """Scans, how they are split, and resamples of the patients that all statistics share.

    noncoronary_controls: scans of patients whose calcium lies elsewhere. folds: names learned from and validated by,
    of each fold. held_out: rows. scale: the largest score of one artery among those not held out; errors are relative
    to it.
    """

    scans: Scans
    noncoronary_controls: Scans | None
    folds: Sequence[tuple[Sequence[str], Sequence[str]]]
    held_out: np.ndarray
    seed: int = 0
    scale: float = field(init=False)
    weights: np.ndarray = field(init=False)
    """How often each scan counts in each resample: float [1 + resamples, n]."""
    other_weights: np.ndarray | None = field(init=False)

    def __post_init__(self) -> None:
        learned = np.setdiff1d(np.arange(len(self.scans.names)), self.held_out)
        self.scale = float(self.scans.agatston[learned].max(initial=0.0)) or 1.0
        generator = np.random.default_rng(self.seed)
        self.weights = Bootstrap(self.scans.patients, generator).weights(self.scans.patients)
        self.other_weights = None
        if self.noncoronary_controls is not None:
            self.other_weights = Bootstrap(self.noncoronary_controls.patients, generator).weights(
                self.noncoronary_controls.patients
            )

    def of(self, found: Sequence[Predicted], statistic: Statistic) -> Found:
        """A statistic, averaged over networks that predicted the same patients, or each its own."""
        values = [
            statistic(np.take(self.weights, one.rows, 1), self.scans.agatston[one.rows], one.agatston) for one in found
        ]
        rows = np.unique(np.concatenate([one.rows for one in found]))
        return Found(np.mean(values, axis=0), len(rows), len({self.scans.patients[row] for row in rows}))

    def squared_error(self, weights: np.ndarray, true: np.ndarray, predicted: np.ndarray) -> np.ndarray:
        """Mean over patients and arteries of the squared error of normalised scores, in thousandths."""
        return PER_MILLE * mean(weights, (((predicted - true) / self.scale) ** 2).mean(1))

    def error_of(self, found: Predicted) -> float:
        """`squared_error` of a sample."""
        return float(
            self.squared_error(np.ones((1, len(found.rows))), self.scans.agatston[found.rows], found.agatston)[0]
        )


def of_artery(scores: np.ndarray, artery: int) -> np.ndarray:
    """Scores [n] of an artery by its number, or of TOTAL; scores: [n, 4]."""
    return scores.sum(1) if artery == TOTAL else scores[:, artery]


def rank(artery: int) -> Statistic:
    """Rank correlation of predicted and true scores of an artery, or of TOTAL."""
    return lambda weights, true, predicted: rank_correlation(
        weights, of_artery(true, artery), of_artery(predicted, artery)
    )


def mean_error(artery: int) -> Statistic:
    """Mean absolute error, in Agatston units."""
    return lambda weights, true, predicted: mean(weights, _off(true, predicted, artery))


def median_error(artery: int) -> Statistic:
    """Median absolute error, in Agatston units."""
    return lambda weights, true, predicted: quantile(weights, _off(true, predicted, artery), 0.5)


def _off(true: np.ndarray, predicted: np.ndarray, artery: int) -> np.ndarray:
    return np.abs(of_artery(predicted, artery) - of_artery(true, artery))


def category_agreement(weights: np.ndarray, true: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """Linearly weighted κ of the categories 0, 1–99, 100–399 and from 400 of the total, rounded to whole scores."""
    return kappa(weights, category_of(true.sum(1)), category_of(np.round(predicted.sum(1))), 4)


@dataclass(frozen=True)
class Comparator:
    """A way to predict. validation, test: of the network, or regression, of each fold; test empty where nothing was
    tested. training: what it says of those it learned from.
    """

    title: str
    training: tuple[Predicted, ...]
    validation: tuple[Predicted, ...]
    test: tuple[Predicted, ...]


def comparator_of(title: str, results: Sequence[Result]) -> Comparator:
    """Of the networks of one way to train."""
    return Comparator(
        title,
        tuple(result.training for result in results),
        tuple(result.validation for result in results),
        tuple(result.test for result in results if result.test is not None),
    )


def always_the_mean(study: Study, folds: int) -> Comparator:
    """Predicts of everyone the mean scores of those learned from."""

    def learned(rows: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
        middle = study.scans.agatston[rows].mean(0)
        return lambda asked: np.tile(middle, (len(asked), 1))

    return _fitted("Always the mean", study, folds, learned)


def known_factors(scans: Scans) -> tuple[int, ...]:
    """Which of FACTORS are known of every scan."""
    return tuple(n for n in range(len(FACTORS)) if np.isfinite(scans.factors[:, n]).all())


def factors_alone(study: Study, folds: int, logarithm: bool) -> Comparator | None:
    """Linear regression of the scores, or of their logarithms, on what is known of age, sex and heart size.

    None where nothing is known of every scan.
    """
    from sklearn.linear_model import LinearRegression

    columns = known_factors(study.scans)
    if not columns:
        return None
    factors = study.scans.factors[:, columns]

    def learned(rows: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
        scores = study.scans.agatston[rows]
        model = LinearRegression().fit(factors[rows], np.log1p(scores) if logarithm else scores)
        return lambda asked: np.maximum(0, (np.expm1 if logarithm else np.asarray)(model.predict(factors[asked])))

    names = ", ".join(FACTORS[n] for n in columns)
    names = names[:1].upper() + names[1:]
    return _fitted(f"{names}{': logarithm' if logarithm else ''}", study, folds, learned)


def _fitted(
    title: str, study: Study, folds: int, learned: Callable[[np.ndarray], Callable[[np.ndarray], np.ndarray]]
) -> Comparator:
    parts: list[list[Predicted]] = [[], [], []]
    for names in study.folds[:folds]:
        training, validation = (study.scans.rows(part) for part in names)
        predict = learned(training)
        for part, rows in zip(parts, (training, validation, study.held_out), strict=True):
            part.append(Predicted(rows, predict(rows)))
    return Comparator(title, *map(tuple, parts))


def normalised_curve(curve: np.ndarray, scale: float) -> np.ndarray:
    """A kept curve with its errors as they are shown, in thousandths; see `Result`."""
    return curve * [1.0, *[PER_MILLE / scale**2] * 2]


def mean_curves(curves: Sequence[np.ndarray], points: int = 100) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Steps [p], and mean and standard deviation over folds of training and validation error, [p, 2] each.

    curves: [v, 3] each: step, training, validation error. Where a training stopped early, its last errors stay.
    """
    known = [curve for curve in curves if len(curve)]
    steps = np.linspace(min(curve[0, 0] for curve in known), max(curve[-1, 0] for curve in known), points)
    each = np.array([[np.interp(steps, curve[:, 0], curve[:, n]) for n in (1, 2)] for curve in known])
    return steps, each.mean(0).T, (each.std(0, ddof=1) if len(each) > 1 else np.zeros_like(each[0])).T
