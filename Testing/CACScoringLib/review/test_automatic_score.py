"""Reviews in a scene of calcium outside the arteries, and of automatic scores with their intervals."""

import json
from dataclasses import replace

import automatic_patient
import heart_with_territories
import numpy as np
import pytest
import SimpleITK as sitk
from scene_edits import METHODS, ids

from CACScoringLib.core.errors import MaskError, ModelError
from CACScoringLib.core.labels import NOT_CORONARY, Artery, NonCoronary
from CACScoringLib.io.reading import read_lesion_labels
from CACScoringLib.models.cards import StoredModel
from CACScoringLib.quality import calibration
from CACScoringLib.record.score_record import read_result
from CACScoringLib.record.scores import MIN_WRITTEN
from CACScoringLib.report.explanation import explanation
from CACScoringLib.review.scene import SceneReview
from CACScoringLib.scoring.doubt import at_most_99_percent
from CACScoringLib.scoring.mass import lesion_masses


@pytest.fixture
def with_sites(opened):
    result = heart_with_territories.score(patient_sex="M")
    return opened(result), result


def test_exported_sites_scored_again_give_the_same_numbers(with_sites, tmp_path):
    review, _ = with_sites
    aorta = next(x for x in review.lesions("threshold") if x.site == NonCoronary.THORACIC_AORTA)
    review.assign("threshold", [aorta.id], NonCoronary.OTHER)
    review.look_at("threshold", [lesion.id for lesion in review.lesions("threshold")])
    review.set_reviewed("threshold", True)
    review.export(tmp_path / "out")
    document = json.loads((tmp_path / "out" / "scores.json").read_text(encoding="utf-8"))
    again = heart_with_territories.score(read_lesion_labels(tmp_path / "out" / "lesions.nii.gz"))
    assert document["non_coronary"]["reviewed"]
    assert document["non_coronary"]["other"]["agatston"] == pytest.approx(96)
    assert again.record.non_coronary.scores == review.non_coronary.scores
    assert again.methods["threshold"].total == review.result("threshold").total
    assert document["territories"]["model"] == "stand-in"
    exported = sitk.ReadImage(str(tmp_path / "out" / "territories.nii.gz"))
    np.testing.assert_array_equal(sitk.GetArrayFromImage(exported), again.territories)


def test_a_confirmed_site_stays_confirmed_in_a_reopened_scene(with_sites):
    review, _ = with_sites
    lesion = next(x for x in review.lesions("threshold") if review.review("threshold").suggested_site(x))
    review.assign("threshold", [lesion.id], lesion.site)
    reopened = SceneReview.of_record(review.scene, review.nodes.record)
    suggested = {x.id: reopened.review("threshold").suggested_site(x) for x in reopened.lesions("threshold")}
    assert suggested.pop(lesion.id) is None
    assert all(suggested.values())


@pytest.fixture(scope="module")
def automatic():
    return automatic_patient.scored()


@pytest.fixture
def review(opened, automatic):
    return opened(automatic)


def test_a_left_out_lesion_that_counts_has_a_mass(review):
    before, left_out = review.result("threshold"), review.left_out("threshold")[0]
    assert before.total.mass_mg is not None
    assert left_out.mass_mg is None
    review.assign("threshold", [left_out.id], Artery.RCA)
    after = review.result("threshold")
    (lesion,) = (x for x in after.lesions if x.id == left_out.id)
    masses = lesion_masses(
        review.scan.hu, review.scan.image.GetSpacing(), after.lesion_set, review.record.mass_calibration
    )
    assert (lesion.mass_mg, lesion.mass_standard_error_mg) == [*masses.values()][after.lesion_set.ids.index(lesion.id)]
    assert after.total.mass_mg == pytest.approx(before.total.mass_mg + lesion.mass_mg)


def as_written(verdict):
    kinds = {kind: share for kind, share in verdict.kinds.items() if share >= MIN_WRITTEN}
    return replace(verdict, kinds=kinds, second=None, is_stent=False, coronary=0.0, in_artery=0.0)


def numbers(result):
    """Return lesions, sums and features by method, without intervals and what is not written of verdicts."""
    none = {"interval_90": None, "mass_interval_90": None}
    return {
        name: (
            [replace(lesion, verdict=lesion.verdict and as_written(lesion.verdict)) for lesion in method.listed],
            [replace(score, **none) for score in (method.total, *method.arteries.values())],
            method.features,
        )
        for name, method in result.methods.items()
    }


@pytest.mark.parametrize("score", [automatic_patient.scored, heart_with_territories.score])
def test_an_untouched_review_repeats_all_numbers_of_the_run(opened, score):
    result = score()
    assert len(result.methods["threshold"].listed) >= 4
    assert numbers(opened(result).as_result()) == numbers(result)


def test_the_table_does_not_depend_on_the_route(review, automatic, tmp_path):
    """The run, its files, and a review left untouched number and name the same lesions."""
    automatic_patient.write(tmp_path / "run")
    by_route = automatic.methods, read_result(tmp_path / "run").methods, review.results()
    for method in METHODS:
        of_run, *others = ([(x.id, x.status, x.site) for x in methods[method].table.lesions] for methods in by_route)
        assert of_run
        assert others == [of_run, of_run]


def test_accepted_unchanged(review):
    before, out = review.result("threshold"), review.left_out("threshold")
    review.accept("threshold")
    after = review.result("threshold")
    assert (after.status, after.total, after.arteries) == ("reviewed", before.total, before.arteries)
    assert after.left_out == ()
    assert [lesion.id for lesion in review.left_out("threshold")] == [lesion.id for lesion in out]
    assert review.categories().status == "reviewed"
    assert not review.reviewed["decomposition"]
    review.undo()
    assert review.result("threshold").status == "automatic"


def test_beyond_the_models_calibration_categories_wait_for_a_reader(opened):
    out_of_range = automatic_patient.scored(domain={"ranges": {"slice_spacing_mm": [0.1, 0.2, 0.1]}, "limit": 1.0})
    review = opened(out_of_range)
    assert review.categories() is None
    assert not any(review.result(method).has_intervals for method in METHODS)
    assert "beyond-calibration" in [warning.code for warning in review.warnings]
    review.accept("threshold")
    assert review.categories().status == "reviewed"
    assert not review.result("threshold").withheld
    assert "beyond-calibration" in [warning.code for warning in review.warnings]


def test_candidates_without_an_artery_cannot_be_accepted(opened):
    without = automatic_patient.scored(judges=False)
    review = opened(without)
    assert review.left_out("threshold") == ()
    lesion = review.result("threshold").lesions[0]
    review.assign("threshold", [lesion.id], Artery.UNASSIGNED)
    with pytest.raises(MaskError, match="1 lesion has no artery"):
        review.accept("threshold")
    review.reject("threshold", [lesion.id])
    review.accept("threshold")
    assert review.result("threshold").total.lesions == len(automatic_patient.LESIONS) - 1


def test_map_follows_a_readers_decision(review):
    def sites(method: str) -> dict[int, Artery]:
        return {lesion.id: lesion.site for lesion in review.lesions(method)}

    before = sites("decomposition")
    assert before[1] == before[2] == before[3] == Artery.LAD, "numbered as in the clinical score"
    review.assign("decomposition", [2], Artery.RCA)
    review.assign("threshold", [1, 2], Artery.LCX)
    assert sites("decomposition") == before | {1: Artery.LCX, 2: Artery.RCA}, "one was decided otherwise"
    assert review.looked_at("decomposition") == {2}, "the others were seen in the other list"
    review.reject("threshold", [3])
    assert 3 not in sites("decomposition")
    review.assign("threshold", [3], Artery.LM)
    assert sites("decomposition")[3] == Artery.LM, "taken back"
    review.undo()
    assert 3 not in sites("decomposition")
    review.undo()
    voxels, of_map = review.review("threshold").flat_voxels([4]), review.review("decomposition").flat_voxels([4])
    review.give("threshold", voxels[:9], NOT_CORONARY)
    labels = dict(zip(*vars(review.review("decomposition").labelled).values(), strict=True))
    assert {labels[n] for n in voxels[:9]} == {NOT_CORONARY}, "the part at the rejected voxels"
    assert {labels[n] for n in voxels[9:]} == {Artery.LAD}
    review.give("threshold", voxels[9:], NOT_CORONARY)
    assert not {*of_map} & {*review.review("decomposition").voxels()[0]}
    review.accept("decomposition")
    review.assign("threshold", [1], Artery.RCA)
    assert sites("decomposition")[1] == Artery.LCX, "confirmed"


def test_without_coronary_calcium_the_map_has_none_either(review):
    def sites() -> dict[int, Artery]:
        return {lesion.id: lesion.site for lesion in review.lesions("decomposition")}

    def in_arteries() -> dict[int, Artery]:
        return {number: site for number, site in sites().items() if isinstance(site, Artery)}

    before = sites()
    review.assign("decomposition", [2], Artery.RCA)
    review.assign("threshold", [1], Artery.LCX)
    review.set_no_calcium("threshold")
    assert in_arteries() == {2: Artery.RCA}, "decided otherwise in the map alone"
    assert not review.reviewed["decomposition"]
    assert {n for n in before if n not in in_arteries() and isinstance(before[n], Artery)} > {1}
    review.undo()
    assert sites() == before | {1: Artery.LCX, 2: Artery.RCA}, "in one step"
    review.accept("decomposition")
    review.set_no_calcium("threshold")
    assert sites() == before | {1: Artery.LCX, 2: Artery.RCA}, "confirmed"


def test_the_map_follows_lesions_that_are_rejected_together(review):
    number = next(lesion.id for lesion in review.lesions("decomposition") if lesion.site == Artery.LAD)
    review.give("threshold", review.review("threshold").flat_voxels([number]), Artery.UNASSIGNED)
    review.reject_unassigned("threshold")
    assert number not in {lesion.id for lesion in review.lesions("decomposition")}
    assert number in review.unseen_candidates("decomposition"), "the reader may not have seen it"


def test_an_explanation_states_the_probability_after_the_review(review, automatic, tmp_path):
    verdicts = {lesion.id: lesion.verdict for lesion in automatic.methods["threshold"].listed}
    review.assign("threshold", [2, 10], Artery.RCA)
    review.accept("threshold")
    review.export(tmp_path / "out")
    record = read_result(tmp_path / "out")
    for lesion in record.methods["threshold"].lesions:
        percent = at_most_99_percent(verdicts[lesion.id].probability)
        assert f"coronary calcium with {percent} by the networks" in " ".join(
            explanation(lesion, record.methods["threshold"], record)
        )


def test_tables_hold_candidates_left_out_with_reasons(review, automatic):
    review.update_tables()
    table = review.nodes.lesions.GetTable()
    rows = [
        [table.GetValueByName(n, name).ToString() for name in ("Method", "Left out")]
        for n in range(table.GetNumberOfRows())
    ]
    reasons = [reason for method, reason in rows if method == "threshold_left_out"]
    assert reasons == [lesion.verdict.reason for lesion in automatic.methods["threshold"].left_out]
    assert not any(reason for method, reason in rows if method != "threshold_left_out")


@pytest.mark.long
def test_intervals_follow_the_score(opened, automatic, monkeypatch, tmp_path):
    """They are those of the kind that the score is at the moment, by the model that made the map."""
    model = StoredModel(automatic_patient.map_card(), tmp_path / "map.json", "user")
    monkeypatch.setattr(calibration, "list_models", lambda _network: [model])
    review = opened(automatic)
    for method in METHODS:
        result, expected = review.result(method), automatic.methods[method]
        assert result.total.interval_90 == expected.total.interval_90
        assert result.category_probabilities == expected.category_probabilities
    assert review.categories().probabilities == automatic.record.categories.probabilities
    before = review.result("threshold").total
    review.reject("threshold", ids(review, "threshold")[:3])
    after = review.result("threshold").total
    assert after.agatston < before.agatston
    assert [now < then for now, then in zip(after.interval_90, before.interval_90, strict=True)] == [True, True]
    review.accept("threshold")
    result = review.result("threshold")
    assert result.category_probabilities == {}
    low, high = result.total.interval_90
    assert low < result.total.agatston < high
    assert high - low == pytest.approx(2 * automatic_patient.REPEATS * 1.645 / 1.960)
    review.export(tmp_path / "out")
    document = json.loads((tmp_path / "out" / "scores.json").read_text(encoding="utf-8"))
    total = review.result("threshold").total
    assert document["methods"]["threshold"]["total"]["interval_90"] == list(total.interval_90)
    assert document["categories"]["probabilities"] == review.result("threshold").category_probabilities
    again = automatic_patient.scored(lesions=sitk.ReadImage(str(tmp_path / "out" / "lesions.nii.gz")))
    # In a review the map follows the reader; scored by labels it stays automatic.
    assert review.result("decomposition").total.agatston < automatic.methods["decomposition"].total.agatston
    for method, expected in (("threshold", total), ("decomposition", automatic.methods["decomposition"].total)):
        assert again.methods[method].total.interval_90 == pytest.approx(expected.interval_90, rel=1e-3)
    review.set_reviewed("decomposition", True)
    assert not review.result("decomposition").has_intervals


def test_no_intervals_without_the_models_card(scene, review, automatic, monkeypatch, tmp_path):
    """Omit intervals if the model is missing, has other evidence or a broken card; the review still opens."""
    assert not review.result("threshold").has_intervals
    card = automatic_patient.map_card()
    new_calibration = replace(card, calibration={**card.calibration, "candidates": {"network": 2.0}})
    model = StoredModel(new_calibration, tmp_path / "map.json", "user")
    monkeypatch.setattr(calibration, "list_models", lambda _network: [model])
    again = SceneReview(scene, review.nodes)
    assert not again.result("threshold").has_intervals
    again.accept("threshold")
    assert again.result("threshold").has_intervals

    def broken(_network):
        raise ModelError("broken")

    monkeypatch.setattr(calibration, "list_models", broken)
    assert not SceneReview(scene, review.nodes).result("threshold").has_intervals
