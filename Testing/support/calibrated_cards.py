"""Calibrations and repeatability as they stand on a model's card."""

from CACScoringLib.models.cards import ModelCard, Training
from CACScoringLib.quality.calibration import Repeatability
from CACScoringLib.scoring.uncertainty import ScoreCalibration


def card_of(calibration: dict, repeatability: dict | None = None) -> ModelCard:
    """Return a card of the calcium map's model with a calibration and a repeatability."""
    facts = ("map", "decomposition", "custom", {}, 1, Training("none", 0, {}, ""), {}, calibration)
    return ModelCard(*facts, "Apache-2.0", "Tests only.", repeatability=repeatability)


def calibration_of(calibration: dict) -> ScoreCalibration:
    """Return the calibration that a card of the calcium map's model holds. Raises ModelError."""
    return card_of(calibration).calibration_as(ScoreCalibration)


def repeatability_of(content: dict) -> Repeatability | None:
    """Return the repeatability that such a card holds. Raises ModelError."""
    return card_of({}, content).repeatability_as(Repeatability)
