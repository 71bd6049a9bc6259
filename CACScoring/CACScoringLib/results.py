"""What scoring a CT gives: the scores of each method, and all that they were made from."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import SimpleITK as sitk

from .anatomy.arteries import ArterySuggestion
from .anatomy.heart_region import HeartRegion
from .calcium_map.decomposition import Decomposition, SliceProbabilities
from .core.ct import CTScan, ScanWarning
from .core.labels import MAIN_ARTERIES, Artery, NonCoronary
from .quality.acquisition import BloodPool
from .quality.calibration_range import Familiarity
from .quality.normalisation import Normalisation
from .scoring import scores
from .scoring.evidence import LeftOut
from .scoring.lesions import Lesion, LesionSet, ScoringRules
from .scoring.mass import CalciumMass, MassCalibration, lesion_masses, summed
from .scoring.scores import Score, score_lesions, score_sites
from .scoring.uncertainty import CATEGORISED_BELOW, CalibratedOn, Intervals, ScanErrors

if TYPE_CHECKING:
    from .models.cards import LoadedModel
    from .whole_scan.estimates import WholeScanEstimate


STATUSES = {
    "reviewed": "reviewed",
    "automatic": "automatic, not reviewed",
    "candidates": "UNREVIEWED candidates, not a calcium score",
}
"""How a method's scores came about: by a person who assigned the lesions to arteries; by the networks' evidence of each
lesion; or not at all, so that they may be anything dense."""


METHOD_TITLES = {"threshold": "Clinical rule (threshold)", "decomposition": "Calcium map (no threshold)"}
"""What to call the methods of a `ScoreResult`."""


AGATSTON_TITLES = {"threshold": "Agatston", "decomposition": "Adjusted Agatston"}
"""What to call what their rules add up to: without a threshold that is several times higher than clinical scores."""


CLINICAL_TITLES = {"threshold": "Agatston", "decomposition": "Agatston equivalent"}
"""What to call their scores on the clinical scale (`Score.clinical_agatston`)."""


MOST_MEASURED = 300
"""Lesions of a method whose masses without a threshold are measured; a patient has some dozen."""


@dataclass(frozen=True)
class Networks:
    """The networks that score without a threshold.

    territories, heart: None where there is no such model. The heart is that of the territories' network, unless there
    is a model that finds hearts alone; without either it is the region between the lungs.
    """

    heart: LoadedModel | None
    slices: LoadedModel
    decomposition: LoadedModel
    territories: LoadedModel | None = None


@dataclass(frozen=True)
class MethodResult:
    """Scores by one method.

    status: key of STATUSES.
    left_out: of an automatic clinical score, the candidates that do not count.
    intervals: where the true scores lie nine times of ten, or those of a second scan if it was reviewed, of the total
    (`uncertainty.TOTAL`) and of arteries by their key; empty where unknown. category_probabilities: of
    `uncertainty.CATEGORIES`, by the total; empty where unknown or withheld, and of reviewed scores.
    withheld: whether intervals and categories of an automatic score are, because the scan is out of the calibration
    range (`quality.calibration_range`). calibrated_on: whose errors the intervals are made of; None for digital
    patients.
    suggestions: of the artery of each lesion that nobody has reviewed, in the lesions' order.
    no_calcium: whether it was reviewed and the reader labelled nothing at all: there is no coronary calcium.
    masses: without a threshold, by the lesions' ids; None where they were not measured (`with_masses`).
    """

    status: str
    rules: ScoringRules
    lesions: LesionSet
    total: Score
    arteries: dict[Artery, Score]
    suggestions: tuple[ArterySuggestion, ...] = ()
    no_calcium: bool = False
    left_out: LeftOut | None = None
    intervals: dict[str, Intervals] = field(default_factory=dict)
    category_probabilities: dict[str, float] = field(default_factory=dict)
    withheld: bool = False
    masses: dict[int, CalciumMass] | None = None
    calibrated_on: CalibratedOn | None = None

    def mass_of(self, *arteries: Artery) -> CalciumMass:
        """Mass without a threshold of arteries, of all together when none is named."""
        if self.masses is None:
            return CalciumMass()
        own = (lesion for lesion in self.lesions.lesions if not arteries or lesion.artery in arteries)
        return summed(self.masses[lesion.id] for lesion in own)

    @property
    def reviewed(self) -> bool:
        """Whether a person assigned the lesions to arteries."""
        return self.status == "reviewed"

    @property
    def probabilities_withheld(self) -> bool:
        """True if the score has an interval but is too high for category probabilities (`CATEGORISED_BELOW`)."""
        return not self.reviewed and bool(self.intervals) and self.total.clinical_agatston >= CATEGORISED_BELOW

    @property
    def scaled_agatston(self) -> float | None:
        """Of a calcium map, the total on the scale of clinical scores; None of the clinical rule itself."""
        return None if self.rules.equivalent_mg_per_mm3_hu is None else self.total.clinical_agatston

    def suggestion_of(self, lesion: Lesion) -> ArterySuggestion | None:
        """The suggestion for a lesion, None when it was reviewed."""
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
    scores: dict[NonCoronary, Score]


@dataclass(frozen=True)
class Categories:
    """What the Agatston score of the clinical rule means in published classes.

    status: of the score, "reviewed" or "automatic". probabilities: of the score's categories, "0", "1-99", "100-399"
    and "400+", as `MethodResult.category_probabilities`; probabilities_withheld: as there.
    """

    method: str
    status: str
    risk_class: str
    cac_drs: str
    arterial_age_years: float
    percentile: scores.Percentile | None
    probabilities: dict[str, float] = field(default_factory=dict)
    probabilities_withheld: bool = False


@dataclass(frozen=True)
class ScoreResult:
    """All that `score` finds out about a scan.

    methods: by name; "threshold" is the clinical rule, "decomposition" the scores of the calcium map.
    categories: of the clinical rule; None for candidates that nobody, neither network nor reader, has evaluated, and
    where they are withheld.
    familiarity: of the scan to the models; None when they hold nothing to tell it by.
    territories: uint8 labels (`core.labels.TERRITORIES`) on the scan's grid; None when no network has found them.
    non_coronary: None when nobody, neither network nor reader, has told such calcium from coronary calcium.
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
    blood: BloodPool | None
    methods: dict[str, MethodResult]
    categories: Categories | None
    warnings: tuple[ScanWarning, ...]
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
    recorded_models: tuple[dict, ...] = ()

    @property
    def scored_scan(self) -> CTScan:
        """The scan as it was scored, normalised or not."""
        return self.scored or self.scan


def scored(
    status: str, lesions: LesionSet, rules: ScoringRules, spacing_mm: tuple[float, float, float], **more: Any
) -> MethodResult:
    """Score the lesions of a method. more: further fields of `MethodResult`."""
    total = score_lesions(lesions.lesions, spacing_mm, rules)
    return MethodResult(status, rules, lesions, total, score_sites(lesions.lesions, spacing_mm, rules), **more)


def unreviewed_warning(method: MethodResult, has_territories: bool) -> ScanWarning:
    """The doubt about a clinical score that nobody has reviewed."""
    if method.left_out is not None:
        count, others = len(method.lesions.lesions), len(method.left_out.lesions.lesions)
        if not count + others:
            message = "The clinical score is automatic: there are no candidates. Nobody has reviewed the scan."
            return ScanWarning("automatic", message)
        message = (
            f"The clinical score is automatic: of {count + others} candidates, {count} count, by the networks' "
            "evidence. Nobody has reviewed them. Review them in 3D Slicer or the browser; or correct their labels in "
            f"lesions.nii.gz, where those left out are labelled {int(Artery.UNASSIGNED)}, and score again with "
            "--lesions."
        )
        return ScanWarning("automatic", message)
    where = "inside the heart region: coronary and valve calcium, the aorta, and noise."
    if has_territories:
        where = "in the territories of the coronary arteries, noise included, each in the artery of its territory."
    message = (
        f"These candidates have not been reviewed. They include everything dense {where} Review them in 3D "
        "Slicer or the browser; or correct their labels in lesions.nii.gz and score again with --lesions."
    )
    return ScanWarning("unreviewed", message)


def with_masses(result: ScoreResult) -> ScoreResult:
    """The result with the masses of its lesions without a threshold; not where there are so many that they are noise.
    Calcium outside the arteries counts for no lesion near it."""
    calibration, elsewhere = result.mass_calibration, result.non_coronary
    if calibration is None:
        return result
    others = None if elsewhere is None else elsewhere.lesions.id_map > 0
    scan = result.scored_scan
    hu, spacing = scan.hu, scan.image.GetSpacing()
    methods = dict(result.methods)
    for name, method in result.methods.items():
        if len(method.lesions.lesions) <= MOST_MEASURED:
            of_map = name == "decomposition"
            masses = lesion_masses(hu, spacing, method.lesions, calibration, others, of_map)
            methods[name] = replace(method, masses=masses)
    return replace(result, methods=methods)


def with_intervals(name: str, result: MethodResult, errors: ScanErrors) -> MethodResult:
    """The result of a method with the intervals of its scores, and the category probabilities of an automatic one.

    Both need the errors of such scores; those of a calcium map are known as long as nobody has reviewed it. Of an
    automatic score in a scan beyond what the models know they are withheld.
    """
    arteries = {artery.key: result.arteries[artery] for artery in MAIN_ARTERIES}
    if result.reviewed:
        return replace(result, intervals=errors.of_reviewed(result.total, arteries) if name == "threshold" else {})
    if errors.withholds and result.status == "automatic":
        return replace(result, withheld=True)
    uncertainty = errors.known.get(result.status if name == "threshold" else "decomposition")
    if uncertainty is None or (name == "decomposition" and result.scaled_agatston is None):
        return result
    intervals = uncertainty.intervals(result.total, arteries, *errors.facts)
    result = replace(result, intervals=intervals, calibrated_on=errors.calibrated_on)
    if result.probabilities_withheld:
        return result
    return replace(result, category_probabilities=uncertainty.probabilities(result.total))


def categories_of(threshold: MethodResult, percentile: scores.Percentile | None = None) -> Categories | None:
    """The published classes of a score by the clinical rule; None of candidates that nothing evaluated, and where they
    are withheld."""
    if threshold.status == "candidates" or threshold.withheld:
        return None
    agatston = threshold.total.agatston
    vessels = sum(threshold.arteries[a].agatston > 0 for a in MAIN_ARTERIES)
    classes = (scores.risk_class(agatston), scores.cac_drs(agatston, vessels), scores.arterial_age_years(agatston))
    probabilities = threshold.category_probabilities, threshold.probabilities_withheld
    return Categories("threshold", threshold.status, *classes, percentile, *probabilities)
