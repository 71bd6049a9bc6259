"""A scan unlike those of the calibration is noticed, with what makes it so."""

import json
from dataclasses import asdict

import numpy as np
import pytest
from calibrated_cards import calibration_of
from images import image_of
from whole_records import MEASURED, record_of, whole_record

from CACScoringLib.core.ct import Acquisition, scan_from_image
from CACScoringLib.core.errors import CTError
from CACScoringLib.quality import calibration
from CACScoringLib.record.findings import BloodPool, Familiarity

RANGE = calibration.CalibrationRange(
    {"noise_hu": (8.0, 41.0, 10.0), "kvp": (100.0, 120.0, 10.0), "slice_spacing_mm": (1.0, 5.0, 2.0)}
)


def test_the_largest_excess_is_the_distance_and_all_are_causes():
    familiarity = RANGE.familiarity({"noise_hu": 62.0, "kvp": 95.0, "slice_spacing_mm": 5.0})
    assert familiarity.distance == pytest.approx(2.1)
    assert familiarity.causes == ("noise 62 HU, known 8 to 41", "tube voltage 95 kVp, known 100 to 120")
    assert familiarity.out_of_range


def test_a_fact_without_range_puts_a_scan_beyond_all_ranges():
    familiarity = RANGE.familiarity({"noise_hu": 42.0}).flag("metal in the heart")
    assert familiarity == Familiarity(
        calibration.LIMIT, ("metal in the heart", "noise 42 HU, known 8 to 41"), calibration.LIMIT
    )
    assert familiarity.out_of_range
    assert RANGE.familiarity({"noise_hu": 62.0}).flag("metal in the heart").distance == pytest.approx(2.1)


def test_from_the_limit_on_automatic_scores_are_withheld():
    below, beyond = (RANGE.familiarity({"kvp": kvp}).warnings[0] for kvp in (129.9, 130.0))
    assert (below.code, below.severe) == ("unlike-calibration", False)
    assert (beyond.code, beyond.severe) == ("beyond-calibration", False)
    assert "tube voltage 130 kVp, known 100 to 120" in beyond.message


def test_ranges_leave_out_the_rare_and_come_back_from_a_card():
    g = np.random.default_rng(0)
    scans = [{"noise_hu": float(noise), "kvp": 120.0} for noise in g.uniform(10, 40, 398)]
    scans += [{"noise_hu": 90.0, "kvp": None, "pixel_mm": 0.5}] * 2
    calibration_range = calibration.CalibrationRange.of(scans)
    low, high, width = calibration_range.ranges["noise_hu"]
    assert low == pytest.approx(10, abs=0.7)
    assert high == pytest.approx(40, abs=0.7)
    assert width == pytest.approx(15, abs=1.5)
    assert calibration_range.ranges["kvp"] == (120.0, 120.0, calibration.FACTS["kvp"].least_width)
    assert calibration_range.ranges.keys() == {"noise_hu", "kvp"}, "two scans do not tell what pixels are usual"
    assert calibration.CalibrationRange.of(scans[: calibration.MIN_SCANS - 1]).ranges == {}
    stored = json.loads(json.dumps({"known": asdict(calibration_range)}))
    assert calibration_of(stored).known == calibration_range
    assert calibration_of({}).known is None
    for broken in ({"limit": 1.0}, {"ranges": {"kvp": [1, 2]}, "limit": 1.0}, []):
        with pytest.raises(CTError, match="Calibrate it again"):
            calibration_of({"known": broken})


@pytest.mark.parametrize(("rows", "cut"), [(slice(4, 8), 0.0), (slice(0, 8), 100.0)])
def test_facts_of_a_scan(rows, cut):
    heart = np.zeros((10, 20, 30), bool)
    heart[2:7, rows, 10:16] = True
    hu = np.full(heart.shape, 40, np.int16)
    hu[:, :, 0], hu[0, 0, 1] = -1000, 1200
    scan = scan_from_image(image_of(hu, (0.5, 0.5, 3.0)), Acquisition("NRRD", kvp=100.0))
    facts = calibration.calibration_facts(scan, BloodPool(45.0, 50.0, 22.0, 9), heart)
    assert facts.keys() == calibration.FACTS.keys()
    assert (facts["field_of_view_mm"], facts["pixel_mm"], facts["slice_spacing_mm"]) == (15.0, 0.5, 3.0)
    assert (facts["kvp"], facts["noise_hu"], facts["median_hu"]) == (100.0, 22.0, 45.0)
    assert (facts["heart_ml"], facts["heart_cut_percent"]) == (pytest.approx(heart.sum() * 0.75 / 1000), cut)
    content = whole_record() | {
        "acquisition": scan.acquisition.facts(False),
        "measured": {**MEASURED, "noise_hu": 22.0},
        "input": {"name": None, "size": [30, 20, 10], "spacing_mm": list(scan.image.GetSpacing()), "voxels_sha256": ""},
    }
    assert calibration.recorded_facts(record_of(content), heart) == facts
    unmeasured = calibration.calibration_facts(scan, None, heart)
    assert unmeasured["noise_hu"] is unmeasured["median_hu"] is None


@pytest.mark.parametrize(
    ("count", "expected"),
    [
        (101, (1.0, 99.0, 50.0)),  # of 0 to 100: percentiles 1 and 99, quartiles 25 and 75
        (calibration.MIN_SCANS, (0.0, 19.0, 9.0)),  # of 0 to 19: places 0.19, 18.81, 4.75 and 14.25
        (calibration.MIN_SCANS - 1, None),
    ],
)
def test_ranges_by_hand(count, expected):
    ranges = calibration.CalibrationRange.of([{"noise_hu": value} for value in range(count)]).ranges
    assert ranges.get("noise_hu") == expected


@pytest.mark.parametrize(
    ("name", "value", "distance"),
    [
        ("noise_hu", 1.0, 0.0),  # less noise is never harder
        *(("noise_hu", 41.0, 0.0), ("kvp", 99.0, 0.1), ("slice_spacing_mm", 7.0, 1.0)),
    ],
)
def test_distances_by_hand(name, value, distance):
    assert RANGE.familiarity({name: value}).distance == pytest.approx(distance)


def test_a_range_narrower_than_the_least_width_is_no_stricter():
    narrow = calibration.CalibrationRange({"kvp": (120.0, 120.0, 1.0), "heart_ml": (500.0, 600.0, 0.0)})
    assert narrow.familiarity({"kvp": 125.0}).distance == pytest.approx(0.5)
    assert narrow.familiarity({"heart_ml": 750.0}).distance == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("filled", "cut_percent"),
    [
        *((np.s_[2:8, 2:8, 2:8], 0.0), (np.s_[0:8, 2:8, 2:8], 100.0), (np.s_[2:8, 2:10, 2:8], 100.0)),
        *((np.s_[2:8, 2:8, 0:8], 100.0), (np.s_[0:0, 2:8, 2:8], 0.0)),
    ],
)
def test_a_heart_that_is_cut_off(filled, cut_percent):
    heart = np.zeros((10, 10, 10), np.uint8)
    heart[filled] = 1
    facts = calibration.framing(heart, (0.5, 0.5, 2.0))
    assert (facts["heart_cut_percent"], facts["field_of_view_mm"]) == (cut_percent, 5.0)
    assert facts["heart_ml"] == pytest.approx(heart.sum() / 2000)


def test_a_heart_that_is_cut_off_by_half():
    heart = np.zeros((10, 10, 10), np.uint8)
    heart[3:5, 2:8, 2:8] = 1
    heart[5:10, 2:5, 2:8] = 1
    assert calibration.framing(heart, (1.0, 1.0, 1.0))["heart_cut_percent"] == 50.0


@pytest.mark.parametrize(("mean", "limit"), [(100.0, 40.0), (-200.0, 0.0)])
def test_limits_by_hand(mean, limit):
    """2 · (10 + 0.1 · mean), never below 0."""
    assert calibration.Limits(10.0, 0.1, 2.0, 99, 500.0).at(mean) == pytest.approx(limit)
