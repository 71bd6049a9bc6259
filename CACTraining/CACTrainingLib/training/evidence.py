"""Fit the weights that discriminate coronary calcium on lesions with a known source."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np

from CACScoringLib.scoring.map_evidence import INTERCEPT, coronary_probabilities

from ..statistics.patient_folds import parts_by_patient
from .measured_scans import LesionTable
from .score_errors import penalised_logistic

FOLDS = 5

FALSE_ZERO = 2.0
"""Cost of a score of 0 for a patient with calcium, relative to an equal error: such a patient is sent home."""


def cross_fitted_probabilities(patients: Sequence[str], parts: Sequence[LesionTable]) -> list[np.ndarray] | None:
    """Return each lesion's probability of being coronary, by weights fitted on other patients.

    Args:
        patients: Patient of each scan.
        parts: Lesions of each scan.

    Returns:
        Probabilities [n] for each scan, or None if there are too few lesions of either class.
    """
    coronary = np.concatenate([part.coronary for part in parts]).astype(bool)
    scan_index = np.repeat(np.arange(len(parts)), [len(part.coronary) for part in parts])
    lesion_patients = np.array(patients)[scan_index]
    patient_count = min((len(set(lesion_patients[coronary == value])) for value in (False, True)), default=0)
    if patient_count < 2:
        return None
    features = stack_features(parts)
    probabilities = np.zeros(len(coronary))
    count = min(FOLDS, patient_count)
    fold = parts_by_patient(lesion_patients, coronary, count, seed=None)
    for number in range(count):
        training, held_out = fold != number, fold == number
        if len(set(coronary[training])) == 2:
            weights = fitted_weights(selected(features, training), coronary[training])
            probabilities[held_out] = coronary_probabilities(selected(features, held_out), weights)
    return [probabilities[scan_index == number] for number in range(len(parts))]


Features = Mapping[str, np.ndarray]
"""Value of each feature of lesions by its name, [n]."""


class _WithFeatures(Protocol):
    @property
    def features(self) -> Features: ...


def stack_features(parts: Sequence[_WithFeatures]) -> dict[str, np.ndarray]:
    """Join the features of all scans' lesions. parts: Lesions of each scan, at least one."""
    return {name: np.concatenate([part.features[name] for part in parts]) for name in parts[0].features}


def selected(features: Features, selection: np.ndarray) -> dict[str, np.ndarray]:
    """Return the features of some lesions. selection: True for these, bool [n]."""
    return {name: values[selection] for name, values in features.items()}


def nearest_limit(
    agatston: Sequence[np.ndarray],
    probabilities: Sequence[np.ndarray],
    truths: Sequence[float],
    toward: float | None = None,
) -> tuple[float, float]:
    """Return the probability from which lesions count, chosen for the smallest error of the scores.

    The error is the mean difference of ln(1 + score), in which a false 10 counts as much as a missed 10, but a score of
    0 for calcium counts FALSE_ZERO times.

    Args:
        agatston: Agatston scores of each scan's lesions.
        probabilities: Probabilities of each scan's lesions.
        truths: True score of each scan.
        toward: Preferred limit: of the limits that are not worse than the best by more than the standard error of the
            difference, the nearest to it is returned. None for the best.

    Returns:
        The limit and its error.
    """
    truth = np.log1p(truths)
    limits = np.linspace(0.02, 0.98, 49)
    pairs = list(zip(agatston, probabilities, strict=True))
    scores = np.array([[scan_agatston[p >= limit].sum() for scan_agatston, p in pairs] for limit in limits])
    errors = np.abs(np.log1p(scores) - truth) * np.where(scores > 0, 1, FALSE_ZERO)
    best = int(errors.mean(1).argmin())
    if toward is not None:
        excess = errors - errors[best]
        is_allowed = excess.mean(1) <= excess.std(1, ddof=1) / math.sqrt(len(truth))
        best = int(np.where(is_allowed, np.abs(limits - toward), np.inf).argmin())
    return float(limits[best]), float(errors[best].mean())


def fitted_weights(
    features: Features, coronary: np.ndarray, toward: Mapping[str, float] | None = None
) -> dict[str, float]:
    """Fit non-negative weights of features, unscaled, and INTERCEPT by logistic regression with an L2 penalty.

    Args:
        features: Features of lesions.
        coronary: True if a lesion is coronary [n].
        toward: Weights that the penalty draws to; None for 0.
    """
    values = np.stack(list(features.values()), axis=1)
    mean, spread = values.mean(0), np.maximum(values.std(0), 1e-6)
    columns = np.column_stack([(values - mean) / spread, np.ones(len(values))])
    start = np.zeros(len(features)) if toward is None else np.array([toward[name] for name in features]) * spread
    penalty, bounds = np.append(np.ones(len(features)), 0.0), [(0, None)] * len(features)
    fitted = penalised_logistic(
        columns, coronary.astype(float), penalty, np.append(start, 0.0), [*bounds, (None, None)]
    )
    weights = fitted[:-1] / spread
    return {**dict(zip(features, map(float, weights), strict=True)), INTERCEPT: float(fitted[-1] - weights @ mean)}
