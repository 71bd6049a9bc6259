"""Calibration of the lesion network's answers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..core.errors import WrongValueError


@dataclass(frozen=True)
class LesionCalibration:
    """Calibration of the lesion network's answers, stored with the model of the calcium map.

    Attributes:
        temperature: Divisor of the log-odds of being coronary calcium.
        offset: Addend to these log-odds, after division.
        counts_from: Probability, calibrated, from which a lesion counts.
    """

    temperature: float = 1.0
    offset: float = 0.0
    counts_from: float = 0.5

    def __post_init__(self) -> None:
        """Raise WrongValueError for a temperature that is not above 0, or a probability out of 0 to 1."""
        if not self.temperature > 0:
            raise WrongValueError("temperature", self.temperature)
        if not 0 <= self.counts_from <= 1:
            raise WrongValueError("counts_from", self.counts_from)

    def probability(self, coronary: np.ndarray) -> np.ndarray:
        """Return calibrated probabilities of being coronary calcium, [n]. coronary: As answered, [n]."""
        bounded = np.clip(coronary.astype(float), 1e-6, 1 - 1e-6)
        logit = np.log(bounded / (1 - bounded))
        return 1 / (1 + np.exp(-(logit / self.temperature + self.offset)))
