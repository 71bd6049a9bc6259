"""The automatic clinical score: which candidates of the clinical rule count as coronary calcium, by their evidence.

The evidence is that of the calcium map's lesions (`evidence`): how much of the map a candidate holds, how far it rises
above blood and its noise, its slices and its place. Its weights are those of a logistic regression on scans whose
calcium is known (`cac calibrate`), and are stored with the model of the map. Nothing is thrown away: candidates that do
not count are kept beside the score, each with its probability and the reason.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ..anatomy.arteries import ArterySuggestion
from ..core.ct import CTError
from .evidence import FEATURES, coronary_probabilities
from .lesions import LesionSet

REASONS = {
    "log_mass": "little for coronary calcium",
    "log_map_excess": "faint or absent in the calcium map",
    "log_ct_excess": "hardly above blood and its noise",
    "slice_logit": "its slices hardly show coronary calcium",
    "place_logit": "not where coronary arteries run",
}
"""Why a candidate is left out: what of its evidence lacks most."""


@dataclass(frozen=True)
class CandidateEvidence:
    """What is stored with a model to evaluate candidates by.

    weights: of `evidence.FEATURES` and the intercept. typical: features of a typical candidate that is coronary
    calcium. most_not_coronary: candidates that with a higher probability are none are left out.
    """

    weights: dict[str, float]
    typical: dict[str, float]
    most_not_coronary: float

    @classmethod
    def stored(cls, calibration: Mapping) -> CandidateEvidence | None:
        """From a model's calibration; None where it holds none. Raises CTError when it does not match this version."""
        content = calibration.get("candidates")
        if content is None:
            return None
        try:
            return cls(**content)
        except TypeError as error:
            message = f"The model's evidence of candidates cannot be read ({error}). Calibrate it again."
            raise CTError(message) from error


@dataclass(frozen=True)
class LeftOut:
    """Candidates that probably are no coronary calcium.

    lesions: with the ids they had among all candidates. suggestions: of their arteries, in their order, with the
    probability that they are not coronary. reasons: in their order, in words.
    """

    lesions: LesionSet
    suggestions: tuple[ArterySuggestion, ...]
    reasons: tuple[str, ...]


def evaluated_candidates(
    found: LesionSet, features: np.ndarray, suggestions: Sequence[ArterySuggestion], evidence: CandidateEvidence
) -> tuple[LesionSet, list[ArterySuggestion], LeftOut]:
    """Tell candidates that count from those that do not.

    Args:
        found: Candidates, in the arteries of their territories.
        features: `evidence.FEATURES` of each, [n, features].
        suggestions: Of each, by its place.
        evidence: What they are evaluated by.

    Returns:
        The candidates that count, their suggestions with the evidence and the probability by it, and those left out.

    Raises:
        CTError: The stored evidence does not match this version.
    """
    coronary = coronary_probabilities(features, evidence.weights)
    evaluated = [
        replace(own, not_coronary_probability=float(1 - p), evidence=dict(zip(FEATURES, row.tolist(), strict=True)))
        for own, p, row in zip(suggestions, coronary, features, strict=True)
    ]
    counts = [own.not_coronary_probability <= evidence.most_not_coronary for own in evaluated]
    weights = np.array([evidence.weights[name] for name in FEATURES])
    lacking = weights * (np.array([evidence.typical[name] for name in FEATURES]) - features)
    reasons = [REASONS[FEATURES[int(n)]] for n in lacking.argmax(1)] if len(features) else []
    others = [n for n, own in enumerate(counts) if not own]
    kept = found.of(lesion.id for lesion, own in zip(found.lesions, counts, strict=True) if own)
    rest = found.of(found.lesions[n].id for n in others)
    left_out = LeftOut(rest, tuple(evaluated[n] for n in others), tuple(reasons[n] for n in others))
    return kept, [own for own, counted in zip(evaluated, counts, strict=True) if counted], left_out
