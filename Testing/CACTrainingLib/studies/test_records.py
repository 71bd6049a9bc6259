"""Records of a study: kinds of scans, and pairs."""

import pytest
from study_samples import record

from CACTrainingLib.studies.records import Truth, pairs_of

DISTRACTORS = ("aortic wall",)


@pytest.mark.parametrize(
    ("visible", "truth", "kind"),
    [
        (True, Truth(3.0, {}, ()), "visible"),
        (True, None, "visible"),
        (False, Truth(0.2, {}, DISTRACTORS), "hidden"),
        (False, Truth(0.0, {}, DISTRACTORS), "distractor"),
        (False, Truth(0.0, {}, ()), "clean"),
        (False, None, None),
        (None, None, None),
    ],
)
def test_kind(visible, truth, kind):
    assert record(visible=visible, truth=truth).kind == kind


def test_pairs_need_both_scans_scored():
    scans = (("a", 2), ("b", 1), ("a", 1), ("c", 1))
    records = [*(record(*scan) for scan in scans), record("c", 2, refused="no heart")]
    assert [(first.name, second.name) for first, second in pairs_of(records)] == [("a-1", "a-2")]
