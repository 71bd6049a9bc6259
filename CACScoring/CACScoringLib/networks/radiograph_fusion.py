"""Probabilities from a radiograph model's logits, from the image alone and with age, sex and body mass index.

Both are logistic. The model's card holds their coefficients under `calibration`: for each threshold T
`image_T` = {offset, logit} and `factors_T` = {offset, logit, age_years, male, bmi_kg_m2}, or None if the training
patients lacked these. Fitted by `CACTrainingLib.radiograph.fitting`.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

FACTORS = ("age_years", "male", "bmi_kg_m2")
"""Columns of clinical factors; male is 1 for men, 0 for women."""

_IMAGE, _FACTORS = "image_", "factors_"

Calibration = Mapping[str, Mapping[str, float] | None]
"""Coefficients by key: `image_key` of each threshold, and `factors_key`, None without a fit."""


def probabilities(logits: np.ndarray, factors: np.ndarray | None, calibration: Calibration) -> np.ndarray:
    """Return calibrated probabilities that scores exceed thresholds, float64 [N, T].

    logits: Output of the model, [N, T].
    factors: FACTORS of each patient, [N, 3]; None for the image alone. The probability is NaN where a factor is NaN or
        the card has no fit with factors.

    Raises ValueError if the calibration is not for T thresholds.
    """
    logits = np.asarray(logits, float)
    thresholds = sorted(float(name.removeprefix(_IMAGE)) for name in calibration if name.startswith(_IMAGE))
    if logits.ndim != 2 or len(thresholds) != logits.shape[1]:
        raise ValueError(f"{len(thresholds)} thresholds are calibrated; the logits' shape is {logits.shape}.")
    result = np.empty(logits.shape)
    for number, threshold in enumerate(thresholds):
        fit = calibration[image_key(threshold)] if factors is None else calibration.get(factors_key(threshold))
        if fit is None:
            z = np.full(len(logits), np.nan)
        else:
            z = fit["offset"] + fit["logit"] * logits[:, number]
            if factors is not None:
                z = z + np.asarray(factors, float) @ np.array([fit[name] for name in FACTORS])
        result[:, number] = 1 / (1 + np.exp(-np.clip(z, -50, 50)))
    return result


def image_key(threshold: float) -> str:
    """Key of a threshold's calibration from the image alone."""
    return f"{_IMAGE}{threshold:g}"


def factors_key(threshold: float) -> str:
    """Key of a threshold's calibration with clinical factors."""
    return f"{_FACTORS}{threshold:g}"
