"""Scores as a FHIR bundle: valid R4, with the result's numbers and status, and nobody's identity unless asked for."""

import json
from dataclasses import replace

import pytest
from made_results import make_result

from CACScoringLib.core.files import OutputFolder
from CACScoringLib.core.labels import SiteMap
from CACScoringLib.core.progress import Progress
from CACScoringLib.core.text import RESEARCH_ONLY
from CACScoringLib.exchange.fhir import bundle_of
from CACScoringLib.run import RunSettings, write_result

PERSON = {"patient_name": "DOE^JANE", "patient_id": "ID-4711", "patient_sex": "F", "study_date": "2026-01-02"}


def resources(bundle, kind):
    return [entry["resource"] for entry in bundle["entry"] if entry["resource"]["resourceType"] == kind]


@pytest.mark.long
@pytest.mark.parametrize("identify", [False, True])
@pytest.mark.parametrize("reviewed", [False, True])
def test_bundles_are_valid(reviewed, identify):
    from fhir.resources.R4B.bundle import Bundle

    bundle = bundle_of(make_result(reviewed, **PERSON), identify)
    assert Bundle.model_validate_json(json.dumps(bundle)).entry[0].resource.status in ("final", "preliminary")


def test_numbers_are_those_of_the_result():
    result = make_result()
    bundle = bundle_of(result)
    (report,) = resources(bundle, "DiagnosticReport")
    by_url = {entry["fullUrl"]: entry["resource"] for entry in bundle["entry"]}
    total, *arteries = (by_url[reference["reference"]] for reference in report["result"])
    assert total["valueQuantity"]["value"] == result.methods["threshold"].total.agatston
    assert [member["reference"] for member in total["hasMember"]] == [r["reference"] for r in report["result"][1:]]
    stated = [[coding["code"] for coding in observation["code"]["coding"]] for observation in (total, *arteries)]
    assert stated == [["450360000", "450734004"], *[["450360000"]] * 4]
    values = {a["bodySite"]["text"]: a["valueQuantity"]["value"] for a in arteries}
    assert values == {
        "left main": 0,
        "left anterior descending": total["valueQuantity"]["value"],
        "left circumflex": 0,
        "right coronary artery": 0,
    }
    components = {c["code"]["coding"][0]["code"]: c["valueQuantity"]["value"] for c in total["component"]}
    assert components == {"122660": 96.0, "122661": result.methods["threshold"].total.mass_mg, "246206008": 1}
    assert all(by_url[o["device"]["reference"]]["resourceType"] == "Device" for o in (total, *arteries))


def test_intervals_are_those_of_the_result():
    """The total and two arteries have a prediction interval."""
    result = make_result()
    method = result.methods["threshold"]
    arteries = {a: replace(score, interval_90=(float(a), 10.0 * a)) for a, score in method.arteries.items() if a % 2}
    total = replace(method.total, interval_90=(12.5, 340.0))
    method = replace(method, total=total, arteries=SiteMap({**method.arteries, **arteries}))
    observations = resources(bundle_of(result.stating(methods={"threshold": method})), "Observation")
    intervals = {}
    for observation in observations:
        ranges = [c["valueRange"] for c in observation["component"] if "valueRange" in c]
        assert all(end["unit"] == "no units" for ends in ranges for end in ends.values())
        intervals[observation["bodySite"]["text"]] = [(ends["low"]["value"], ends["high"]["value"]) for ends in ranges]
    assert intervals == {
        "Coronary artery": [(12.5, 340.0)],
        "left main": [(1.0, 10.0)],
        "left anterior descending": [],
        "left circumflex": [(3.0, 30.0)],
        "right coronary artery": [],
    }


def test_a_report_is_final_once_reviewed_and_for_research_only():
    for result, status in ((make_result(), "final"), (make_result(reviewed=False), "preliminary")):
        (report,) = resources(bundle_of(result), "DiagnosticReport")
        assert report["status"] == status
        assert RESEARCH_ONLY in report["conclusion"]
    assert resources(bundle_of(make_result(reviewed=False)), "Observation") == []  # nobody evaluated the candidates


def test_nobody_is_named_unless_asked():
    result = make_result(**PERSON)
    anonymous, named = json.dumps(bundle_of(result)), json.dumps(bundle_of(result, identify=True))
    for text in ("DOE^JANE", "ID-4711", "2026-01-02", "female"):
        assert text not in anonymous
        assert text in named


def test_the_bundle_is_written_beside_the_other_files(tmp_path):
    result = make_result()
    write_result(OutputFolder(tmp_path / "result"), result, RunSettings(fhir=True), Progress())
    assert json.loads((tmp_path / "result" / "fhir.json").read_text(encoding="utf-8")) == bundle_of(result)
