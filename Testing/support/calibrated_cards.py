"""Calibrations as they stand on a model's card."""

from CACScoringLib.models.cards import ModelCard, Training
from CACScoringLib.scoring.uncertainty import ScoreCalibration


def calibration_of(calibration: dict) -> ScoreCalibration:
    """Return the calibration that a card of the calcium map's model holds. Raises ModelError."""
    training = Training("none", 0, {}, "")
    card = ModelCard("map", "decomposition", "custom", {}, 1, training, {}, calibration, "Apache-2.0", "Tests only.")
    return card.calibration_as(ScoreCalibration)
