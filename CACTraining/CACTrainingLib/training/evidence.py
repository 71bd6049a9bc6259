"""Weights that tell coronary calcium from the rest (`scoring.evidence`), learned from lesions of which it is known."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from CACScoringLib.scoring.evidence import FEATURES, INTERCEPT, coronary_probabilities

from ..statistics.patient_folds import parts_by_patient
from .measured_scans import FoundLesions
from .score_errors import penalised_logistic

FOLDS = 5

FALSE_ZERO = 2.0
"""Who has calcium and is told 0 is sent home: worse than a score that is as far off the other way."""


def probabilities_by_others(patients: Sequence[str], parts: Sequence[FoundLesions]) -> list[np.ndarray] | None:
    """Probability of being coronary of each scan's lesions, by weights of other patients; None if there are too
    few lesions of either class to learn them. patients, parts: of each scan."""
    coronary = np.concatenate([part.coronary for part in parts]).astype(bool)
    owner = np.repeat(np.arange(len(parts)), [len(part.coronary) for part in parts])
    own_patients = np.array(patients)[owner]
    with_both = min((len(set(own_patients[coronary == value])) for value in (False, True)), default=0)
    if with_both < 2:
        return None
    features = stack_features(parts)
    probabilities = np.zeros(len(coronary))
    count = min(FOLDS, with_both)
    fold = parts_by_patient(own_patients, coronary, count, seed=None)
    for number in range(count):
        training, held_out = fold != number, fold == number
        if len(set(coronary[training])) == 2:
            weights = fitted_weights(features[training], coronary[training])
            probabilities[held_out] = coronary_probabilities(features[held_out], weights)
    return [probabilities[owner == number] for number in range(len(parts))]


def stack_features(parts: Sequence[FoundLesions]) -> np.ndarray:
    """Features of all lesions, [n, features]."""
    return np.concatenate([part.features.reshape(-1, len(FEATURES)) for part in parts])


def nearest_limit(
    agatston: Sequence[np.ndarray],
    probabilities: Sequence[np.ndarray],
    truths: Sequence[float],
    toward: float | None = None,
) -> tuple[float, float]:
    """The least probability that counts, so that scores come nearest to the truth.

    Nearness is the mean difference of ln(1 + score), in which a false 10 counts as much as a missed 10; but a score of
    0 for calcium counts FALSE_ZERO times.

    Args:
        agatston: Of each scan's lesions.
        probabilities: Of these.
        truths: Score of each scan.
        toward: A limit that is kept to as far as the scans allow: of the limits that are not worse than the best by
            more than the standard error of the difference, the nearest to it. None for the best.

    Returns:
        The limit, and that difference.
    """
    truth = np.log1p(truths)
    limits = np.linspace(0.02, 0.98, 49)
    pairs = list(zip(agatston, probabilities, strict=True))
    scores = [np.array([own[p >= limit].sum() for own, p in pairs]) for limit in limits]
    errors = np.array([np.abs(np.log1p(found) - truth) * np.where(found > 0, 1, FALSE_ZERO) for found in scores])
    best = int(errors.mean(1).argmin())
    if toward is not None:
        worse = errors - errors[best]
        allowed = worse.mean(1) <= worse.std(1, ddof=1) / math.sqrt(len(truth))
        best = int(np.where(allowed, np.abs(limits - toward), np.inf).argmin())
    return float(limits[best]), float(errors[best].mean())


def typical(features: np.ndarray) -> dict[str, float]:
    """Median features of coronary lesions, by name. features: [n, features]."""
    return dict(zip(FEATURES, map(float, np.median(features, axis=0)), strict=True))


def fitted_weights(
    features: np.ndarray, coronary: np.ndarray, toward: Mapping[str, float] | None = None
) -> dict[str, float]:
    """Weights of FEATURES as they are measured, and INTERCEPT: logistic regression with an L2 penalty, in which no
    feature counts against a lesion.

    Args:
        features: [n, features].
        coronary: [n].
        toward: Weights that the penalty draws to; None for none at all, 0.
    """
    mean, spread = features.mean(0), np.maximum(features.std(0), 1e-6)
    columns = np.column_stack([(features - mean) / spread, np.ones(len(features))])
    start = np.zeros(len(FEATURES)) if toward is None else np.array([toward[name] for name in FEATURES]) * spread
    penalty, bounds = np.append(np.ones(len(FEATURES)), 0.0), [(0, None)] * len(FEATURES)
    fitted = penalised_logistic(
        columns, coronary.astype(float), penalty, np.append(start, 0.0), [*bounds, (None, None)]
    )
    weights = fitted[:-1] / spread
    return {**dict(zip(FEATURES, map(float, weights), strict=True)), INTERCEPT: float(fitted[-1] - weights @ mean)}
