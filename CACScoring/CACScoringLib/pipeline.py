"""The order of the steps from a CT to its scores; what each of them does is in the room of its subject."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import SimpleITK as sitk

from .anatomy.arteries import ArterySuggestion
from .anatomy.heart_region import HeartRegion
from .anatomy.heart_search import find_heart
from .anatomy.orientation import require_oriented
from .calcium_map.decomposition import (
    Decomposition,
    DecompositionSettings,
    SliceProbabilities,
    calibration_warnings,
    decompose,
    without,
)
from .core.ct import CTError, CTScan, ScanWarning
from .core.labels import Artery, NonCoronary
from .core.progress import Progress
from .quality.acquisition import BloodPool, examine, measure_blood, require_unenhanced
from .quality.artefacts import metal_lesions, metal_warning, noise_warning, without_metal
from .quality.calibration_range import METAL, CalibrationRange, Familiarity, facts_of
from .quality.normalisation import Normalisation, normalisation_of
from .results import (
    Categories,
    MethodResult,
    Networks,
    NonCoronaryResult,
    ScoreResult,
    categories_of,
    scored,
    unreviewed_warning,
    with_intervals,
    with_masses,
)
from .scoring import risk
from .scoring.evidence import Evidence, LeftOut, lesion_features, select_lesions
from .scoring.lesions import LesionSet, find_lesions
from .scoring.mass import MassCalibration, scan_calibration
from .scoring.rules import ScoringRules, ScoringSwitches, rules_for_tube_voltage
from .scoring.scores import rules_of_map, score_sites
from .scoring.sites import ReaderLabels, candidate_sites, outside_warning, reader_labels, suggested_arteries
from .scoring.uncertainty import ScanErrors

_LATER: Any = None
"""Default of what a later step makes."""


@dataclass(frozen=True)
class ScoreSettings(ScoringSwitches):
    """What the user may choose, beside the switches.

    candidates: leave nothing out of the candidates of the clinical rule, whatever the networks say of them.
    normalisation: whether the scan is brought to a soft kernel and slices of 3 mm before it is scored, of
    `normalisation.MODES`.
    sex ("F" or "M"), age_years: override what DICOM says; used for percentiles only.
    percentile_table: CSV of the user's reference population (see `risk.percentile_from_table`).
    decomposition: None for the settings stored with the models.
    slices: a reader's overrides of slices, counted from the feet: True, it is taken
    apart; False, the calcium map is empty there.
    calibration: of an insert in the scan, or of a digital patient; None for the rules' or the best that is known.
    mass_table: CSV of the user's mass calibrations (`mass_calibration.from_table`).
    """

    rules: ScoringRules = field(default_factory=ScoringRules)
    candidates: bool = False
    normalisation: str = "auto"
    sex: str | None = None
    age_years: int | None = None
    percentile_table: Path | None = None
    decomposition: DecompositionSettings | None = None
    slices: dict[int, bool] = field(default_factory=dict)
    calibration: MassCalibration | None = None
    mass_table: Path | None = None


@dataclass(frozen=True)
class ScanContext:
    """What is known of a scan on its way through STEPS; each step returns it with more.

    original: the CT as it was read. scan: as it is scored, normalised or not. heart: a given mask. reader: a reader's
    labels; None where nobody has reviewed the lesions. candidates: by the clinical rule, in arteries and elsewhere, as
    the reader labelled them or without metal. territories: on the scan's grid. Other fields as of `ScoreResult`.
    """

    original: CTScan
    settings: ScoreSettings
    rules: ScoringRules
    networks: Networks | None
    heart: sitk.Image | None
    reader: ReaderLabels | None
    warnings: tuple[ScanWarning, ...]
    scan: CTScan = _LATER
    normalisation: Normalisation = _LATER
    region: HeartRegion = _LATER
    calibration: MassCalibration = _LATER
    blood: BloodPool | None = None
    slices: SliceProbabilities | None = None
    decomposition: Decomposition | None = None
    territories: sitk.Image | None = None
    candidates: LesionSet = _LATER
    familiarity: Familiarity | None = None
    methods: dict[str, MethodResult] = field(default_factory=dict)
    non_coronary: NonCoronaryResult | None = None
    categories: Categories | None = None

    @property
    def noise_hu(self) -> float | None:
        return None if self.blood is None else self.blood.noise_hu

    def warned(self, *warnings: ScanWarning) -> ScanContext:
        """The context with further warnings."""
        return replace(self, warnings=(*self.warnings, *warnings))

    def with_method(self, name: str, method: MethodResult) -> ScanContext:
        return replace(self, methods={**self.methods, name: method})


def steps(networks: Networks | None) -> tuple[str, ...]:
    """Name the steps of `score_scan`.

    Returns:
        The names, in order, as its progress shows them.
    """
    return tuple(name for name in STEPS if networks or name != "decomposition")


def score_scan(
    scan: CTScan,
    settings: ScoreSettings = ScoreSettings(),
    heart: sitk.Image | None = None,
    lesions: sitk.Image | None = None,
    networks: Networks | None = None,
    progress: Progress | None = None,
) -> ScoreResult:
    """Score a CT by the clinical rule, and with networks without a threshold too.

    Args:
        scan: The CT.
        settings: How it is done.
        heart: Mask of the heart, on any grid; found when None.
        lesions: A reader's label map (`Site` values); of the arteries only what it labels is scored, and a map
            without any is a reviewed score of 0. The calcium map stays automatic. Calcium elsewhere is that which it
            labels, or if it labels none, what lies in the territories of valves and great vessels. When None, the
            candidates at or above the threshold that count by the networks' evidence (`scoring.evidence`) are
            reported in the arteries of their territories. Without that evidence all candidates are; without
            territories they are unassigned.
        networks: The networks; None for the clinical rule alone.
        progress: Is told of the steps.

    Raises:
        NoHeartError: No heart was found.
        ContrastError: The scan was made with contrast.
        OrientationError: The anatomy contradicts the orientation in the file's header.
        MaskError: The heart mask or the lesion labels do not fit the scan.
        CTError: The settings or the input cannot be used otherwise.
    """
    progress = progress or Progress()
    context = _begun(scan, settings, heart, lesions, networks)
    for name in steps(networks):
        with progress.step(name):
            for step in STEPS[name]:
                context = step(context)
    return _result(context)


def _begun(
    scan: CTScan,
    settings: ScoreSettings,
    heart: sitk.Image | None,
    lesions: sitk.Image | None,
    networks: Networks | None,
) -> ScanContext:
    """Check what is given. Arguments and errors as of `score_scan`."""
    if settings.slices and networks is None:
        raise CTError(
            "Slice overrides change the calcium map, which needs the networks. Install the networks, or leave "
            "the overrides out."
        )
    rules = settings.rules
    if settings.adapt_to_tube_voltage:
        rules = rules_for_tube_voltage(scan.acquisition.kvp, rules)
    reader = None if lesions is None else reader_labels(lesions, scan)
    return ScanContext(scan, settings, rules, networks, heart, reader, scan.warnings)


def _normalise(context: ScanContext) -> ScanContext:
    normalisation = normalisation_of(context.original, context.settings.normalisation)
    return replace(context, scan=normalisation.of(context.original), normalisation=normalisation)


def _locate_heart(context: ScanContext) -> ScanContext:
    networks = context.networks
    finders = (networks.heart, networks.territories) if networks else (None, None)
    region = find_heart(context.scan, context.heart, *finders)
    return replace(context, region=region).warned(*region.warnings)


def _calibrate_mass(context: ScanContext) -> ScanContext:
    """Choose the mass calibration; it belongs to the rules where it is the scanner's own."""
    settings, rules = context.settings, context.rules
    calibration = settings.calibration or scan_calibration(
        context.scan, context.region.mask, rules.calibration_mg_per_mm3_hu, settings.mass_table
    )
    if calibration.of_scanner:
        rules = replace(rules, calibration_mg_per_mm3_hu=calibration.mg_per_cm3_per_hu / 1000)
    return replace(context, calibration=calibration, rules=rules)


def _examine_acquisition(context: ScanContext) -> ScanContext:
    scan, mask, settings, normalisation = context.scan, context.region.mask, context.settings, context.normalisation
    blood = measure_blood(scan, mask)
    if normalisation.changes and (before := measure_blood(context.original, mask)):
        normalisation = replace(normalisation, noise_hu=before.noise_hu)
    warnings = [*normalisation.warnings(), *examine(scan, blood)]
    warnings += require_unenhanced(scan, blood, settings.allow_contrast)
    if blood is None or not blood.enhanced:  # enhanced vessels look like bone
        warnings += require_oriented(scan, mask, settings.allow_reversed)
    return replace(context, blood=blood, normalisation=normalisation).warned(*warnings)


def _decompose(context: ScanContext) -> ScanContext:
    networks, chosen = context.networks, context.settings.decomposition
    assert networks is not None
    settings = chosen or DecompositionSettings.of(networks.slices, networks.decomposition)
    models = networks.slices, networks.decomposition
    slices, parts = decompose(context.scan, context.region.mask, models, settings, context.settings.slices)
    context = replace(context, slices=slices, decomposition=parts).warned(*parts.warnings)
    if chosen is not None:
        return context
    heart = None if context.heart is not None else networks.heart
    others = {"slices": networks.slices, "heart": heart, "territories": networks.territories}
    return context.warned(*calibration_warnings(networks.decomposition, others))


def _find_candidates(context: ScanContext) -> ScanContext:
    """Find what is dense: in the territories and without metal, or where a reader labelled it. Streaks beside metal can
    count, whatever a reader labelled."""
    region, image, reader = context.region, context.scan.image, context.reader
    territories = None if region.territories is None else region.territories.labels(image)
    context = replace(context, territories=territories)
    found = _dense_lesions(context)
    candidates, doubts = without_metal(found, image)
    if context.networks and (known := CalibrationRange.stored(context.networks.decomposition.card.calibration)):
        has_metal = len(candidates.coronary.lesions) < len(found.coronary.lesions)
        familiarity = known.familiarity(facts_of(context.scan, context.blood, region.mask))
        familiarity = familiarity.flag(METAL) if has_metal else familiarity
        context = replace(context, familiarity=familiarity).warned(*familiarity.warnings)
    if reader is not None:
        candidates = find_lesions(image, reader.sites, context.rules)
        doubts = [*reader.warnings, *doubts, *outside_warning(candidates.coronary, region.mask)]
        doubts += metal_warning(candidates, metal_lesions(candidates, image))
    return replace(context, candidates=candidates).warned(*doubts)


def _dense_lesions(context: ScanContext, unlabelled: bool = False) -> LesionSet:
    """By the clinical rule, where the territories or the heart say. unlabelled: no coronary ones, and only what a
    reader left."""
    dense = context.scan.hu >= context.rules.threshold_hu
    if unlabelled and context.reader is not None:
        dense &= context.reader.sites == 0
    sites = candidate_sites(context.region, context.territories, dense)
    if unlabelled:
        sites[sites <= max(Artery)] = 0
    return find_lesions(context.scan.image, sites, context.rules)


def _score_candidates(context: ScanContext) -> ScanContext:
    """Score the coronary candidates: those that a reader labelled, those that count by their evidence, or all where
    there is none, or no territories to name arteries by."""
    found, rules, region = context.candidates.coronary, context.rules, context.region
    spacing = context.scan.image.GetSpacing()
    if context.reader is not None:
        method = scored("reviewed", found, rules, spacing, no_calcium=context.reader.no_calcium)
        return context.with_method("threshold", method)
    evidence = None
    if context.networks and not context.settings.candidates and region.territories is not None:
        evidence = Evidence.stored(context.networks.decomposition.card.calibration)
    if evidence is None:
        suggestions = tuple(suggested_arteries(found, context.scan, region))
        method = scored("candidates", found, rules, spacing, suggestions=suggestions)
    else:
        found, suggestions, left_out = _selected(context, found, evidence)
        method = scored("automatic", found, rules, spacing, suggestions=suggestions, left_out=left_out)
    context = context.with_method("threshold", method)
    context = context.warned(
        *noise_warning(method.lesions, context.blood), unreviewed_warning(method, region.territories is not None)
    )
    if context.settings.percentile_table is None:
        return context
    message = "Percentiles are reported for reviewed scores only. Review the lesions and score again with --lesions."
    return context.warned(ScanWarning("percentile-unreviewed", message))


def _score_map(context: ScanContext) -> ScanContext:
    """Score the lesions of the calcium map that count, and leave no others in it.

    A reader's labels of lesions in the CT end at the threshold of the clinical rule, so they do not review the map.
    """
    scan, parts = context.scan, context.decomposition
    if parts is None:
        return context
    rules = rules_of_map(context.rules, parts.settings.floor_hu, scan.acquisition.kvp)
    dense = sitk.GetArrayViewFromImage(parts.calcium_map) >= rules.threshold_hu
    sites = candidate_sites(context.region, context.territories, dense)
    found = find_lesions(parts.calcium_map, sites, rules, peaks=scan.image)
    calcium, warnings = without_metal(found, scan.image)
    # Metal in the map mostly is a candidate by the clinical rule, too.
    codes = {warning.code for warning in context.warnings}
    warnings = [warning for warning in warnings if warning.code not in codes]
    evidence = Evidence(parts.settings.evidence_weights, None, parts.settings.most_not_coronary)
    lesions, suggestions, left_out = _selected(context, calcium.coronary, evidence)
    if len(lesions.lesions) < len(found.lesions):
        parts = without(parts, (found.id_map > 0) & (lesions.id_map == 0))
    if count := len(left_out.suggestions):
        counted = "1 lesion of the calcium map was" if count == 1 else f"{count} lesions of the calcium map were"
        message = f"{counted} left out, as probably noise or not coronary calcium."
        warnings.append(ScanWarning("map-left-out", message))
    method = scored("automatic", lesions, rules, scan.image.GetSpacing(), suggestions=suggestions)
    return replace(context, decomposition=parts).with_method("decomposition", method).warned(*warnings)


def _selected(
    context: ScanContext, found: LesionSet, evidence: Evidence
) -> tuple[LesionSet, tuple[ArterySuggestion, ...], LeftOut]:
    """The lesions that count by their evidence, of either method."""
    slices, parts = context.slices, context.decomposition
    assert slices is not None
    assert parts is not None
    suggestions = suggested_arteries(found, context.scan, context.region)
    features = lesion_features(found, suggestions, parts.calcium_map, slices.on_scan, context.noise_hu)
    return select_lesions(found, features, suggestions, evidence)


def _score_elsewhere(context: ScanContext) -> ScanContext:
    """Score calcium outside the coronary arteries as a reader labelled it, else where the territories say."""
    by_reader = context.reader is not None and context.reader.has_elsewhere
    if context.territories is None and not by_reader:
        return context
    found, scan = context.candidates, context.scan
    if context.reader is not None and not by_reader:
        found, _ = without_metal(_dense_lesions(context, unlabelled=True), scan.image)
    elsewhere = found.non_coronary
    scores = score_sites(elsewhere.lesions, scan.image.GetSpacing(), context.rules, NonCoronary)
    return replace(context, non_coronary=NonCoronaryResult(by_reader, context.rules, elsewhere, scores))


def _add_intervals(context: ScanContext) -> ScanContext:
    if context.networks is None:
        return context
    thickness = context.scan.acquisition.slice_thickness_mm
    errors = ScanErrors.stored(context.networks.decomposition.card, context.noise_hu, thickness, context.familiarity)
    methods = {name: with_intervals(name, method, errors) for name, method in context.methods.items()}
    return replace(context, methods=methods)


def _classify(context: ScanContext) -> ScanContext:
    """Give the clinical score its published classes, and a reviewed one its percentile."""
    settings, person, score = context.settings, context.original.acquisition, context.methods["threshold"]
    percentile = None
    if settings.percentile_table is not None and score.reviewed:
        sex = settings.sex or person.patient_sex
        age = settings.age_years if settings.age_years is not None else person.patient_age_years
        if sex is None or age is None:
            raise CTError("Percentiles need sex and age_years in --settings, as the scan's header does not state them.")
        percentile = risk.percentile_from_table(score.total.agatston, sex, age, settings.percentile_table)
    return replace(context, categories=categories_of(score, percentile))


def _result(context: ScanContext) -> ScoreResult:
    result = ScoreResult(
        scan=context.original,
        heart=context.region,
        blood=context.blood,
        methods=context.methods,
        categories=context.categories,
        warnings=context.warnings,
        territories=context.territories,
        non_coronary=context.non_coronary,
        networks=context.networks,
        slices=context.slices,
        decomposition=context.decomposition,
        slices_by_reader=context.settings.slices,
        familiarity=context.familiarity,
        normalisation=context.normalisation,
        scored=context.scan if context.normalisation.changes else None,
        mass_calibration=context.calibration,
    )
    return with_masses(result)


STEPS: dict[str, tuple[Callable[[ScanContext], ScanContext], ...]] = {
    "heart": (_normalise, _locate_heart),
    "acquisition": (_calibrate_mass, _examine_acquisition),
    "decomposition": (_decompose,),
    "lesions": (_find_candidates, _score_candidates, _score_map),
    "scores": (_score_elsewhere, _add_intervals, _classify),
}
"""The steps, by the names that the progress shows."""
