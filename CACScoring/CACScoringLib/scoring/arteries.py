"""Suggested artery of a lesion, for a reader to confirm or to change."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from ..core.labels import MAIN_ARTERIES, Artery

SECOND_ARTERY = 0.3
"""Probability above which an artery is named beside a likelier one, if that one's is above it too."""


@dataclass(frozen=True)
class ArterySuggestion:
    """Suggested artery of a lesion.

    Attributes:
        lesion_id: ID of the lesion.
        artery: Likeliest of MAIN_ARTERIES; UNASSIGNED without territories.
        confidence: Probability of the artery if the lesion is coronary.
        not_coronary_probability: Probability that the lesion is not coronary, by its place or by all evidence.
        evidence: Features that the probability was computed from, by name (`scoring.evidence`); empty for place alone.
        second: Another artery that is nearly as likely (SECOND_ARTERY); None if the artery is not doubtful.
    """

    lesion_id: int
    artery: Artery
    confidence: float
    not_coronary_probability: float
    evidence: Mapping[str, float] = field(default_factory=dict)
    second: Artery | None = None

    @classmethod
    def unknown(cls, lesion_id: int) -> ArterySuggestion:
        """Return that of a lesion of which no territories are known, and whose place is no evidence therefore."""
        return cls(lesion_id, Artery.UNASSIGNED, 0.0, 0.5)

    @property
    def arteries(self) -> str:
        """Name of the artery, or names of both likely ones, such as "LAD or LM"."""
        return self.artery.key if self.second is None else f"{self.artery.key} or {self.second.key}"


def second_artery(probabilities: np.ndarray, artery: Artery) -> Artery | None:
    """Return the artery beside a suggested one if both are likely (SECOND_ARTERY).

    probabilities: Of each of MAIN_ARTERIES, [4].
    """
    likely = [MAIN_ARTERIES[n] for n in np.argsort(-probabilities) if probabilities[n] > SECOND_ARTERY]
    return next((name for name in likely if name != artery), None) if artery in likely else None
