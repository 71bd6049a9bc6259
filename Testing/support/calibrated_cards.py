"""Calibrations as they stand on a model's card."""

from CACScoringLib.models.cards import ModelCard, Training
from CACScoringLib.scoring.uncertainty import ScoreCalibration


def card_of(calibration: dict) -> ModelCard:
    """Return a card of the calcium map's model with a calibration."""
    training = Training("none", 0, {}, "")
    return ModelCard("map", "decomposition", "custom", {}, 1, training, {}, calibration, "Apache-2.0", "Tests only.")


def calibration_of(calibration: dict) -> ScoreCalibration:
    """Return the calibration that a card of the calcium map's model holds. Raises ModelError."""
    return card_of(calibration).calibration_as(ScoreCalibration)
