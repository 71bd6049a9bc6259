"""Results of this and of earlier versions are read alike."""

import numpy as np
import pytest

from CACScoringLib.core.records import counted_labels, recorded_agatston, recorded_status


@pytest.mark.parametrize(
    ("method", "recorded", "status"),
    [
        ("threshold", {"status": "automatic", "reviewed": False}, "automatic"),
        ("threshold", {"reviewed": False}, "candidates"),
        ("threshold", {"reviewed": True}, "reviewed"),
        ("decomposition", {"reviewed": False}, "automatic"),
        ("decomposition", {"reviewed": True}, "reviewed"),
    ],
)
def test_status_of_records_of_any_version(method, recorded, status):
    assert recorded_status(method, recorded) == status


def test_labels_of_what_counts():
    labels = np.arange(12, dtype=np.uint8)
    assert counted_labels(labels, {"left_out": [{"id": 3}]}).tolist() == [0, 1, 2, 3, 4, 5, 0, 0, 0, 0, 0, 0]
    for recorded in ({"left_out": []}, {}):
        assert counted_labels(labels, recorded).tolist() == [0, 1, 2, 3, 4, 5, 6, 0, 0, 0, 0, 0]


def test_agatston_scores_of_an_earlier_version_are_scaled_by_its_factor():
    assert recorded_agatston({"agatston_scale": 0.1}, {"agatston": 50.0}) == 5.0
    assert recorded_agatston({"agatston_scale": None}, {"agatston": 50.0}) == 50.0
    assert recorded_agatston({"agatston_scale": None}, {"agatston": 50.0, "clinical_agatston": 7.0}) == 7.0
