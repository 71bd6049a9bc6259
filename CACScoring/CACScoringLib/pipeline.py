"""Scoring of a CT: the order of its steps, each of which takes what it needs and returns its own result."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk

from .anatomy.courses import artery_courses
from .anatomy.heart_region import HeartRegion, measure_epicardial_fat
from .anatomy.heart_search import locate_heart
from .calcium_map.decomposition import DecomposedHeart, DecompositionSettings, decompose_heart, on_scan_slices
from .core.acquisition import key_fault, with_pseudonym
from .core.ct import CTScan, ScanWarning
from .core.decoding import content_of
from .core.errors import CTError
from .core.header_ranges import AGE, KVP
from .core.labels import TERRITORIES
from .core.progress import Progress
from .facts.measurement import Measurement, ScanFacts
from .models.choice import Networks
from .models.operating_points import published_limit
from .quality.examination import examine_quality
from .quality.mass_calibration import scan_calibration
from .quality.normalisation import normalisation_of, normalised
from .record.findings import MassCalibration
from .record.rules import ScoringRules, ScoringSwitches, rules_for_tube_voltage
from .record.score_record import HeartRecord, InputRecord, ScoreRecord
from .record.scores import MethodScore
from .results import ScoreResult
from .scoring.doubt import doubts_about
from .scoring.judge import (
    coronary_slices,
    dense_answers,
    device_warning,
    errors_in,
    has_coronary_device,
    verdict_calibration,
    verdicts,
)
from .scoring.label_arteries import artery_warnings, by_territory
from .scoring.labels import (
    ReaderLabels,
    candidate_labels,
    labels_of_reader,
    map_labels,
    reader_labels,
    unlabelled_warning,
)
from .scoring.ostium import ostium_warning
from .scoring.score import root_at_ostia, score
from .scoring.scores import categories_of, percentile_of
from .scoring.uncertainty import VerdictCalibration


@dataclass(frozen=True)
class ScoreSettings(ScoringSwitches):
    """Settings of scoring beside the switches.

    Attributes:
        rules: Rules of the clinical score.
        candidates: List every candidate of the clinical rule, whatever the networks answer.
        normalisation: One of `normalisation.MODES`: whether the scan is brought to a soft kernel and slices of 3 mm
            before it is scored.
        kvp: Tube voltage, kV; overrides the scan's header.
        sex: "F" or "M", overrides the scan's header; used for percentiles only.
        age_years: Age in years, overrides the scan's header; used for percentiles only.
        percentile_table: CSV of the user's reference population (`scores.percentile_from_table`).
        decomposition: Settings of the calcium map; None for those stored with the models.
        slices: A reader's overrides of slices, counted from the feet: True to decompose the slice, False to leave its
            map empty.
        without_completion: Leave out what the calcium map misses of lesions that count by the clinical rule.
        calibration: Mass calibration of an insert in the scan or of a digital patient; None for that of the rules, or
            the best one known.
        mass_table: CSV of the user's mass calibrations (`mass_calibration.from_table`).
        arteries_by_territory: Assign a reader's coronary lesions to arteries by the network's territories, whatever
            artery they are labelled.
    """

    rules: ScoringRules = field(default_factory=ScoringRules)
    candidates: bool = False
    normalisation: str = "auto"
    kvp: float | None = None
    sex: str | None = None
    age_years: int | None = None
    percentile_table: Path | None = None
    decomposition: DecompositionSettings | None = None
    slices: dict[int, bool] = field(default_factory=dict)
    without_completion: bool = False
    calibration: MassCalibration | None = None
    mass_table: Path | None = None
    arteries_by_territory: bool = False

    def __post_init__(self) -> None:
        if self.sex not in ("F", "M", None):
            raise CTError(f"The setting sex is {self.sex!r}. Write F or M, or leave it out.")
        if self.age_years is not None and not AGE.holds(self.age_years):
            raise CTError(f"The setting age_years is {self.age_years}. Give an age from {AGE}.")
        if self.kvp is not None and not KVP.holds(self.kvp):
            raise CTError(f"The tube voltage is {self.kvp:g} kV. Give {KVP}, such as 120.")


def steps(networks: Networks | None) -> tuple[str, ...]:
    """Name the steps of `score_scan`.

    Returns:
        The names in order, as its progress shows them.
    """
    return ("heart", "acquisition", "lesions", *(("decomposition",) if networks else ()), "scores")


def score_scan(
    scan: CTScan,
    settings: ScoreSettings = ScoreSettings(),
    heart: sitk.Image | None = None,
    lesions: sitk.Image | None = None,
    networks: Networks | None = None,
    progress: Progress | None = None,
    pericardium: sitk.Image | None = None,
    status: str = "reviewed",
) -> ScoreResult:
    """Score a CT by the clinical rule, and with networks without a threshold too.

    Args:
        scan: The CT.
        settings: Settings of scoring.
        heart: Mask of the heart, on any grid; None to search for it.
        lesions: A reader's label map (`Site` values); of the arteries only what it labels is scored, and a map
            without any is a reviewed score of 0. The calcium map stays automatic. Calcium elsewhere is that which it
            labels, or if it labels none, what lies in the territories of valves and great vessels. When None, the
            lesions at or above the threshold that count by their verdicts (`scoring.judge.verdicts`) are
            reported in their arteries. Without that network all candidates are; without territories they are
            unassigned.
        networks: The networks; None for the clinical rule alone.
        progress: Shows the steps.
        pericardium: Mask of all within the pericardium, on any grid, for epicardial fat; None for the outline of the
            networks.
        status: Status of a score of `lesions`: "reviewed", or "given" or "automatic" if no person vouches for them.

    Raises:
        NoHeartError: No heart was found.
        ContrastError: The scan was made with contrast.
        OrientationError: The anatomy contradicts the orientation in the file's header.
        MaskError: The heart mask or the lesion labels do not fit the scan.
        CTError: The settings or the input cannot be used otherwise.
    """
    if settings.slices and networks is None:
        raise CTError(
            "Slice overrides change the calcium map, which needs the networks. Install the networks, or leave "
            "the overrides out."
        )
    progress = progress or Progress()
    if settings.kvp is not None:
        scan = scan.stating(acquisition=replace(scan.acquisition, kvp=settings.kvp))
    rules = settings.rules
    if settings.adapt_to_tube_voltage:
        rules = rules_for_tube_voltage(scan.acquisition, rules)
    reader = None if lesions is None else reader_labels(lesions, scan, rules, settings.arteries_by_territory)
    calibration = verdict_calibration(networks, settings.decomposition)
    measurement = measure(scan, settings, rules, heart, networks, calibration, progress, pericardium, reader)
    with progress.step("scores"):
        return score_measurement(measurement, settings, networks, calibration, reader, status)


def measure(
    scan: CTScan,
    settings: ScoreSettings,
    rules: ScoringRules,
    heart: sitk.Image | None,
    networks: Networks | None,
    calibration: VerdictCalibration,
    progress: Progress,
    pericardium: sitk.Image | None = None,
    reader: ReaderLabels | None = None,
) -> Measurement:
    """Measure what scores follow from. Other arguments and errors as of `score_scan`.

    rules: Rules for the tube voltage of the scan. calibration: Calibration of the verdicts by which slices of the
    calcium map are chosen; without one of lesions, the lesion network is not asked. reader: A reader's labels, which
    locate the heart.
    """
    with progress.step("heart"):
        normalisation = normalisation_of(scan, settings.normalisation)
        scored = normalised(scan, normalisation)
        region = locate_heart(scored, heart, networks, None if reader is None else reader.sites, pericardium)
        fat, doubts = measure_epicardial_fat(scored, region.pericardium, region.pericardium_source)
    with progress.step("acquisition"):
        given_calibration = rules.calibration_mg_per_mm3_hu, settings.mass_table
        of_mass = settings.calibration or scan_calibration(scored, region.mask, *given_calibration)
        rules = rules.with_mass_calibration(of_mass)
        allowed = settings.allow_contrast, settings.allow_reversed
        quality = examine_quality(scan, scored, region, normalisation, rules.threshold_hu, *allowed)
    with progress.step("lesions"):
        network = None if networks is None or calibration.lesions is None else networks.lesions
        answers = None
        if network is not None and region.territories is not None:
            answers = dense_answers(scored, region, rules, quality.noise_hu, network)
        facts = ScanFacts(scored, region, rules, quality.blood, of_mass, answers)
        automatic = verdicts(facts, calibration)
        judged = None if automatic is None else automatic.judged
    decomposed = None
    if networks is not None:
        with progress.step("decomposition"):
            choices = settings.decomposition, settings.slices, () if judged is None else coronary_slices(judged)
            decomposed = decompose_heart(scored, region.mask, networks, *choices)
            if settings.without_completion:
                map_settings = replace(decomposed.parts.settings, without_completion=True)
                decomposed = replace(decomposed, parts=replace(decomposed.parts, settings=map_settings))
    return Measurement(scan, InputRecord.of(scan), facts, quality, decomposed, fat, tuple(doubts))


def score_measurement(
    measurement: Measurement,
    settings: ScoreSettings,
    networks: Networks | None,
    calibration: VerdictCalibration,
    reader: ReaderLabels | None = None,
    status: str = "reviewed",
) -> ScoreResult:
    """Score what counts by a reader's labels, else by verdicts; no network runs. Other arguments as of `score_scan`.

    measurement: Measurement of the scan, by the same settings and networks. calibration: Calibration of the verdicts,
    that of the measurement or another.
    """
    scan, facts, quality = measurement.scan, measurement.facts, measurement.quality
    region, decomposed, calcium_map = facts.region, measurement.decomposed, None
    courses = artery_courses(region.territory_labels, facts.scan.image.GetSpacing())
    automatic = verdicts(facts, calibration)
    judged = None if automatic is None else automatic.judged
    card = None if networks is None else networks.calibrated
    has_device = judged is not None and has_coronary_device(judged)
    errors = errors_in(card, facts.scan, facts.blood, region.mask, has_device)
    if reader is not None and settings.arteries_by_territory:
        reader = by_territory(reader, facts)
    if reader is not None:
        labels = labels_of_reader(facts, reader, status, None if settings.candidates else automatic)
    elif automatic is None or settings.candidates:
        labels = candidate_labels(facts, calibration)
    else:
        labels = automatic
    clinical = score(facts, labels, errors, courses=courses)
    methods = {"threshold": clinical}
    doubts = [] if reader is None else [*reader.warnings]
    doubts += [] if judged is None or settings.candidates else device_warning(judged)
    doubts += doubts_about(clinical, labels.of_reader, region, facts.blood)
    doubts += ostium_warning(root_at_ostia(facts, labels, courses)) if clinical.status == "automatic" else []
    doubts += [] if reader is None or judged is None else unlabelled_warning(reader.sites, judged)
    doubts += [] if reader is None else artery_warnings(reader.sites, facts)
    if decomposed is not None:
        in_map, calcium_map, map_doubts = map_labels(facts, decomposed, settings.slices, calibration, automatic)
        methods["decomposition"] = score(facts, in_map, errors, clinical, courses)
        doubts += map_doubts
    acquisition = with_pseudonym(scan.acquisition)
    if acquisition.identity and not acquisition.patient_key:
        fault = key_fault()
        message = f"The key of pseudonyms is unusable ({fault}), so that the result does not keep whose scan this is."
        doubts.append(ScanWarning("patient-key", message))
    stages = (scan, facts.rules, region, quality, decomposed, errors.familiarity)
    warnings = [warning for stage in stages if stage is not None for warning in stage.warnings]
    warnings += [*doubts, *measurement.doubts]
    if settings.percentile_table is not None and not clinical.reviewed:
        message = "Percentiles are for reviewed scores only. Review the lesions, and score again with these labels."
        warnings.append(ScanWarning("percentile-unreviewed", message))
    age_years = scan.acquisition.patient_age_years if settings.age_years is None else settings.age_years
    table, sex = settings.percentile_table, settings.sex or scan.acquisition.patient_sex
    record = ScoreRecord(
        input=measurement.input,
        acquisition=acquisition,
        measured=quality.blood,
        normalisation=quality.normalisation,
        familiarity=errors.familiarity,
        mass_calibration=facts.calibration,
        heart=HeartRecord(region.source),
        epicardial_fat=measurement.fat,
        warnings=tuple(warnings),
        models=() if networks is None else networks.records,
        methods=methods,
        territories=_territories(region),
        slices_by_reader={str(k): "on" if on else "off" for k, on in sorted(settings.slices.items())},
        calibrated_on=errors.calibrated_on,
        categories=categories_of(clinical, percentile_of(clinical, table, sex, age_years)),
        **_facts_of_map(networks, decomposed, scan, settings.slices, clinical, calibration),
    )
    return ScoreResult(
        record=record,
        scan=scan,
        region=region,
        scored=None if facts.scan is scan else facts.scan,
        territory_labels=region.territory_labels,
        decomposition=calcium_map,
        measurement=measurement,
    )


def _territories(region: HeartRegion) -> dict[str, object] | None:
    """Return the names of the territories' labels, and the network that found them; None without territories."""
    if region.territories is None:
        return None
    labels = {str(n): name for n, name in enumerate(TERRITORIES) if n}
    return {"labels": labels, "model": region.territories.source}


def _facts_of_map(
    networks: Networks | None,
    decomposed: DecomposedHeart | None,
    scan: CTScan,
    by_reader: Mapping[int, bool],
    clinical: MethodScore,
    calibration: VerdictCalibration,
) -> dict[str, Any]:
    """Return the parts of the record that the networks of the calcium map add."""
    if networks is None or decomposed is None:
        return {}
    weights, limit = calibration.map_weights, calibration.most_not_coronary
    settings = replace(decomposed.parts.settings, evidence_weights=weights, most_not_coronary=limit)
    is_decomposed = decomposed.parts.decomposed.astype(np.float32)
    on_scan = enumerate(on_scan_slices(is_decomposed, decomposed.slices.grid, scan.image))
    return {
        "slice_probabilities": tuple(None if math.isnan(p) else round(float(p), 6) for p in decomposed.slices.on_scan),
        # The limit of a classifier that decides alone; scoring may decompose more slices.
        "slices_positive_from": published_limit(networks.slices.card),
        "slices_decomposed": tuple(bool(value > 0) and by_reader.get(k, True) for k, value in on_scan),
        "decomposition_settings": content_of(settings),
        # Only an automatic clinical score has verdicts.
        "candidate_evidence": calibration.evidence if clinical.status == "automatic" else None,
    }
