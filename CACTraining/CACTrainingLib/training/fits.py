"""Fits of both calibrations, `cac calibrate` and `cac evaluate accuracy --calibrate`.

They fit the weights by which a lesion is probably coronary calcium, and the errors of scores, which prediction
intervals are made of.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy.optimize import minimize
from scipy.special import expit

from CACScoringLib.core.labels import ARTERIES
from CACScoringLib.scoring.sites import INTERCEPT, coronary_probabilities
from CACScoringLib.scoring.uncertainty import LEVEL, TOTAL, LesionAmounts, ScoreErrors, Uncertainty
from CACScoringLib.statistics.patient_folds import parts_by_patient

FOLDS = 5

SPREADS = (0.1, 0.2, 0.3, 0.5, 0.8, 1.2)
"""Spreads of a true score around the sum of its lesions that are tried. Digital patients have an ideal reader; two
readers of one scan differ by 3.3 ± 9.1 % (10.1007/s11604-014-0364-3)."""

SHARPNESSES = (1.0, 1.5, 2.0)
"""Weights of the lesions' log odds that are tried."""

SMALL_SCORES = (0.0, 30.0, 100.0, 300.0)
"""1 + scores that are tried as that at which the error's variance is twice that of large scores."""

MAX_LEVEL = 0.998
"""Highest level of intervals; few patients determine none above."""

FORMER_SCANS = 20
"""Number of scans that the former errors count as beside those of a further fit."""


class KnownScore(NamedTuple):
    """Lesions of a scan that may belong to its score, and the true score.

    Attributes:
        patient: Patient of the scan.
        agatston: Agatston score of each lesion, [n].
        artery: Key of its artery, [n].
        probability: Cross-fitted probability that it belongs to the true score, [n].
        truth: True score of the total (TOTAL), and of arteries if known.
    """

    patient: str
    agatston: np.ndarray
    artery: np.ndarray
    probability: np.ndarray
    truth: Mapping[str, float]

    def amounts(self, part: str) -> LesionAmounts:
        """Return the lesions of a part of the score: TOTAL, or an artery."""
        inside = np.full(len(self.agatston), True) if part == TOTAL else self.artery == part
        return LesionAmounts(self.agatston[inside].tolist(), self.probability[inside].tolist())


def fitted_uncertainty(
    scores: Sequence[KnownScore], former: Uncertainty | None = None, least_patients: int = 0
) -> Uncertainty:
    """Fit the errors of a method's scores.

    Args:
        scores: Scores of the method with their truth.
        former: Errors that count as FORMER_SCANS further scans, and stay for arteries if too few patients have true
            scores of all arteries; None for none.
        least_patients: Fewest such patients.
    """
    by_artery = [score for score in scores if score.truth.keys() >= {*ARTERIES}]
    total = _fitted_part(scores, (TOTAL,), None if former is None else former.total)
    if former is not None and len({score.patient for score in by_artery}) < least_patients:
        return Uncertainty(total, former.artery)
    of_arteries = _fitted_part(by_artery, ARTERIES, None if former is None else former.artery)
    return Uncertainty(total, of_arteries)


def _fitted_part(scores: Sequence[KnownScore], parts: Sequence[str], former: ScoreErrors | None) -> ScoreErrors:
    """Fit the errors of parts of scores.

    Nine of ten totals are held of patients with calcium, and of those without. An artery's calcium is often missed as a
    whole, and intervals that held nine of ten of those would be too wide for use.
    """
    lesions = [score.amounts(part) for score in scores for part in parts]
    truths = np.array([score.truth[part] for score in scores for part in parts], float)
    fit = partial(fitted_errors, lesions, truths, by_class=parts == (TOTAL,))
    if former is None:
        return fit()
    fit = partial(fit, sharpnesses=(former.sharpness,), small_scores=(former.small,))
    squares = len(scores) * fit().spread ** 2 + FORMER_SCANS * former.spread**2
    return fit((math.sqrt(squares / (len(scores) + FORMER_SCANS)),))


def fitted_errors(
    lesions: Sequence[LesionAmounts],
    truths: np.ndarray,
    spreads: Sequence[float] = SPREADS,
    sharpnesses: Sequence[float] = SHARPNESSES,
    small_scores: Sequence[float] = SMALL_SCORES,
    by_class: bool = False,
) -> ScoreErrors:
    """Fit the errors of scores.

    Of some spreads, sharpnesses and small scores, each with the level at which LEVEL of the true scores are held, those
    with the lowest mean interval score are taken: the width, and beside it 2 / (1 − LEVEL) times the distance of a true
    score outside, of the logarithm of 1 + score (Gneiting and Raftery 2007, 10.1198/016214506000001437).

    Args:
        lesions: Lesions of each scan with cross-fitted probabilities, [n].
        truths: True score of each scan, [n].
        spreads: Spreads that are tried.
        sharpnesses: Sharpnesses that are tried.
        small_scores: Small scores that are tried.
        by_class: True if LEVEL of the true scores above 0 are to be held, and LEVEL of those of 0.
    """
    true, fits = np.log1p(truths), []
    classes = [part for part in ((truths > 0, truths <= 0) if by_class else (truths >= 0,)) if part.any()]
    for spread, sharpness, small in itertools.product(spreads, sharpnesses, small_scores):
        fitted = ScoreErrors(spread, LEVEL, sharpness, small)
        distributions = [fitted.distribution(part) for part in lesions]
        places = np.array([float(d.below(truth)[0]) for d, truth in zip(distributions, truths, strict=True)])
        needed = max((_conformal_quantile(np.abs(2 * places[part] - 1)) for part in classes), default=0.0)
        level = float(np.clip(needed, 0.5, MAX_LEVEL))
        low, high = np.log1p(np.array([d.interval(level) for d in distributions]).reshape(-1, 2)).T
        outside = np.maximum(low - true, 0) + np.maximum(true - high, 0)
        score = float(np.mean(high - low + 2 / (1 - LEVEL) * outside)) if len(true) else 0.0
        fits.append((needed > MAX_LEVEL, score, ScoreErrors(spread, level, sharpness, small)))
    return min(fits, key=lambda fit: fit[:2])[2]


def _conformal_quantile(values: np.ndarray) -> float:
    """Return the value that a further one stays below with the probability LEVEL; the highest of too few."""
    return float(np.sort(values)[min(len(values), math.ceil((len(values) + 1) * LEVEL)) - 1])


FORMER = "former_logit"
"""Evidence of a lesion: its log-odds of being coronary calcium by a former calibration, whose weights few lesions
hardly move. It stands alone."""


def cross_fitted_probabilities(
    lesions: pd.DataFrame, features: Sequence[str], learned: np.ndarray
) -> np.ndarray | None:
    """Return each lesion's probability of being coronary, by weights fitted on lesions of other patients.

    Args:
        lesions: Lesions with columns patient, coronary and the features, [n].
        features: Names of the features.
        learned: True for the lesions to fit to, bool [n].

    Returns:
        Probabilities [n], or None if there are too few lesions of either class.
    """
    learned_lesions = lesions[learned]
    by_patient = learned_lesions.groupby("patient").coronary
    positive, negative = by_patient.any(), ~by_patient.all()
    count = min(FOLDS, int(positive.sum()), int(negative.sum()))
    if count < 2:
        return None
    fold_of = dict(zip(positive.index, parts_by_patient(positive.index, positive.to_numpy(), count, None), strict=True))
    # None of the lesions of a patient outside all folds was learned.
    fold = np.array([fold_of.get(patient, -1) for patient in lesions.patient])
    probabilities = np.zeros(len(lesions))
    for number in np.unique(fold):
        training, inside = learned_lesions[fold[learned] != number], fold == number
        if training.coronary.nunique() == 2:
            weights = fitted_weights(columns_of(training, features), training.coronary.to_numpy(bool))
            probabilities[inside] = coronary_probabilities(columns_of(lesions[inside], features), weights)
    return probabilities


def columns_of(lesions: pd.DataFrame, features: Sequence[str]) -> dict[str, np.ndarray]:
    """Return features of lesions by name, [n]."""
    return {name: lesions[name].to_numpy(float) for name in features}


def fitted_weights(features: Mapping[str, np.ndarray], coronary: np.ndarray) -> dict[str, float]:
    """Fit non-negative weights of features, unscaled, and INTERCEPT by logistic regression with an L2 penalty.

    The penalty draws the weights to 0; that of FORMER to 1, and its INTERCEPT to 0.

    Args:
        features: Features of lesions by name, [n].
        coronary: True if a lesion is coronary [n].
    """
    values = np.stack(list(features.values()), axis=1)
    if FORMER in features:
        columns, toward = np.column_stack([values, np.ones(len(values))]), np.array([1.0, 0.0])
        bounds = ((0.0, None), (None, None))
        slope, offset = penalised_logistic(columns, coronary.astype(float), np.ones(2), toward, bounds).tolist()
        return {FORMER: slope, INTERCEPT: offset}
    mean, spread = values.mean(0), np.maximum(values.std(0), 1e-6)
    columns, count = np.column_stack([(values - mean) / spread, np.ones(len(values))]), len(features)
    limits = [*[(0, None)] * count, (None, None)]
    penalty = np.append(np.ones(count), 0.0)
    fitted = penalised_logistic(columns, coronary.astype(float), penalty, np.zeros(count + 1), limits)
    weights = fitted[:-1] / spread
    return {**dict(zip(features, map(float, weights), strict=True)), INTERCEPT: float(fitted[-1] - weights @ mean)}


def penalised_logistic(
    columns: np.ndarray,
    target: np.ndarray,
    penalty: np.ndarray,
    toward: np.ndarray,
    bounds: Sequence[tuple[float | None, float | None]] | None = None,
) -> np.ndarray:
    """Fit the weights of columns [n, columns] to the target [n] (0 or 1) by logistic regression.

    Each weight stays within its bounds, if given; its L2 penalty draws it to `toward`.
    """

    def loss(weights: np.ndarray) -> tuple[float, np.ndarray]:
        evidence, off = columns @ weights, weights - toward
        cost = float((np.logaddexp(0, evidence) - target * evidence).sum() + penalty * off @ off / 2)
        return cost, (expit(evidence) - target) @ columns + penalty * off

    return minimize(loss, toward, jac=True, bounds=bounds).x
