"""Result of scoring a scan."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import SimpleITK as sitk

from .core.ct import CTScan, ScanWarning
from .core.labels import Artery

if TYPE_CHECKING:
    from .anatomy.heart_region import HeartRegion
    from .calcium_map.decomposition import Decomposition, SliceProbabilities
    from .models.choice import Networks
    from .record.findings import BloodPool, Categories, EpicardialFat, Familiarity, MassCalibration, Normalisation
    from .record.provenance import Provenance
    from .record.review_record import ReviewRecord
    from .record.score_record import ModelRecord
    from .scoring.methods import MethodResult, NonCoronaryResult
    from .whole_scan.estimates import WholeScanEstimate

METHOD_TITLES = {"threshold": "Clinical rule (threshold)", "decomposition": "Calcium map (no threshold)"}
"""Titles of the methods of a `ScoreResult`."""

AGATSTON_TITLES = {"threshold": "Agatston", "decomposition": "Adjusted Agatston"}
"""Titles of the sums by the methods' rules; without a threshold they are several times higher than clinical scores."""

CLINICAL_TITLES = {"threshold": "Agatston", "decomposition": "Agatston equivalent"}
"""Titles of the methods' scores on the clinical scale (`Score.clinical_agatston`)."""


@dataclass(frozen=True)
class ScoreResult:
    """Result of scoring a scan.

    Attributes:
        scan: The scan as read.
        heart: The heart that was scored.
        blood: Blood and noise; None if they could not be measured.
        methods: Scores by method; "threshold" is the clinical rule, "decomposition" the calcium map.
        categories: Classes of the clinical score; None for candidates that neither network nor reader evaluated, and
            where they are withheld.
        warnings: Warnings of all steps.
        territories: Labels of the territories (`core.labels.TERRITORIES`), uint8 on the scan's grid; None if no network
            found them.
        non_coronary: Calcium outside the arteries; None if neither network nor reader separated it.
        networks: Networks; None for the clinical rule alone, and in a review.
        slices: Answers of the slice classifier; None without networks, and in a review.
        decomposition: Calcium map; None without networks, and in a review.
        slices_by_reader: A reader's overrides of slices (`ScoreSettings.slices`).
        true_mass_mg: Mass of calcium by artery, known of digital patients only.
        estimates: Whole-scan estimates that were asked for and succeeded.
        familiarity: Distance of the scan from the calibration range; None if the models hold none.
        normalisation: Normalisation of the scan; None in results of earlier versions.
        scored: The scan as scored; None if it was not normalised.
        mass_calibration: Calibration of masses without a threshold; None in results of earlier versions.
        epicardial_fat: Fat within the pericardium; None without a whole pericardium.
        recorded_models: Models of the run that a review began with.
        provenance: Program, command and hashes that the result follows from; None of steps run alone.
        review: Who confirmed it; None without a review.
    """

    scan: CTScan
    heart: HeartRegion
    blood: BloodPool | None = None
    methods: dict[str, MethodResult] = field(default_factory=dict)
    categories: Categories | None = None
    warnings: tuple[ScanWarning, ...] = ()
    territories: sitk.Image | None = None
    non_coronary: NonCoronaryResult | None = None
    networks: Networks | None = None
    slices: SliceProbabilities | None = None
    decomposition: Decomposition | None = None
    slices_by_reader: dict[int, bool] = field(default_factory=dict)
    true_mass_mg: dict[Artery, float] | None = None
    estimates: tuple[WholeScanEstimate, ...] = ()
    familiarity: Familiarity | None = None
    normalisation: Normalisation | None = None
    scored: CTScan | None = None
    mass_calibration: MassCalibration | None = None
    epicardial_fat: EpicardialFat | None = None
    recorded_models: tuple[ModelRecord, ...] = ()
    provenance: Provenance | None = None
    review: ReviewRecord | None = None

    def __repr__(self) -> str:
        return f"ScoreResult({self.scan!r}, {self.methods!r})"

    @property
    def scored_scan(self) -> CTScan:
        """The scan as it was scored, normalised or not."""
        return self.scored or self.scan
