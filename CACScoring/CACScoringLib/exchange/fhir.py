"""Clinical scores as a FHIR R4 bundle: a DiagnosticReport with an Observation for the total and for each artery.

Codes are those of the DICOM objects (`codes`), and for the total also that of HL7 Lithuania's guide. No LOINC code of a
numeric calcium score is established, so LOINC only names the kind of report. The bundle is a collection of plain JSON;
the receiving system files it under its patient.
"""

from __future__ import annotations

import json
import uuid
from typing import Any

from pydicom.sr.coding import Code

from ..core.labels import Artery
from ..core.text import RESEARCH_ONLY
from ..core.version import VERSION, commit
from ..record.scores import MethodScore
from ..report.headline import headline, warning_lines
from ..results import CalciumResult
from . import codes
from .codes import origin_of, plain

SYSTEMS = {
    "SCT": "http://snomed.info/sct",
    "DCM": "http://dicom.nema.org/resources/ontology/DCM",
    "LN": "http://loinc.org",
    "UCUM": "http://unitsofmeasure.org",
}
"""FHIR's names of the coding schemes of DICOM."""

_TOTAL_SCORE = Code("450734004", "SCT", "Coronary artery calcium score (assessment scale)")
"""Code of the total in HL7LT/ig-lt-cvd, profile CoronaryCalciumScoreLtCvd."""

_CATEGORY = {"system": "http://terminology.hl7.org/CodeSystem/observation-category", "code": "imaging"}

_ASSEMBLER = {"system": "http://terminology.hl7.org/CodeSystem/provenance-participant-type", "code": "assembler"}

Resource = dict[str, Any]


def bundle_of(result: CalciumResult, identify: bool = False) -> Resource:
    """Return the bundle of a result.

    The status is preliminary until a reader has reviewed the score. Candidates that nobody has evaluated have no
    Observation. The same result gives the same identifiers, but of Provenance, which states time and command.

    Args:
        result: Result of a scan.
        identify: Include the patient's name, ID and sex, and the study date.
    """
    method, entries = result.methods["threshold"], list[Resource]()

    def add(resource: Resource) -> Resource:
        """Add a resource to the bundle; return a reference to it."""
        url = uuid.uuid5(uuid.NAMESPACE_URL, json.dumps([result.scan.name, resource], sort_keys=True)).urn
        entries.append({"fullUrl": url, "resource": resource})
        return {"reference": url}

    about: Resource = {"status": "final" if method.reviewed else "preliminary"}
    if identify:
        if date := result.scan.acquisition.study_date:
            about["effectiveDateTime"] = date
        if (patient := _patient(result)) is not None:
            about["subject"] = add(patient)
    device = {
        "resourceType": "Device",
        "deviceName": [{"name": "CAC", "type": "model-name"}],
        "version": [{"value": VERSION}, {"type": {"text": "commit"}, "value": commit()}],
        "note": [{"text": RESEARCH_ONLY}],
    }
    device_reference = add(device)
    observed = {**about, "device": device_reference}
    results: list[Resource] = []
    if method.status != "candidates":
        arteries = [a for a, score in method.arteries.items() if a <= Artery.RCA or score.lesions]
        members = [add(_observation(method, artery, observed)) for artery in arteries]
        results = [add({**_observation(method, None, observed), "hasMember": members}), *members]
    report = {
        "resourceType": "DiagnosticReport",
        **about,
        "code": {**_concept(codes.IMAGING_REPORT), "text": "Coronary calcium score"},
        "conclusion": " ".join(_conclusion(result)),
        **({"result": results} if results else {}),
        **(_interpreter(result) if identify else {}),
    }
    targets, listed = [add(report), *results], entries[::-1]
    if (provenance := result.record.provenance) is not None:
        add(_provenance(result, provenance.created, targets, device_reference))
        listed.append(entries[-1])
    return {"resourceType": "Bundle", "type": "collection", "entry": listed}


def _conclusion(result: CalciumResult) -> list[str]:
    """Return the headline and the severe warnings, without anything that identifies a person."""
    head = headline(result.methods, result.record.categories, result.warnings)
    sentences = [f"{head.score}, {head.state}.", f"{head.summary}."]
    lines = warning_lines(result.warnings, result.methods)
    sentences += [f"Caution: {line.line} {line.why}" for line in lines if line.severe]
    return [*map(plain, sentences), RESEARCH_ONLY]


def _interpreter(result: CalciumResult) -> Resource:
    """Return the element that names the reader who confirmed the score, if known."""
    review = result.record.review
    confirmation = None if review is None else review.confirmation
    return {} if confirmation is None else {"resultsInterpreter": [{"display": confirmation.reader}]}


def _provenance(result: CalciumResult, created: str, targets: list[Resource], device: Resource) -> Resource:
    """Return the Provenance of a report and its Observations; hashes and command are its sources."""
    sources = [
        {"role": "source", "what": {"display": name, "identifier": {"value": value}}}
        for name, value in origin_of(result).items()
    ]
    return {
        "resourceType": "Provenance",
        "target": targets,
        "recorded": created,
        "agent": [{"type": {"coding": [_ASSEMBLER]}, "who": device}],
        "entity": sources,
    }


def _observation(method: MethodScore, artery: Artery | None, about: Resource) -> Resource:
    """Return the Observation of an artery, or of all (None)."""
    score = method.total if artery is None else method.arteries[artery]
    mass_mg = None if method.rules.calibration_mg_per_mm3_hu is None else score.mass_mg
    numbers = (
        (codes.CALCIUM_VOLUME, score.volume_mm3, codes.CUBIC_MM),
        (codes.CALCIUM_MASS, mass_mg, codes.MILLIGRAM),
        (codes.NUMBER_OF_LESIONS, score.lesions, codes.LESIONS),
    )
    components = [
        {"code": _concept(concept), "valueQuantity": _quantity(number, unit)}
        for concept, number, unit in numbers
        if number is not None
    ]
    if score.interval_90 is not None:
        low, high = (_quantity(end, codes.NO_UNITS) for end in score.interval_90)
        components.append({"code": {"text": "90 % prediction interval"}, "valueRange": {"low": low, "high": high}})
    return {
        "resourceType": "Observation",
        **about,
        "category": [{"coding": [_CATEGORY]}],
        "code": _concept(codes.CALCIUM_SCORE, *([_TOTAL_SCORE] if artery is None else [])),
        "bodySite": _place(artery),
        "method": _concept(codes.AGATSTON_METHOD),
        "valueQuantity": _quantity(score.agatston, codes.NO_UNITS),
        "component": components,
        "note": [{"text": RESEARCH_ONLY}],
    }


def _place(artery: Artery | None) -> Resource:
    if artery is None:
        return _concept(codes.CORONARY)
    return {**_concept(codes.PLACES[artery]), "text": artery.full_name}


def _patient(result: CalciumResult) -> Resource | None:
    """Return the patient; None if neither ID nor name is known."""
    acquisition = result.scan.acquisition
    if not (acquisition.patient_id or acquisition.patient_name):
        return None
    patient: Resource = {"resourceType": "Patient"}
    if acquisition.patient_id:
        patient["identifier"] = [{"value": acquisition.patient_id}]
    if acquisition.patient_name:
        patient["name"] = [{"text": acquisition.patient_name}]
    gender = {"F": "female", "M": "male", "O": "other"}.get(acquisition.patient_sex or "")
    return {**patient, "gender": gender} if gender else patient


def _concept(code: Code, *further: Code) -> Resource:
    codings = [
        {"system": SYSTEMS[c.scheme_designator], "code": c.value, "display": c.meaning} for c in (code, *further)
    ]
    return {"coding": codings, "text": code.meaning}


def _quantity(number: float, unit: Code) -> Resource:
    return {"value": number, "unit": unit.meaning, "system": SYSTEMS["UCUM"], "code": unit.value}
