"""Tests of what to look at first: severity in this result, withheld intervals, doubtful lesions, a random share."""

import pytest
from whole_records import CATEGORIES, automatic_record, record_of

from CACScoringLib.core.warning_codes import SEVERE
from CACScoringLib.report.attention import WITHHELD, attention, random_share, urgency

CUT = {"code": "heart-cut", "message": "The heart ends 9 mm below its top. More about it."}


def record(*warnings, **more):
    return record_of(automatic_record({"threshold": 130.0}) | {"warnings": list(warnings), **more})


def test_a_sound_result_has_no_reason():
    sound = attention(record({"code": "not-gated", "message": "Ungated."}, categories=CATEGORIES))
    assert (sound.severe, sound.reasons, sound.withheld, sound.alternative_agatston) == ((), (), False, None)


@pytest.mark.parametrize("is_severe", [True, False])
def test_severity_is_that_of_the_result_not_of_the_code(is_severe):
    assert CUT["code"] in SEVERE, "it can be severe"
    found = attention(record(CUT | {"severe": is_severe}, categories=CATEGORIES))
    assert found.severe == (("heart-cut",) if is_severe else ())
    assert found.reasons == (("The heart ends 9 mm below its top.",) if is_severe else ())


def test_a_withheld_interval_is_a_reason_with_its_cause():
    found = attention(record({"code": "beyond-calibration", "message": "The scan is noisier than all."}))
    assert found.withheld
    assert found.reasons == (f"The scan is noisier than all. {WITHHELD}",)
    assert attention(record()).reasons == (WITHHELD,)


def test_the_doubtful_lesion_that_decides_is_a_reason(result_with_doubt):
    found = attention(result_with_doubt)
    assert found.alternative_agatston == 161.0
    assert len(found.reasons) == 1
    assert "Is lesion 1 (LAD" in found.reasons[0]
    assert "161" in found.reasons[0]


@pytest.fixture
def result_with_doubt():
    score = {"agatston": 161.0, "clinical_agatston": 161.0, "volume_mm3": 60.0, "pseudo_mass_hu_mm3": 300.0}
    verdict = {"suggested_artery": "LAD", "confidence": 0.9, "not_coronary_probability": 0.53, "probability": 0.47}
    place = {"voxels": 20, "peak_hu": 480.0, "mean_hu": 250.0, "centroid_ras_mm": [0, 1, 2.5], "components": []}
    lesion = {**score, **place, "id": 1, "lesions": 1, "artery": "LAD", **verdict}
    content = automatic_record({"threshold": 130.0}) | {"warnings": [], "categories": CATEGORIES}
    method = content["methods"]["threshold"]
    content["methods"] = {
        "threshold": method | {"left_out": [lesion], "alternative_agatston": 161.0, "alternative_lesion": 1}
    }
    return record_of(content)


def test_severe_comes_before_withheld_before_undecided_before_drawn_before_unsure():
    scans = [
        (True, False, False, 0.99, False),
        (False, True, True, None, False),
        (False, False, True, 0.99, False),
        (False, False, False, 0.99, True),
        (False, False, False, 0.4, False),
        (False, False, False, None, False),
        (False, False, False, 0.9, False),
    ]
    assert sorted(scans, key=lambda scan: -urgency(*scan)) == scans


def test_a_random_share_is_the_same_whenever_it_is_drawn():
    labels = [f"scan {n}" for n in range(50)]
    assert random_share(labels, 0.1) == random_share(labels[::-1], 0.1)
    assert len(random_share(labels, 0.1)) == 5
    assert len(random_share(labels, 0.01)) == 1
    assert random_share(labels, 0.1) != random_share(labels, 0.1, seed=1)
    assert (random_share(labels, 0), random_share(labels, 1)) == (set(), set(labels))
