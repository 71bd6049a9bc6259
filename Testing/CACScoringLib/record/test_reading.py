"""Records of results, whole and damaged."""

import json
from dataclasses import replace

import heart_with_territories
import numpy as np
import pytest
from whole_records import record_of, whole_record

from CACScoringLib.core.decoding import content_of, restore
from CACScoringLib.core.errors import UnreadableError
from CACScoringLib.core.labels import Artery, NonCoronary
from CACScoringLib.record.score_record import record_from_text
from CACScoringLib.record.scores import Lesion, LesionSet, Verdict


def test_the_record_of_a_result_is_that_of_its_file():
    result = heart_with_territories.score()
    text = json.dumps(result.record.as_json(identify=True))
    read = record_from_text(text, "scores.json")
    assert read.as_json(identify=True) == json.loads(text)
    assert (read.methods["threshold"].rules, read.input) == (result.methods["threshold"].rules, result.record.input)


PLACE = Verdict(artery=Artery.LAD, confidence=2 / 3, not_coronary_probability=1 / 3)


@pytest.mark.parametrize(
    ("looks", "written"),
    [
        ({}, set()),
        ({"looked_at": False}, {"looked_at"}),
        ({"verdict": PLACE}, {"suggested_artery", "confidence", "not_coronary_probability"}),
        (
            {"verdict": replace(PLACE, counts=False, reason="faint", kinds={"noise": 2 / 3})},
            {"suggested_artery", "confidence", "not_coronary_probability", "probability", "reason", "kinds"},
        ),
    ],
)
@pytest.mark.parametrize("site", [Artery.OTHER, NonCoronary.OTHER])
def test_unknown_scores_are_null_and_unknown_looks_left_out(looks, written, site):
    scores = {"agatston": 1.0, "clinical_agatston": 1.0, "pseudo_mass_hu_mm3": 0.0, "lesions": 1, "volume_mm3": 9.0}
    place = {"voxels": 9, "peak_hu": 150.0, "mean_hu": 140.0, "centroid_ras_mm": (0.0, 1.0, 2.0), "components": ()}
    lesion = Lesion(id=1, site=site, **scores, **place, **looks)
    content = content_of(lesion)
    assert content["mass_mg"] is None
    assert content["centroid_ras_mm"] == [0.0, 1.0, 2.0]
    assert content["site" if isinstance(site, NonCoronary) else "artery"] == "other"
    names = {"suggested_artery", "confidence", "not_coronary_probability", "probability", "reason", "kinds"}
    assert {*names, "looked_at"} & content.keys() == written
    assert restore(content, Lesion) == lesion


def test_labels_of_counted_calcium():
    labels, method = np.arange(12, dtype=np.uint8), record_of(whole_record()).methods["threshold"]
    assert method.counted_labels(labels).tolist() == [0, 1, 2, 3, 4, 5, 6, 0, 0, 0, 0, 0]
    verdict = Verdict(artery=Artery.LAD, confidence=0.5, not_coronary_probability=0.9, counts=False)
    left_out = [replace(lesion, verdict=verdict) for lesion in method.lesions]
    automatic = replace(method, status="automatic", table=LesionSet.of(left_out))
    assert automatic.counted_labels(labels).tolist() == [0, 1, 2, 3, 4, 5, 0, 0, 0, 0, 0, 0]


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        (("warnings", 0), 5, r"warnings\[0\]"),
        (("rules",), 0, "rules"),
        (("methods", "threshold", "lesions", 0, "centroid_ras_mm"), [1, 2], r"lesions\[0\].centroid_ras_mm"),
        (("methods", "threshold", "lesions", 0, "artery"), "LMX", r"lesions\[0\].artery"),
        (("non_coronary",), {"reviewed": True, "aortic_valve": 3}, "non_coronary.aortic_valve"),
        (("rules", "threshold", "threshold_hu"), "130", "methods.threshold.rules.threshold_hu"),
        (("methods", "threshold", "arteries"), {"left": {}}, "methods.threshold.arteries"),
        (("methods", "threshold", "total", "agatston"), float("nan"), "methods.threshold.total.agatston"),
        (("methods", "threshold", "total", "interval_90"), [0, "9"], r"total.interval_90\[1\]"),
        (("methods", "threshold", "total", "agatston"), -5.0, "methods.threshold.total.agatston"),
        (("methods", "threshold", "total", "agatston"), 0.0, "methods.threshold.total.agatston"),
        (("methods", "threshold", "total", "clinical_agatston"), 3.1, "methods.threshold.total.clinical_agatston"),
        (("methods", "threshold", "total", "lesions"), 2, "methods.threshold.total.lesions"),
        (("methods", "threshold", "total", "interval_90"), [9.5, 0.0], "methods.threshold.total.interval_90"),
        (("methods", "threshold", "total", "interval_90"), [-1.0, 9.5], "methods.threshold.total.interval_90"),
        (("methods", "threshold", "arteries", "LM", "volume_mm3"), 4.0, "methods.threshold.*volume_mm3"),
        (("methods", "threshold", "lesions", 0, "artery"), "LAD", "methods.threshold.arteries.LM"),
        (("methods", "threshold", "lesions", 0, "agatston"), -3.0, "methods.threshold"),
        (("methods", "threshold", "lesions"), [], "methods.threshold.total.agatston"),
        (("input", "size"), [9, 9], "input.size"),
        (("input", "size"), [9, 9, 2**40], r"input.size\[2\]"),
    ],
)
def test_a_damaged_record_is_refused(path, value, said):
    damaged = whole_record()
    holder = damaged
    for key in path[:-1]:
        holder = holder[key]
    holder[path[-1]] = value
    with pytest.raises(UnreadableError, match=f"scores.json .*{said}"):
        record_of(damaged)
    del damaged["methods"]
    with pytest.raises(UnreadableError):
        record_of(damaged)


def test_severe_warnings_of_a_score_name_the_scan():
    record = whole_record()
    record["warnings"] = [
        {"code": "noise", "message": "It is noisy.", "severe": False},
        {"code": "heart-cut", "message": "The heart is cut."},
    ]
    warnings = record_of(record).severe_warnings("ct")
    assert [warning.code for warning in warnings] == ["heart-cut"]
    assert warnings[-1].message == "ct: The heart is cut."
