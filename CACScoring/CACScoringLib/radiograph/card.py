"""What a radiograph model's card tells of how well it does, for reports and warnings."""

from __future__ import annotations

from dataclasses import dataclass

from ..core.ct import ScanWarning
from ..models.cards import ModelCard

_MEASURED_ON = {
    "external_": "patients of another cohort, none of them in training",
    "cross_validated_": "patients, each evaluated by a model that was not trained on them (cross-validation)",
    "": "patients who were also used for early stopping and calibration, which favours the model",
}
"""By the beginning of a measure's name on the card; the first that is told counts."""


GUESSING = 0.5
"""Area under the ROC curve."""


@dataclass(frozen=True)
class CardArea:
    """An area under the ROC curve on a model's card. low, high: its 95% interval, None where not told. who: it was
    measured on, in words."""

    value: float
    low: float | None
    high: float | None
    who: str


def area_of(card: ModelCard, agatston: float, with_factors: bool = False) -> CardArea | None:
    """How well a model tells a threshold, on the patients furthest from its training that its card tells of."""
    told = card.validation
    name = f"with_factors_{_area_name(agatston)}" if with_factors else _area_name(agatston)
    for prefix, who in _MEASURED_ON.items():
        value, interval = told.get(f"{prefix}{name}"), told.get(f"{prefix}{name}_95")
        if isinstance(value, int | float):
            low, high = interval if isinstance(interval, list) and len(interval) == 2 else (None, None)
            count = told.get(f"{prefix}n")
            return CardArea(float(value), low, high, who if count is None else f"{count} {who}")
    return None


def proportion_of(card: ModelCard, agatston: float) -> float | None:
    """How many of the patients whom a model was calibrated on had such a score, 0 to 1; None where not told."""
    counts = card.validation.get(f"n_{_area_name(agatston)}")
    if not isinstance(counts, list) or len(counts) != 2 or not sum(counts):
        return None
    return counts[0] / sum(counts)


def _area_name(agatston: float) -> str:
    """As a card calls it."""
    return "auc_above_0" if agatston == 0 else f"auc_from_{agatston:g}"


def threshold_name(agatston: float) -> str:
    """What a threshold asks: "above 0", "100 or more"."""
    return "above 0" if agatston == 0 else f"{agatston:g} or more"


def image_warning(card: ModelCard) -> tuple[ScanWarning, ...]:
    """A warning where tests have not shown that the picture alone tells a threshold better than guessing."""
    unproven = []
    for threshold in card.config["thresholds"]:
        area = area_of(card, float(threshold))
        if area is not None and area.low is not None and area.low <= GUESSING:
            shown = f"{area.value:.2f} [{area.low:.2f}, {area.high:.2f}]"
            unproven.append((f"{threshold_name(float(threshold))}: AUC {shown}", area.who))
    if not unproven:
        return ()
    told = "; ".join(text for text, _ in unproven)
    message = (
        f"In its tests, {card.name} was not shown to detect calcium in the radiograph better than chance ({told}; on "
        f"{unproven[0][1]}). Its probabilities reflect age, sex and body mass index, where these are given."
    )
    return (ScanWarning("image-not-proven", message),)
