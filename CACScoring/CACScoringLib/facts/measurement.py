"""Facts of a scan that its scores follow from, whatever counts as calcium. Measuring them takes the time."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from ..anatomy.heart_region import HeartRegion
from ..calcium_map.decomposition import DecomposedHeart
from ..core.ct import CTScan, ScanWarning
from ..quality.examination import ImageQuality
from ..record.findings import BloodPool, EpicardialFat, MassCalibration
from ..record.rules import ScoringRules
from ..record.score_record import InputRecord
from .dense import DenseAnswers


@dataclass(frozen=True)
class ScanFacts:
    """Facts of a scan that labels and scores follow from, whatever counts and however it is calibrated.

    Attributes:
        scan: The scan as scored.
        region: Heart and territories.
        rules: Rules of the clinical score.
        blood: Blood and noise; None if not measured.
        calibration: Mass calibration; None in results of earlier versions, which get no masses.
        answers: The lesion network's answers about everything dense; None where it was not asked.
    """

    scan: CTScan
    region: HeartRegion
    rules: ScoringRules = field(default_factory=ScoringRules)
    blood: BloodPool | None = None
    calibration: MassCalibration | None = None
    answers: DenseAnswers | None = None


@dataclass(frozen=True)
class Measurement:
    """All facts that the record of a score follows from, whatever counts as calcium.

    Attributes:
        scan: The scan as read.
        input: Record of the scan as read.
        facts: Facts of the scan as scored.
        quality: Quality and normalisation.
        decomposed: Calcium map; None without networks. Only the choice of its slices depends on verdicts: those of the
            calibration that the scan was measured with.
        fat: Epicardial fat; None without a whole pericardium.
        doubts: Doubts about the pericardium.
        known: True for known voxels of the CT, bool [k, j, i], of facts that were read; None for all.
    """

    scan: CTScan
    input: InputRecord
    facts: ScanFacts
    quality: ImageQuality
    decomposed: DecomposedHeart | None = None
    fat: EpicardialFat | None = None
    doubts: tuple[ScanWarning, ...] = ()
    known: np.ndarray | None = None
