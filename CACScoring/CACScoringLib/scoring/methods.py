"""Scores of a scan by each method, and what completes them: masses without a threshold, intervals and categories."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

from ..core.ct import CTScan
from ..core.labels import MAIN_ARTERIES, Artery, NonCoronary, SiteMap
from ..record.features import Features
from ..record.findings import CalibratedOn, Categories, MassCalibration, Percentile
from .arteries import ArterySuggestion
from .evidence import LeftOut
from .lesions import Lesion, LesionSet
from .mass import CalciumMass, lesion_masses, summed
from .rules import ScoringRules
from .scores import ROUNDING, Score, arterial_age_years, cac_drs, risk_class, score_lesions, score_sites
from .uncertainty import Intervals

STATUSES = {
    "reviewed": "reviewed",
    "given": "labels given, not reviewed",
    "automatic": "automatic, not reviewed",
    "candidates": "UNREVIEWED candidates, not a calcium score",
}
"""Titles of a score's states: assigned to arteries by a person, labelled by nobody who is named, selected by the
networks' evidence, or not evaluated, so that candidates may be anything dense."""

CATEGORISED_BELOW = 1000.0
"""Automatic scores from here on have no category probabilities: too few calibration patients reach them."""

MAX_MEASURED = 300
"""Lesions of a method whose masses without a threshold are measured; a patient has some dozen."""


Spacing = tuple[float, float, float]
"""Distances of voxels along i, j and k, mm."""


@dataclass(frozen=True)
class MethodResult:
    """Scores by one method.

    Attributes:
        status: "reviewed", "given" (labels of nobody who is named), "automatic" or "candidates" (not evaluated).
        rules: Scoring rules.
        lesions: Lesions that count.
        total: Score of all lesions.
        arteries: Score of each artery, those without calcium included.
        suggestions: Suggested artery of each unreviewed lesion, in the order of the lesions.
        no_calcium: True if a reader reviewed the scan and labelled nothing.
        left_out: Candidates that an automatic clinical score leaves out.
        possible_stents: IDs of lesions that count but look like a stent.
        intervals: 90 % prediction intervals of the total ("total") and of arteries by their key; for a reviewed score
            the repeatability of a second scan. Empty if unknown.
        category_probabilities: Probability of each score category; empty if unknown, withheld or reviewed.
        withheld: True if the scan is out of the calibration range, so that intervals and categories are withheld.
        masses: Mass without a threshold, by lesion ID; None if not measured.
        calibrated_on: Reference scans that the intervals were calibrated on; None for digital patients.
        features: Features of the lesions; None if not measured.
    """

    status: str
    rules: ScoringRules
    lesions: LesionSet
    total: Score
    arteries: SiteMap[Artery, Score]
    suggestions: tuple[ArterySuggestion, ...] = ()
    no_calcium: bool = False
    left_out: LeftOut | None = None
    possible_stents: tuple[int, ...] = ()
    intervals: dict[str, Intervals] = field(default_factory=dict)
    category_probabilities: dict[str, float] = field(default_factory=dict)
    withheld: bool = False
    masses: dict[int, CalciumMass] | None = None
    calibrated_on: CalibratedOn | None = None
    features: Features | None = None

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

    Attributes:
        reviewed: True if a reader assigned its sites; else they are suggested by the territories.
        rules: Scoring rules.
        lesions: Lesions of these sites.
        scores: Score of each site, those without calcium included.
    """

    reviewed: bool
    rules: ScoringRules
    lesions: LesionSet
    scores: SiteMap[NonCoronary, Score]


def method_result(
    status: str,
    lesions: LesionSet,
    rules: ScoringRules,
    spacing_mm: tuple[float, float, float],
    suggestions: tuple[ArterySuggestion, ...] = (),
    left_out: LeftOut | None = None,
    no_calcium: bool = False,
) -> MethodResult:
    """Score the lesions of a method; arguments as the fields of `MethodResult`."""
    return MethodResult(
        status,
        rules,
        lesions,
        score_lesions(lesions.lesions, spacing_mm, rules),
        score_sites(lesions.lesions, spacing_mm, rules),
        suggestions,
        no_calcium,
        left_out,
    )


def mass_of(method: MethodResult, *arteries: Artery) -> CalciumMass:
    """Return the mass without a threshold of some arteries, or of all if none is named."""
    if method.masses is None:
        return CalciumMass()
    lesions = (lesion for lesion in method.lesions.lesions if not arteries or lesion.artery in arteries)
    return summed(method.masses[lesion.id] for lesion in lesions)


def with_masses(
    methods: Mapping[str, MethodResult],
    scan: CTScan,
    calibration: MassCalibration | None,
    non_coronary: NonCoronaryResult | None,
) -> dict[str, MethodResult]:
    """Measure the masses of lesions without a threshold.

    Calcium outside the arteries counts for no lesion near it. Lesions that have a mass keep it, so that a review states
    the masses of the run. Methods of more than MAX_MEASURED lesions, which are mostly noise, get none.

    Args:
        methods: Results by method.
        scan: The scan as scored.
        calibration: Mass calibration; None in results of earlier versions, which get no masses.
        non_coronary: Calcium outside the arteries; None if unknown.

    Returns:
        The results with their masses.
    """
    if calibration is None:
        return dict(methods)
    elsewhere = None if non_coronary is None else non_coronary.lesions.id_map > 0
    measured = dict(methods)
    for name, method in methods.items():
        if len(method.lesions.lesions) <= MAX_MEASURED:
            is_map = name == "decomposition"
            masses = lesion_masses(scan.hu, scan.image.GetSpacing(), method.lesions, calibration, elsewhere, is_map)
            recorded = {n: mass for n, mass in (method.masses or {}).items() if mass.integrated_mass_mg is not None}
            measured[name] = replace(method, masses=masses | recorded)
    return measured


def with_integrated_mass(method: MethodResult) -> MethodResult:
    """Replace the mass above the threshold by the integrated mass in the scores of a method; None if unmeasured.

    Called after `with_intervals`, whose errors of masses are those of the mass above the threshold.
    """
    arteries = {a: replace(s, mass_mg=mass_of(method, a).integrated_mass_mg) for a, s in method.arteries.items()}
    total = replace(method.total, mass_mg=mass_of(method).integrated_mass_mg)
    return replace(method, total=total, arteries=SiteMap(arteries))


def elsewhere_result(reviewed: bool, rules: ScoringRules, lesions: LesionSet, spacing_mm: Spacing) -> NonCoronaryResult:
    """Score the non-coronary lesions of a set, without mass: that above the threshold is another than the arteries'."""
    rules, elsewhere = replace(rules, calibration_mg_per_mm3_hu=None), lesions.non_coronary
    return NonCoronaryResult(reviewed, rules, elsewhere, score_sites(elsewhere.lesions, spacing_mm, rules, NonCoronary))


def categories_of(clinical: MethodResult, percentile: Percentile | None = None) -> Categories | None:
    """Return the published classes of a clinical score.

    Returns:
        The classes; None for unevaluated candidates, scores by other rules, and where they are withheld.
    """
    if clinical.status == "candidates" or clinical.withheld or not clinical.rules.is_clinical:
        return None
    agatston = clinical.total.agatston
    vessels = sum(clinical.arteries[artery].agatston > 0 for artery in MAIN_ARTERIES)
    return Categories(
        "threshold",
        clinical.status,
        risk_class(agatston),
        cac_drs(agatston, vessels),
        arterial_age_years(agatston),
        percentile,
        clinical.category_probabilities,
        clinical.probabilities_withheld,
        ROUNDING,
    )
