"""Errors of scores in a scan, by the calibration that is stored with the model of the calcium map."""

from __future__ import annotations

import numpy as np

from ..core.ct import CTScan
from ..models.cards import ModelCard
from ..models.choice import with_verdicts
from ..quality.calibration import Repeatability, facts_of, map_cards
from ..record.findings import BloodPool, Familiarity
from ..record.score_record import ScoreRecord
from .uncertainty import ScanErrors, ScoreCalibration


def errors_in(
    card: ModelCard | None, scan: CTScan, blood: BloodPool | None, heart: np.ndarray, has_metal: bool
) -> ScanErrors:
    """Return the errors of scores in a scan.

    Args:
        card: Card of the calcium map's model; None for no errors.
        scan: The scan as scored.
        blood: Blood and noise; None if not measured.
        heart: Mask of the heart on the scan's grid.
        has_metal: True if there is metal among the arteries.

    Raises:
        CTError: The calibration does not match this version.
    """
    if card is None:
        return ScanErrors()
    facts, calibration_range = facts_of(scan, blood, heart), card.calibration_as(ScoreCalibration).known
    familiarity = None if calibration_range is None else calibration_range.familiarity(facts, has_metal)
    return stored_errors(card, familiarity)


def stored_errors(card: ModelCard, familiarity: Familiarity | None = None) -> ScanErrors:
    """Read the errors on the card of the calcium map's model. Raises CTError."""
    stored = card.calibration_as(ScoreCalibration)
    return ScanErrors(dict(stored.uncertainty), familiarity, stored.calibrated_on, card.repeatability_as(Repeatability))


def recorded_errors(record: ScoreRecord) -> ScanErrors:
    """Return the errors of a recorded result by the model that made its calcium map.

    There are none without that model, and none of automatic scores if it has been calibrated again since.
    Raises CTError.
    """
    cards = map_cards(record)
    if not cards:
        return ScanErrors(familiarity=record.familiarity)
    card = with_verdicts(cards[-1], record.model_hashes)
    errors = stored_errors(card, record.familiarity)
    if card.calibration.get("candidates") != record.candidate_evidence:
        errors.by_kind.pop("automatic", None)
    return errors
