"""Records of a study: kinds of scans, pairs, and storage as JSON."""

import json
from dataclasses import asdict

import pytest
from study_samples import record

from CACScoringLib.core.decoding import restore
from CACTrainingLib.studies.records import HeartAgreement, ScoringFacts, StudyRecord, Truth, pairs_of

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


COMPLETE = record(
    visible=True,
    values={"map": 2.0, "slices": 4.0},
    truth=Truth(3.0, {"LAD": 3.0}, DISTRACTORS),
    visible_arteries=("LAD",),
    slices=((True, 0.9), (False, 0.1)),
    map_lesions=(("LAD", 2.0, True), ("RCA", 0.1, None)),
    heart=HeartAgreement(0.9, 10.0, 1.5),
    facts=ScoringFacts(kvp=120.0, decomposition_settings={"floor_hu": 20.0}),
    warnings=("a doubt",),
)


@pytest.mark.parametrize("original", [COMPLETE, record(visible=None, refused="no heart")])
def test_json_round_trip(original):
    assert restore(json.loads(json.dumps(asdict(original), allow_nan=False)), StudyRecord) == original
