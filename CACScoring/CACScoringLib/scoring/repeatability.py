"""How far two scans of one patient differ when nothing has changed; found by a study, kept on a model's card.

Scores of the same patient on the same day differ, and differ more where there is more calcium. 95 % of such differences
stay within factor × (intercept + slope × mean of both scores), from a regression of absolute differences. The factor is
the half-normal one, 1.96 · √(π/2) (Bland and Altman 1999, 10.1177/096228029900800204, (2nd)), or what 95 % of the
study's pairs keep to, where that is larger. The limits lie on the card of the calcium map's model, because they
hold for that model alone.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ..models.cards import ModelCard, ModelError, list_models


@dataclass(frozen=True)
class Limits:
    """pairs: how many they were found on. highest: largest mean of a pair among them; they are not stretched beyond."""

    intercept: float
    slope: float
    factor: float
    pairs: int
    highest: float

    def at(self, mean: float | np.ndarray) -> float | np.ndarray:
        """The repeatability coefficient at a mean of both scores: what 95 % of absolute differences stay below."""
        return self.factor * np.maximum(0.0, self.intercept + self.slope * mean)

    def interval(self, score: float) -> tuple[float, float]:
        """Find the 90 % interval of a second scan's score.

        Returns:
            Lowest and highest score, if differences are normally distributed.
        """
        width = float(self.at(score)) * 1.645 / 1.960
        return max(0.0, score - width), score + width


@dataclass(frozen=True)
class Repeatability:
    """What a scan-rescan study found, as it is stored on a model's card.

    digital: whether the pairs were of digital patients. data: what they were, in a line for readers. models: SHA-256 by
    network, and settings as `decomposition_settings` in `scores.json`, with which they were scored. acquisition: lowest
    and highest value of kvp, slice_thickness_mm and slice_spacing_mm in the study.
    limits: by method, quantity, and "total" or "artery" (one for all four); of the method "threshold" those of a reader
    who assigns lesions to arteries, "automatic" those of the automatic clinical score. candidate_evidence: as in
    `scores.json`, what its candidates were evaluated by.
    """

    digital: bool
    data: str
    date: str
    models: dict[str, str]
    settings: dict[str, object] | None
    acquisition: dict[str, tuple[float, float]]
    limits: dict[str, dict[str, dict[str, Limits]]]
    candidate_evidence: dict[str, object] | None = None

    @classmethod
    def of(cls, stored: dict) -> Repeatability:
        """From a card's entry, whose keys are the fields' names. Raises ModelError when it is none."""
        try:
            limits = {
                method: {
                    quantity: {part: _limits(values) for part, values in parts.items()}
                    for quantity, parts in quantities.items()
                }
                for method, quantities in stored["limits"].items()
            }
            acquisition = {name: (float(low), float(high)) for name, (low, high) in stored["acquisition"].items()}
            texts = (bool(stored["digital"]), str(stored["data"]), str(stored["date"]), dict(stored["models"]))
            return cls(*texts, stored.get("settings"), acquisition, limits, stored.get("candidate_evidence"))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            message = f"The limits of repeatability on a model's card cannot be read ({error!r}). Store them again."
            raise ModelError(message) from error


def _limits(values: dict) -> Limits:
    intercept, slope, factor, highest = (float(values[name]) for name in ("intercept", "slope", "factor", "highest"))
    if not all(map(math.isfinite, (intercept, slope, factor, highest))):
        raise ValueError(f"limits have to be finite: {values}")
    return Limits(intercept, slope, factor, int(values["pairs"]), highest)


def stored_repeatability(content: dict) -> Repeatability | None:
    """The limits on the card of the model that made a result's calcium map; of a result of the clinical rule alone, the
    bundled model's. None while none are stored. content: of `scores.json`. Raises ModelError.
    """
    if "decomposition" in models_of(content):
        cards = map_cards(content)
    else:
        cards = [model.card for model in list_models("decomposition") if model.origin == "bundled"]
    stored = [card.repeatability for card in cards if card.repeatability]
    return Repeatability.of(stored[-1]) if stored else None


def map_cards(content: dict) -> list[ModelCard]:
    """Cards of the model that made a result's calcium map, where it is installed. Copies of it that were calibrated
    otherwise have other names. content: of `scores.json`. Raises ModelError.
    """
    made = [(model["name"], model["sha256"]) for model in content["models"] if model["network"] == "decomposition"]
    return [model.card for model in list_models("decomposition") if (model.card.name, model.card.sha256) in made]


def models_of(content: dict) -> dict[str, str]:
    """SHA-256 of the models that a result was made with, by network."""
    return {model["network"]: model["sha256"] for model in content["models"]}
