"""Calibration of the probability that a lesion is coronary calcium."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

COUNTS_FROM = 0.5
"""Probability from which a lesion counts: a false and a missed lesion cost the same."""

LEAST_PROBABILITY, LEAST_BY_PLACE = 1e-3, 0.02
"""Least probability of either answer that log-odds are taken of, by the networks and by a territory, whose border is no
more exact than some mm."""


@dataclass(frozen=True)
class LesionCalibration:
    """Weights of log-odds that add up to those of a lesion being coronary calcium, stored with the calibration.

    Gated scans and others have weights of their own, because motion makes rims that look like calcium.

    Attributes:
        network: Weight of the lesion network's answer.
        territories: Weight of the arteries' territories.
        intercept: Addend.
        gated_network: Weight of the lesion network's answer in gated scans.
        gated_territories: Weight of the arteries' territories in gated scans.
        gated_intercept: Addend in gated scans.
    """

    network: float = 1.0
    territories: float = 0.0
    intercept: float = 0.0
    gated_network: float = 1.0
    gated_territories: float = 0.0
    gated_intercept: float = 0.0

    def probability(self, coronary: np.ndarray, in_artery: np.ndarray, is_gated: bool) -> np.ndarray:
        """Return the calibrated probability of being coronary calcium, [n].

        Args:
            coronary: Probability by the lesion network, [n].
            in_artery: Probability of lying in an artery's territory, [n].
            is_gated: True if the scan was gated.
        """
        weights = (self.network, self.territories, self.intercept)
        if is_gated:
            weights = (self.gated_network, self.gated_territories, self.gated_intercept)
        evidence = weights[0] * log_odds(coronary) + weights[1] * place_log_odds(in_artery) + weights[2]
        return 1 / (1 + np.exp(-evidence))


def place_log_odds(in_artery: np.ndarray) -> np.ndarray:
    """Return the log-odds of lying in an artery's territory, bounded by LEAST_BY_PLACE."""
    return log_odds(np.clip(in_artery, LEAST_BY_PLACE, 1 - LEAST_BY_PLACE))


def log_odds(probability: np.ndarray | float) -> np.ndarray:
    """Return the log-odds of probabilities, bounded by LEAST_PROBABILITY."""
    p = np.clip(np.asarray(probability, float), LEAST_PROBABILITY, 1 - LEAST_PROBABILITY)
    return np.log(p / (1 - p))
