"""Scores as a Measurement Report (PS3.16 TID 1500): a group per artery, per other site, and for the total.

Features that have standard codes are in the groups of arteries and total, and in a group per lesion. Epicardial fat has
a group of its own.

A site with calcium is a volumetric region of interest (TID 1411) that refers to its segment. All others have no region
and are plain measurement groups (TID 1501). Each number is a measurement by TID 300, with its full precision in
Floating Point Value.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from typing import Any

from highdicom import sr
from highdicom.seg import Segmentation
from pydicom import Dataset
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code
from pydicom.valuerep import DT

from ..anatomy.heart_region import FAT_HU
from ..core.labels import Artery, Site
from ..core.version import VERSION
from ..record.findings import DensityFeatures, EpicardialFat, Features, LesionFeatures
from ..record.rules import ScoringRules
from ..record.scores import MethodScore, Score
from ..results import METHOD_TITLES, ScoreResult
from . import codes as cac
from .codes import provenance_texts
from .images import counted_labels, segment_label, segment_numbers
from .source import MANUFACTURER, MODEL_NAME, SourceSeries

Number = tuple[Code, float, Code, Code | None]
"""Concept, value, unit and method."""


@dataclass(frozen=True)
class Group:
    """Scores and features of a site, or of all coronary arteries; or features of a lesion.

    Attributes:
        name: Tracking identifier.
        site: Site; None for the total.
        score: Scores; None for a lesion.
        status: Key of `codes.STATUS`.
        rules: Rules of the scores.
        by_map: True for scores of the calcium map.
        features: Features; None if unknown.
    """

    name: str
    site: Site | None
    score: Score | None
    status: str
    rules: ScoringRules
    by_map: bool = False
    features: DensityFeatures | None = None


def score_groups(result: ScoreResult) -> list[Group]:
    """Return the groups of a result: totals, arteries and lesions of each method, then other sites with calcium.

    Lesions without an artery have a group only if there are any.
    """
    groups = [group for key, method in result.methods.items() for group in _coronary_groups(key, method)]
    return groups + _non_coronary_groups(result)


def _coronary_groups(key: str, method: MethodScore) -> list[Group]:
    by_map = key != "threshold"
    status = method.status if method.status in cac.STATUS else "automatic"
    prefix = "Calcium map" if by_map else "Coronary calcium"
    features = method.features or Features(None, None, None)
    groups = [Group(f"{prefix}: total", None, method.total, status, method.rules, by_map, features.total)]
    for artery, score in method.arteries.items():
        if score.lesions or artery not in (Artery.UNASSIGNED, Artery.OTHER):
            name = f"{prefix}: {segment_label(artery)}"
            groups.append(Group(name, artery, score, status, method.rules, by_map, features.arteries.get(artery.key)))
    lesions = {lesion.id: lesion for lesion in features.lesions}
    for lesion in method.lesions if lesions else ():
        name = f"{prefix}: lesion {lesion.id}"
        groups.append(Group(name, lesion.site, None, status, method.rules, by_map, lesions[lesion.id]))
    return groups


def _non_coronary_groups(result: ScoreResult) -> list[Group]:
    elsewhere = result.record.non_coronary
    if elsewhere is None:
        return []
    status = "reviewed" if elsewhere.reviewed else "automatic"
    rules = replace(result.methods["threshold"].rules, calibration_mg_per_mm3_hu=None)
    return [
        Group(f"Calcium: {segment_label(site)}", site, score, status, rules)
        for site, score in elsewhere.scores.items()
        if score.lesions
    ]


def measurements_of(
    result: ScoreResult, segmentation: Segmentation | None, source: SourceSeries, reader: str | None = None
) -> sr.Comprehensive3DSR:
    """Return the Measurement Report of a result. reader: reviewer as a DICOM person name; None to name nobody."""
    numbers = segment_numbers(segmentation)
    groups = [_group(result, group, numbers, segmentation, source) for group in score_groups(result)]
    if (fat := result.record.epicardial_fat) is not None:
        groups.append(_fat_group(fat, source))
    images = _evaluated_images(result, source)
    content = sr.MeasurementReport(
        observation_context=_observation_context(source, reader),
        procedure_reported=cac.PROCEDURE if result.scan.acquisition.gating is None else cac.GATED_PROCEDURE,
        imaging_measurements=groups,
        title=codes.DCM.ImagingMeasurementReport,
        referenced_images=images,
    )
    report = sr.Comprehensive3DSR(
        evidence=[*images, *([] if segmentation is None else [segmentation])],
        content=content,
        is_complete=True,
        series_description="CAC: measurements",
        **_verification(result, reader),
        **source.identity("measurements"),
    )
    return _with_time_of_verification(source.complete(report), result)


def _verification(result: ScoreResult, reader: str | None) -> dict[str, Any]:
    """Return the arguments of a report that a reader verified (PS3.3 C.17.2); reader: None to name nobody."""
    is_final = result.methods["threshold"].reviewed
    if reader is None or not is_final:
        return {"is_final": is_final}
    verifier = {"verifying_observer_name": reader, "verifying_organization": "not stated"}
    return {"is_final": True, "is_verified": True, **verifier}


def _with_time_of_verification(report: sr.Comprehensive3DSR, result: ScoreResult) -> sr.Comprehensive3DSR:
    """Set the time of a report's verification to that of the confirmation, and add the readers of a consensus."""
    review = result.record.review
    if "VerifyingObserverSequence" not in report or review is None or review.confirmation is None:
        return report
    (verifier,) = report.VerifyingObserverSequence
    verifier.VerificationDateTime = DT(datetime.fromisoformat(review.confirmation.time))
    for reading in review.readings:
        if reading.reader != str(verifier.VerifyingObserverName):
            co_reader = copy.deepcopy(verifier)
            co_reader.VerifyingObserverName = reading.reader
            co_reader.VerificationDateTime = DT(datetime.fromisoformat(reading.time))
            report.VerifyingObserverSequence.append(co_reader)
    return report


def _observation_context(source: SourceSeries, reader: str | None) -> sr.ObservationContext:
    """Return CAC as the observing device, with the reader if named (TID 1001)."""
    device = sr.DeviceObserverIdentifyingAttributes(
        uid=source.uid("device"), name="CAC", manufacturer_name=MANUFACTURER, model_name=MODEL_NAME
    )
    person = None if reader is None else sr.PersonObserverIdentifyingAttributes(name=reader)
    return sr.ObservationContext(
        observer_person_context=None if person is None else sr.ObserverContext(codes.DCM.Person, person),
        observer_device_context=sr.ObserverContext(codes.DCM.Device, device),
    )


def _evaluated_images(result: ScoreResult, source: SourceSeries) -> list[Dataset]:
    """Return the source's images that show the heart region or counted calcium."""
    evaluated = source.stored(result.scan.grid.image(result.region.mask)) | source.stored(counted_labels(result))
    return [image for image, plane in zip(source.images, evaluated, strict=True) if plane.any()]


def _algorithm(result: ScoreResult, group: Group) -> sr.AlgorithmIdentification:
    """Return the identification of a group's method, with rules and models as parameters (TID 4019)."""
    key = "decomposition" if group.by_map else "threshold"
    parameters = [f"{name} = {value}" for name, value in asdict(group.rules).items() if value is not None]
    parameters += [f"model for {m.network}: {m.name}, SHA-256 {m.sha256}" for m in result.record.models]
    if group.site is None and group.score is not None:
        parameters += [f"{name} = {value}" for name, value in provenance_texts(result).items()]
    return sr.AlgorithmIdentification(f"CAC {METHOD_TITLES[key]}", VERSION, parameters, manufacturer=MANUFACTURER)


def score_numbers(group: Group) -> list[Number]:
    """Return a group's scores; mass only if it is calibrated."""
    score = group.score
    if score is None:
        return []
    numbers: list[Number]
    if group.by_map:
        numbers = [(cac.EQUIVALENT_SCORE, score.clinical_agatston, cac.NO_UNITS, cac.MAP_METHOD)]
    else:
        coronary = group.site is None or isinstance(group.site, Artery)
        concept = cac.CALCIUM_SCORE if coronary else cac.OTHER_CALCIUM_SCORE
        numbers = [(concept, score.agatston, cac.NO_UNITS, cac.AGATSTON_METHOD)]
    numbers.append((cac.CALCIUM_VOLUME, score.volume_mm3, cac.CUBIC_MM, None))
    if score.mass_mg is not None and group.rules.calibration_mg_per_mm3_hu is not None:
        numbers.append((cac.CALCIUM_MASS, score.mass_mg, cac.MILLIGRAM, None))
    numbers.append((cac.NUMBER_OF_LESIONS, score.lesions, cac.LESIONS, None))
    if group.site is None:
        numbers.append((cac.AGATSTON_THRESHOLD, group.rules.threshold_hu, cac.HOUNSFIELD, None))
        calibration = group.rules.calibration_mg_per_mm3_hu
        if calibration is not None:
            numbers.append((cac.CALIBRATION, calibration, cac.CALIBRATION_UNIT, None))
    return numbers


def feature_numbers(group: Group) -> list[Number]:
    """Return a group's features that have standard codes."""
    features = group.features
    if features is None:
        return []
    concepts = (cac.MEDIAN_HU, cac.SD_HU, cac.P10_HU, cac.P90_HU)
    densities = (features.median_hu, features.sd_hu, features.p10_hu, features.p90_hu)
    numbers: list[Number] = [(*pair, cac.HOUNSFIELD, None) for pair in zip(concepts, densities, strict=True)]
    if isinstance(features, LesionFeatures) and features.length_mm is not None:
        numbers.append((cac.LENGTH, features.length_mm, cac.MILLIMETER, None))
    return numbers


def fat_numbers(fat: EpicardialFat) -> list[Number]:
    """Return volume and mean attenuation of epicardial fat."""
    numbers: list[Number] = [(cac.VOLUME, fat.volume_cm3, cac.CUBIC_CM, None)]
    return numbers if fat.mean_hu is None else [*numbers, (cac.MEAN_HU, fat.mean_hu, cac.HOUNSFIELD, None)]


def _evaluations(result: ScoreResult, group: Group) -> list[sr.QualitativeEvaluation]:
    """Return the review status, and for the total the severe warnings."""
    pairs = [(cac.REVIEW_STATUS, cac.STATUS[group.status])]
    if group.site is None:
        severe = dict.fromkeys(warning.code for warning in result.record.warnings if warning.severe)
        pairs += [(cac.WARNING, Code(code, cac.OWN_SCHEME, code.replace("-", " "))) for code in severe]
    return [sr.QualitativeEvaluation(sr.CodedConcept.from_code(n), sr.CodedConcept.from_code(v)) for n, v in pairs]


def _group(
    result: ScoreResult,
    group: Group,
    numbers: dict[str, int],
    segmentation: Segmentation | None,
    source: SourceSeries,
) -> sr.VolumetricROIMeasurementsAndQualitativeEvaluations | sr.MeasurementsAndQualitativeEvaluations:
    label = None if group.site is None or group.score is None or group.by_map else segment_label(group.site)
    segment = numbers.get(label) if label else None
    tracking_uid = source.uid("tracking", label if segment else group.name)
    place = cac.CORONARY if group.site is None else cac.PLACES[group.site]
    content: dict[str, Any] = {
        "tracking_identifier": sr.TrackingIdentifier(uid=tracking_uid, identifier=group.name),
        "finding_type": sr.CodedConcept.from_code(cac.CALCIFICATION),
        "finding_category": sr.CodedConcept.from_code(cac.CATEGORY),
        "finding_sites": [sr.FindingSite(anatomic_location=sr.CodedConcept.from_code(place))],
        "algorithm_id": _algorithm(result, group),
        "measurements": _measurements([*score_numbers(group), *feature_numbers(group)]),
        "qualitative_evaluations": _evaluations(result, group),
    }
    if segment is None or segmentation is None:
        return sr.MeasurementsAndQualitativeEvaluations(**content)
    referenced = sr.ReferencedSegment.from_segmentation(segmentation, segment)
    return sr.VolumetricROIMeasurementsAndQualitativeEvaluations(referenced_segment=referenced, **content)


def _fat_group(fat: EpicardialFat, source: SourceSeries) -> sr.MeasurementsAndQualitativeEvaluations:
    name = "Epicardial fat"
    parameters = [f"pericardium = {fat.source}", f"fat = {FAT_HU[0]:.0f} to {FAT_HU[1]:.0f} HU"]
    return sr.MeasurementsAndQualitativeEvaluations(
        tracking_identifier=sr.TrackingIdentifier(uid=source.uid("tracking", name), identifier=name),
        finding_type=sr.CodedConcept.from_code(cac.FAT),
        finding_category=sr.CodedConcept.from_code(cac.TISSUE),
        finding_sites=[sr.FindingSite(anatomic_location=sr.CodedConcept.from_code(cac.PERICARDIUM))],
        algorithm_id=sr.AlgorithmIdentification(f"CAC {name.lower()}", VERSION, parameters, manufacturer=MANUFACTURER),
        measurements=_measurements(fat_numbers(fat)),
    )


def _measurements(numbers: Sequence[Number]) -> list[sr.Measurement]:
    return [sr.Measurement(name=name, value=value, unit=unit, method=method) for name, value, unit, method in numbers]
