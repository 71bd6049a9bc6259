"""Data of a scan from its first step to its result.

Types of other rooms are named only, so that each of them can take a `ScanContext` and return it with more.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import SimpleITK as sitk

from .core.ct import CTScan, ScanWarning
from .core.labels import Artery, NonCoronary, SiteMap

if TYPE_CHECKING:
    from .anatomy.arteries import ArterySuggestion
    from .anatomy.heart_region import HeartRegion
    from .calcium_map.decomposition import Decomposition, SliceProbabilities
    from .models.choice import Networks
    from .pipeline import ScoreSettings
    from .quality.acquisition import BloodPool
    from .quality.calibration import CalibratedOn, Familiarity
    from .quality.mass_calibration import MassCalibration
    from .quality.normalisation import Normalisation
    from .scoring.evidence import LeftOut
    from .scoring.lesions import Lesion, LesionSet
    from .scoring.mass import CalciumMass
    from .scoring.reader_labels import ReaderLabels
    from .scoring.rules import ScoringRules
    from .scoring.scores import Percentile, Score
    from .scoring.uncertainty import Intervals
    from .whole_scan.estimates import WholeScanEstimate

STATUSES = {
    "reviewed": "reviewed",
    "automatic": "automatic, not reviewed",
    "candidates": "UNREVIEWED candidates, not a calcium score",
}
"""How a method's scores came about: by a person who assigned the lesions to arteries; by the networks' evidence of each
lesion; or not at all, so that they may be anything dense."""


CATEGORISED_BELOW = 1000.0
"""Automatic scores from here on have no category probabilities: too few calibration patients reach them."""


METHOD_TITLES = {"threshold": "Clinical rule (threshold)", "decomposition": "Calcium map (no threshold)"}
"""What to call the methods of a `ScoreResult`."""


AGATSTON_TITLES = {"threshold": "Agatston", "decomposition": "Adjusted Agatston"}
"""What to call what their rules add up to: without a threshold that is several times higher than clinical scores."""


CLINICAL_TITLES = {"threshold": "Agatston", "decomposition": "Agatston equivalent"}
"""What to call their scores on the clinical scale (`Score.clinical_agatston`)."""


@dataclass(frozen=True)
class MethodResult:
    """Scores by one method.

    Attributes:
        status: "reviewed", "automatic" or "candidates" (nobody and no network evaluated them).
        rules: Scoring rules.
        lesions: Lesions that count.
        total: Score of all lesions.
        arteries: Score of each artery, those without calcium included.
        suggestions: Suggested artery of each unreviewed lesion, in the order of the lesions.
        no_calcium: True if a reader reviewed the scan and labelled nothing.
        left_out: Candidates that an automatic clinical score leaves out.
        intervals: 90 % prediction intervals of the total ("total") and of arteries by their key; for a reviewed score
            the repeatability of a second scan. Empty if unknown.
        category_probabilities: Probability of each score category; empty if unknown, withheld or reviewed.
        withheld: True if the scan is out of the calibration range, so that intervals and categories are withheld.
        masses: Mass without a threshold, by lesion ID; None if not measured.
        calibrated_on: Reference scans that the intervals were calibrated on; None for digital patients.
    """

    status: str
    rules: ScoringRules
    lesions: LesionSet
    total: Score
    arteries: SiteMap[Artery, Score]
    suggestions: tuple[ArterySuggestion, ...] = ()
    no_calcium: bool = False
    left_out: LeftOut | None = None
    intervals: dict[str, Intervals] = field(default_factory=dict)
    category_probabilities: dict[str, float] = field(default_factory=dict)
    withheld: bool = False
    masses: dict[int, CalciumMass] | None = None
    calibrated_on: CalibratedOn | None = None

    @property
    def reviewed(self) -> bool:
        """True if a person assigned the lesions to arteries."""
        return self.status == "reviewed"

    @property
    def probabilities_withheld(self) -> bool:
        """True if the score has an interval but is too high for category probabilities (`CATEGORISED_BELOW`)."""
        return not self.reviewed and bool(self.intervals) and self.total.clinical_agatston >= CATEGORISED_BELOW

    @property
    def scaled_agatston(self) -> float | None:
        """Total of a calcium map on the clinical scale; None for the clinical rule."""
        return None if self.rules.equivalent_mg_per_mm3_hu is None else self.total.clinical_agatston

    def __repr__(self) -> str:
        return f"MethodResult({self.status}, agatston={self.total.clinical_agatston:.1f}, lesions={self.total.lesions})"

    def suggestion_of(self, lesion: Lesion) -> ArterySuggestion | None:
        """Return the suggestion for a lesion, None if it was reviewed."""
        return self._suggestion_by_id.get(lesion.id)

    @cached_property
    def _suggestion_by_id(self) -> dict[int, ArterySuggestion]:
        return {suggestion.lesion_id: suggestion for suggestion in self.suggestions}


@dataclass(frozen=True)
class NonCoronaryResult:
    """Calcium outside the coronary arteries, by the clinical rule.

    reviewed: whether a person gave it its sites; else they are suggested by the territories.
    """

    reviewed: bool
    rules: ScoringRules
    lesions: LesionSet
    scores: SiteMap[NonCoronary, Score]


@dataclass(frozen=True)
class Categories:
    """Published classes of the clinical Agatston score.

    status: of the score, "reviewed" or "automatic". probabilities: of the score's categories, "0", "1-99", "100-399"
    and "400+", as `MethodResult.category_probabilities`; probabilities_withheld: as there.
    """

    method: str
    status: str
    risk_class: str
    cac_drs: str
    arterial_age_years: float
    percentile: Percentile | None
    probabilities: dict[str, float] = field(default_factory=dict)
    probabilities_withheld: bool = False


@dataclass(frozen=True, kw_only=True)
class ScoreResult:
    """All that `score` finds out about a scan.

    methods: by name; "threshold" is the clinical rule, "decomposition" the scores of the calcium map.
    categories: of the clinical rule; None for candidates that nobody, neither network nor reader, has evaluated, and
    where they are withheld.
    familiarity: of the scan to the models; None if they hold no calibration range.
    territories: uint8 labels (`core.labels.TERRITORIES`) on the scan's grid; None when no network has found them.
    non_coronary: None when nobody, neither network nor reader, has separated such calcium from coronary calcium.
    networks, slices, decomposition: None when only the clinical rule was asked for, and of a review. recorded_models:
    of a review, the models of the run that it began with, as `report.files.models_as_json` gives them.
    slices_by_reader: as in `ScoreSettings.slices`.
    true_mass_mg: by artery, known of digital patients only.
    mass_calibration: what masses without a threshold are measured by; None of results of earlier versions.
    estimates: whole-scan estimates, of those asked for that gave one.
    normalisation: of the scan's kernel; None in results made before there was any. scored: the scan as it was scored,
    where it was normalised.
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
    recorded_models: tuple[dict[str, Any], ...] = ()

    def __repr__(self) -> str:
        return f"ScoreResult({self.scan!r}, {self.methods!r})"

    @property
    def scored_scan(self) -> CTScan:
        """The scan as it was scored, normalised or not."""
        return self.scored or self.scan


_LATER: Any = None
"""Default of what the first steps make."""


@dataclass(frozen=True, kw_only=True, repr=False)
class ScanContext(ScoreResult):
    """A result on its way through the steps of `pipeline.score_scan`: each takes it, and returns it with more.

    settings: The user's. rules: of the clinical score, for this scan. heart_mask: a mask of the heart that was given,
    on any grid; None where it has to be found. reader: a reader's labels; None where nobody has reviewed the lesions.
    """

    heart: HeartRegion = _LATER
    normalisation: Normalisation = _LATER
    mass_calibration: MassCalibration = _LATER
    settings: ScoreSettings
    rules: ScoringRules
    heart_mask: sitk.Image | None = None
    reader: ReaderLabels | None = None

    @property
    def noise_hu(self) -> float | None:
        return None if self.blood is None else self.blood.noise_hu

    def with_warnings(self, *warnings: ScanWarning) -> ScanContext:
        """The context with further warnings."""
        return replace(self, warnings=(*self.warnings, *warnings))

    def with_method(self, name: str, method: MethodResult) -> ScanContext:
        """The context with the scores by a method."""
        return replace(self, methods={**self.methods, name: method})
