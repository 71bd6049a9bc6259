"""Saved scenes, tables and exports of a review."""

import json
from dataclasses import replace

import pytest
from saved_scenes import read_mrml, write_mrml
from scene_edits import METHODS, PART, ids, numbers, paint

from CACScoringLib.core.errors import UnreadableError
from CACScoringLib.core.labels import Artery
from CACScoringLib.mrml import scene as mrml
from CACScoringLib.review.scene import SceneReview


def test_a_saved_scene_comes_back_can_be_edited_on_and_is_exported(review, scored, tmp_path):
    review.assign("threshold", ids(review, "threshold")[:2], Artery.LAD)
    review.reject("threshold", ids(review, "threshold")[2:4])
    review.assign("decomposition", ids(review, "decomposition")[:1], Artery.RCA)
    paint(review, "LCX", PART)
    review.refresh()
    k = review.result("decomposition").lesions[0].slices[0]
    review.switch_slice(k, False)
    review.set_reviewed("decomposition", True)
    review.update_tables()
    scene = read_mrml(write_mrml(review.scene, tmp_path / "saved"), tmp_path / "cache")
    (record,) = mrml.records_in(scene)
    again = SceneReview.of_record(scene, record)
    before = numbers(review)
    assert numbers(again) == before
    assert again.reviewed == {"threshold": False, "decomposition": True}
    assert again.confirmations == review.confirmations != {}
    for method in METHODS:  # painted lesions have new numbers in the reopened scene
        unseen = [[lesion.voxels for lesion in opened.not_looked_at(method)] for opened in (review, again)]
        assert unseen[0] == unseen[1]
    assert again.looked_at("threshold")
    for row, expected in zip(again.slices(), review.slices(), strict=True):
        assert row.position_ras == pytest.approx(expected.position_ras)  # a file may round the origin
        assert replace(row, position_ras=expected.position_ras) == expected
    assert again.slices_off == (k,)
    assert again.warnings == review.warnings
    assert not again.can_undo
    verdicts = ([lesion.verdict for lesion in r.result("threshold").lesions] for r in (again, review))
    assert next(verdicts) == next(verdicts)
    assert ids(again, "threshold")[3:] == ids(review, "threshold")[3:]

    first, second, *_ = ids(again, "threshold")
    again.assign("threshold", [first], Artery.OTHER)
    again.reject("threshold", [second])
    again.switch_slice(k, True)
    paint(again, "RCA", (slice(12, 16), slice(50, 70), slice(30, 50)))
    assert again.refresh()
    assert again.result("threshold").arteries[Artery.OTHER].lesions == 1
    assert numbers(again)["decomposition"] != before["decomposition"]
    while again.undo():
        continue
    assert numbers(again) == before

    again.set_reviewed("threshold", True)
    again.export(tmp_path / "reviewed")
    document = json.loads((tmp_path / "reviewed" / "scores.json").read_text(encoding="utf-8"))
    recorded = scored.record.as_json()
    for method in METHODS:
        total = document["methods"][method]["total"]
        assert total["agatston"] == again.result(method).total.agatston
        assert document["rules"][method] == json.loads(json.dumps(recorded["rules"][method]))
    for key in ("schema", "input", "acquisition", "measured", "heart", "models", "slice_probabilities"):
        assert document[key] == json.loads(json.dumps(recorded[key]))
    assert document["review"]["methods"] == {"threshold": True, "decomposition": True}
    assert document["review"]["slices_off"] == [k]
    assert document["categories"]["risk_class"] == again.categories().risk_class
    codes = [warning["code"] for warning in document["warnings"]]
    assert "slices-switched-off" in codes
    assert "unreviewed" not in codes


def test_a_scene_with_another_ct_is_refused(scene, review, scored):
    smaller = mrml.add_volume(scene, scored.scan.image[:, :, 2:], "other")
    review.nodes.record.SetNodeReferenceID("CAC.volume", smaller.GetID())
    with pytest.raises(UnreadableError, match="other is not the scan that was scored"):
        SceneReview.of_record(scene, review.nodes.record)


def test_a_scene_with_slices_without_columns_is_refused(scene, review):
    review.nodes.slices.RemoveAllColumns()
    with pytest.raises(UnreadableError, match="lost columns"):
        SceneReview.of_record(scene, review.nodes.record)
