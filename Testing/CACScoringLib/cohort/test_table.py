"""Tests of the columns of a cohort's table from `scores.json`."""

import json
from dataclasses import replace

import heart_with_territories
import pytest
from whole_records import CATEGORIES, record_of

from CACScoringLib.cohort.table import columns, line, result_row, with_scores
from CACScoringLib.core.errors import UnreadableError
from CACScoringLib.core.progress import ScanState
from CACScoringLib.scans.source import ScanSource

LAST = [f"non_coronary_agatston_{site}" for site in ("aortic_valve", "mitral_annulus", "thoracic_aorta", "other")]
FAT = ["epicardial_fat_cm3", "epicardial_fat_hu", "epicardial_fat_cm3_per_m2"]


@pytest.fixture(scope="module")
def record():
    """Record of a scan with calcium in and outside the arteries."""
    return heart_with_territories.score().record


def test_calcium_outside_the_arteries_and_fat_stand_in_the_last_columns(record):
    assert columns(["threshold"], identify=False)[-8:] == ["seconds", *LAST, *FAT]
    row = result_row(record_of(record.as_json()))
    assert [row[name] for name in LAST] == pytest.approx([128, 96, 96, 0])


DOUBTED = {"suggested_artery": "LAD", "confidence": 0.5, "not_coronary_probability": 0.9, "probability": 0.1}
"""Verdict about a lesion that is left out, as written."""


def test_status_and_categories_of_each_method(record):
    names = columns(["threshold", "decomposition"], identify=False)
    content = record.as_json()
    row = result_row(record_of(content))
    assert (row["threshold_status"], row.get("threshold_left_out")) == ("candidates", None)
    threshold = content["methods"]["threshold"]
    threshold |= {"status": "automatic", "left_out": [{**threshold["lesions"][0], **DOUBTED}] * 2}
    content["categories"] = {**CATEGORIES}
    row = result_row(record_of(content))
    assert (row["threshold_status"], row["threshold_left_out"]) == ("automatic", 2)
    assert (row["threshold_risk_class"], row["threshold_cac_drs"]) == ("11–100", "A1/N1")
    parts = ("status", "reviewed", "left_out", "risk_class", "cac_drs")
    assert {f"threshold_{name}" for name in parts} | {"decomposition_status"} <= set(names)
    assert "decomposition_left_out" not in names


def test_intervals_and_the_likeliest_category(record):
    content = record.as_json()
    names = columns(["threshold", "decomposition"], identify=False)
    parts = ("interval_low", "interval_high", "likely_category", "category_probability")
    assert {f"threshold_{name}" for name in parts} | {f"decomposition_{name}" for name in parts[:2]} <= set(names)
    unknown = result_row(record_of(content))
    assert not any(unknown.get(f"threshold_{name}") for name in parts)
    content["methods"]["threshold"]["total"]["interval_90"] = [40.5, 130.0]
    probabilities = {"0": 0.02, "1-99": 0.78, "100-399": 0.2, "400+": 0.0}
    content["categories"] = {**CATEGORIES}
    content["categories"]["probabilities"] = probabilities
    row = result_row(record_of(content))
    assert [row[f"threshold_{name}"] for name in parts] == [40.5, 130.0, "1–99", 0.78]


def _places(value, at=()):
    """Yield the path of each key and list entry, recursively."""
    for key, item in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield (*at, key)
        yield from _places(item, (*at, key))


@pytest.mark.long
def test_a_record_changed_by_hand_is_either_tabulated_or_refused(record, tmp_path):
    content = replace(record, seconds={"reading": 1.0}).as_json()
    content["categories"] = {**CATEGORIES, "probabilities": {"0": 1.0}}
    content["second_opinions"] = {"vessels": {"model": {"name": "a", "sha256": "b"}, "trust": "", "total": 3.0}}
    content["methods"]["threshold"] |= {
        "status": "automatic",
        "left_out": [{**content["methods"]["threshold"]["lesions"][0], **DOUBTED}],
    }
    content["methods"]["threshold"]["lesions"] = content["methods"]["threshold"]["lesions"][:1]
    content["acquisition"]["kernel"] = "B30f"
    text, damaged, accepted = json.dumps(content), 0, 0
    content = json.loads(text)
    record_of(content)
    names, state = columns(["threshold"], identify=False), ScanState(0, "a", tmp_path / "a", tmp_path / "ct.nii")
    scan = ScanSource("a", "", tmp_path / "ct.nii", key="a")
    values = (None, "x", 10**12, True, [], {}, [1], {"a": 1}, 1.5, float("nan"))
    used = set(content) - {"territories", "candidate_evidence", "normalisation", "familiarity", "truth"}
    for number, place in enumerate(place for place in _places(content) if place[0] in used):
        for value in values[number % 5 :: 5]:
            changed = json.loads(text)
            holder = changed
            for key in place[:-1]:
                holder = holder[key]
            holder[place[-1]] = value
            try:
                accepted_record = record_of(changed)
            except UnreadableError:
                damaged += 1
                continue
            line(scan, with_scores(state, accepted_record), result_row(accepted_record), names)
            accepted += 1
    assert damaged > 500, "most values do not fit"
    assert accepted > 50
