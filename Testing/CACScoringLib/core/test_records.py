"""Records of results, whole and damaged."""

import numpy as np
import pytest
from whole_records import whole_record

from CACScoringLib.core.ct import UnreadableError
from CACScoringLib.core.records import check_record, counted_labels, severe_warnings


def test_labels_of_counted_calcium():
    labels = np.arange(12, dtype=np.uint8)
    assert counted_labels(labels, {"left_out": [{"id": 3}]}).tolist() == [0, 1, 2, 3, 4, 5, 0, 0, 0, 0, 0, 0]
    for recorded in ({"left_out": []}, {}):
        assert counted_labels(labels, recorded).tolist() == [0, 1, 2, 3, 4, 5, 6, 0, 0, 0, 0, 0]


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        (("warnings", 0), 5, r"warnings\[0\]"),
        (("warnings", 0, "code"), None, r"warnings\[0\].code"),
        (("rules",), 0, "rules"),
        (("methods", "threshold", "reviewed"), 1, "methods.threshold.reviewed"),
        (("methods", "threshold", "total", "agatston"), float("nan"), "methods.threshold.total.agatston"),
        (("methods", "threshold", "total", "agatston"), True, "methods.threshold.total.agatston"),
        (("methods", "threshold", "arteries", "LM"), [], "methods.threshold.arteries.LM"),
        (("methods", "threshold", "total", "interval_90"), [0, "9"], r"total.interval_90\[1\]"),
        (("acquisition", "kvp"), "120", "acquisition.kvp"),
        (("input", "spacing_mm"), None, "input.spacing_mm"),
        (("input", "size"), [9, 9], "input.size"),
        (("input", "size"), [9, 9, 2**40], r"input.size\[2\]"),
        (("methods", "threshold", "total", "lesions"), 1.5, "total.lesions"),
        (("acquisition", "patient_sex"), 3, "acquisition.patient_sex"),
        (("seconds",), {"reading": "long"}, "seconds.reading"),
    ],
)
def test_a_damaged_record_is_refused(path, value, said):
    damaged = whole_record()
    holder = damaged
    for key in path[:-1]:
        holder = holder[key]
    holder[path[-1]] = value
    with pytest.raises(UnreadableError, match=f"scores.json is damaged: it has no valid .*{said}"):
        check_record(damaged, "scores.json")
    del damaged["methods"]
    with pytest.raises(UnreadableError):
        check_record(damaged, "scores.json")


@pytest.mark.parametrize(("reviewed", "severe"), [(False, ["beyond-calibration", "heart-cut"]), (True, ["heart-cut"])])
def test_severe_warnings_of_a_score_are_those_that_its_reader_has_not_settled(reviewed, severe):
    record = whole_record()
    record["methods"]["threshold"]["reviewed"] = reviewed
    record["warnings"] = [
        {"code": "beyond-calibration", "message": "It is unlike others.", "severe": True},
        {"code": "noise", "message": "It is noisy.", "severe": False},
        {"code": "heart-cut", "message": "The heart is cut."},
    ]
    warnings = severe_warnings(record, "ct")
    assert [warning.code for warning in warnings] == severe
    assert warnings[-1].message == "ct: The heart is cut."
