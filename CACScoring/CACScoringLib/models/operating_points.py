"""Operating points of a slice classifier: its limits by use, each with the rates measured at it on validation slices.

- `published`: the limit of a classifier that decides alone, as in van Velzen et al. (false-positive rate .06).
- `scoring`: the limit from which scoring decomposes a slice. It is low, because lesions are judged afterwards, and
  stands in the calibration as `slice_threshold`, where scoring reads it.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..core.decoding import restore
from ..core.errors import ModelError, WrongValueError
from .cards import ModelCard

OPERATING_POINTS = "operating_points"
"""Entry of `ModelCard.validation` with the operating points by name."""

PUBLISHED, SCORING = "published", "scoring"

SCORING_LIMIT = 0.05
"""Probability from which scoring decomposes a slice; dense calcium needs no slice."""


@dataclass(frozen=True)
class OperatingPoint:
    """Limit of a classifier and its rates there.

    Attributes:
        threshold: Probability from which a slice is called positive.
        sensitivity: Proportion of slices with visible calcium that are called positive.
        false_positive_rate: Proportion of slices without visible calcium that are called positive.
    """

    threshold: float
    sensitivity: float
    false_positive_rate: float


def operating_point(card: ModelCard, name: str) -> OperatingPoint:
    """Return an operating point of a slice classifier.

    Args:
        card: Card of the classifier.
        name: PUBLISHED or SCORING.

    Raises:
        ModelError: The card states none of this name, or rates of another limit than the one that scoring uses.
    """
    try:
        point = restore(card.validation.get(OPERATING_POINTS, {}).get(name), OperatingPoint)
    except (WrongValueError, AttributeError):
        raise ModelError(
            f"The card of {card.name} states no threshold and rates of the operating point {name!r}. Train the slice "
            "classifier again, or name another one."
        ) from None
    used = card.calibration.get("slice_threshold")
    if name == SCORING and used != point.threshold:
        raise ModelError(
            f"The card of {card.name} states the rates of the limit {point.threshold:g}, and scoring uses {used}. "
            "Train the slice classifier again, or restore its calibration."
        )
    return point


def published_limit(card: ModelCard) -> float | None:
    """Return the limit of the published operating point, for a record; None if the card states none."""
    try:
        return operating_point(card, PUBLISHED).threshold
    except ModelError:
        return None
