"""Fit the weights that discriminate coronary calcium on lesions with a known source."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np

from CACScoringLib.scoring.map_evidence import INTERCEPT, coronary_probabilities

from ..statistics.patient_folds import parts_by_patient
from .measured_scans import LesionTable
from .score_errors import penalised_logistic

FOLDS = 5


def cross_fitted_probabilities(
    patients: Sequence[str], parts: Sequence[LesionTable], evaluated: Sequence[LesionTable] | None = None
) -> list[np.ndarray] | None:
    """Return each lesion's probability of being coronary, by weights fitted on other patients.

    Args:
        patients: Patient of each scan.
        parts: Lesions of each scan to fit to.
        evaluated: Lesions of each scan to evaluate; None for the same.

    Returns:
        Probabilities [n] for each scan, or None if there are too few lesions of either class.
    """
    learned, judged = parts, parts if evaluated is None else evaluated
    coronary = np.concatenate([part.coronary for part in learned]).astype(bool)
    of_lesions = np.repeat(np.array(patients), [len(part.coronary) for part in learned])
    patient_count = min((len(set(of_lesions[coronary == value])) for value in (False, True)), default=0)
    if patient_count < 2:
        return None
    features, count = stack_features(learned), min(FOLDS, patient_count)
    names = np.unique(of_lesions)
    is_positive = np.array([coronary[of_lesions == name].any() for name in names])
    fold = parts_by_patient(names, is_positive, count, seed=None)
    fold_of = dict(zip(names.tolist(), fold.tolist(), strict=True))
    weights = {}
    for number in {*fold_of.values(), -1}:  # none of the lesions of a patient outside all folds was learned
        training = np.array([fold_of[name] != number for name in of_lesions.tolist()])
        if len(set(coronary[training])) == 2:
            weights[number] = fitted_weights(selected(features, training), coronary[training])
    return [
        coronary_probabilities(part.features, weights[number])
        if (number := fold_of.get(patient, -1)) in weights
        else np.zeros(len(part.coronary))
        for patient, part in zip(patients, judged, strict=True)
    ]


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
