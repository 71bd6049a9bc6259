"""Numbers in words for readers."""

from __future__ import annotations


def percent(probability: float) -> str:
    """A model's probability for readers; never 0 or 100%, for no model is certain."""
    if probability < 0.01:
        return "below 1%"
    return "above 99%" if probability > 0.99 else f"{probability:.0%}"
