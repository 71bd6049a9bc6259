"""What a `scores.json` tells, of whatever version wrote it."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from .labels import Artery


def recorded_agatston(method: Mapping, score: Mapping) -> float:
    """The Agatston score on the clinical scale, of a method's total, artery or lesion in `scores.json`. An earlier
    version knew one factor for all of a map."""
    known = score.get("clinical_agatston")
    return float(score["agatston"] * (method["agatston_scale"] or 1.0) if known is None else known)


def recorded_status(method: str, recorded: Mapping) -> str:
    """How the scores of a method came about, a key of `results.STATUSES`.

    Args:
        method: Key in "methods".
        recorded: What stands there. Earlier versions recorded only whether it was reviewed, and had no automatic
            clinical score.
    """
    unreviewed = "candidates" if method == "threshold" else "automatic"
    return recorded.get("status", "reviewed" if recorded["reviewed"] else unreviewed)


def counted_labels(labels: np.ndarray, recorded: Mapping) -> np.ndarray:
    """The `Artery` labels of what a method counts, 0 elsewhere.

    Args:
        labels: Of `lesions.nii.gz` or `map_lesions.nii.gz`, uint8; the first also holds calcium outside the coronary
            arteries, and as UNASSIGNED what an automatic score leaves out.
        recorded: The method, as it stands there.
    """
    last = Artery.OTHER if recorded.get("left_out") else max(Artery)
    return np.where(labels <= last, labels, np.uint8(0))
