"""Tests of the columns of a cohort's table from `scores.json`."""

import heart_with_territories
import pytest
from whole_records import CATEGORIES, record_of

from CACScoringLib.cohort.table import columns, result_row
from CACScoringLib.report.files import result_as_json

LAST = [f"non_coronary_agatston_{site}" for site in ("aortic_valve", "mitral_annulus", "thoracic_aorta", "other")]
FAT = ["epicardial_fat_cm3", "epicardial_fat_hu", "epicardial_fat_cm3_per_m2"]


def test_calcium_outside_the_arteries_and_fat_stand_in_the_last_columns(monkeypatch):
    assert columns(["threshold"], identify=False)[-8:] == ["seconds", *LAST, *FAT]
    content = result_as_json(heart_with_territories.score(monkeypatch), {})
    row = result_row(record_of(content))
    assert [row[name] for name in LAST] == pytest.approx([128, 96, 96, 0])


def test_status_and_categories_of_each_method(monkeypatch):
    names = columns(["threshold", "decomposition"], identify=False)
    content = result_as_json(heart_with_territories.score(monkeypatch), {})
    row = result_row(record_of(content))
    assert (row["threshold_status"], row.get("threshold_left_out")) == ("candidates", None)
    threshold = content["methods"]["threshold"]
    threshold |= {"status": "automatic", "left_out": 2 * threshold["lesions"]}
    content["categories"] = {**CATEGORIES}
    row = result_row(record_of(content))
    assert (row["threshold_status"], row["threshold_left_out"]) == ("automatic", 2)
    assert (row["threshold_risk_class"], row["threshold_cac_drs"]) == ("11–100", "A1/N1")
    parts = ("status", "reviewed", "left_out", "risk_class", "cac_drs")
    assert {f"threshold_{name}" for name in parts} | {"decomposition_status"} <= set(names)
    assert "decomposition_left_out" not in names


def test_intervals_and_the_likeliest_category(monkeypatch):
    content = result_as_json(heart_with_territories.score(monkeypatch), {})
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
    # An earlier version had no interval.
    del content["methods"]["threshold"]["total"]["interval_90"]
    assert result_row(record_of(content))["threshold_interval_low"] is None
