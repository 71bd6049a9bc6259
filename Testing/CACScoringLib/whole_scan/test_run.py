"""Asking models for second estimates: which, what becomes of one that fails, and where all is written."""

import io
import json
import re
from dataclasses import replace
from types import SimpleNamespace

import handmade_estimates as by_hand
import numpy as np
import panel_results
import pytest
import SimpleITK as sitk
from PIL import Image

from CACScoringLib.cohort import table as cohort_table
from CACScoringLib.core.ct import CTError
from CACScoringLib.core.labels import Artery
from CACScoringLib.core.output import RESULT_FILES
from CACScoringLib.core.progress import Progress
from CACScoringLib.models import cards as models
from CACScoringLib.models.cards import ModelError
from CACScoringLib.report import files as report
from CACScoringLib.report import page, pictures
from CACScoringLib.run import ModelChoice, chosen_models
from CACScoringLib.whole_scan import run as whole_scan_run
from CACScoringLib.whole_scan.estimates import DIFFERS, SALIENCY_FILE, estimates_from_json
from CACScoringLib.whole_scan.run import FAILED, requested_estimators, with_whole_scan_estimates

ESTIMATORS = {
    "vessels": by_hand.estimator("vessels"),
    "radiomics": by_hand.estimator("radiomics", by_hand.RADIOMICS_TEST),
}


@pytest.fixture(scope="module")
def result():
    """Of a small chest: the map's score is 810 on the scale of clinical ones, and nobody has reviewed anything."""
    return panel_results.scored(panel_results.chest_image())


@pytest.fixture
def prediction(monkeypatch):
    """Lets models answer. Takes by kind an opinion, or an error."""

    def answers(**by_kind):
        def estimator(answer):
            def ask(result, model, saliency):
                if isinstance(answer, Exception):
                    raise answer
                return answer, ()

            return ask

        monkeypatch.setattr(
            whole_scan_run, "_ESTIMATE_BY", {kind: estimator(answer) for kind, answer in by_kind.items()}
        )
        return {kind: ESTIMATORS[kind] for kind in by_kind}

    return answers


def stored(monkeypatch, *cards):
    """Models by (name, network, origin)."""
    found = [
        models.StoredModel(SimpleNamespace(name=name, network=network), None, origin) for name, network, origin in cards
    ]

    def listed(network=None):
        return [model for model in found if network in (None, model.card.network)]

    for module in ("run", "whole_scan.run"):
        monkeypatch.setattr(f"CACScoringLib.{module}.list_models", listed)


class TestWhichModels:
    def test_kinds_are_named_once_in_any_order(self):
        assert requested_estimators("radiomics, vessels,radiomics") == ("radiomics", "vessels")
        assert requested_estimators("all") == ("all",)

    @pytest.mark.parametrize("text", ["vessel", "", "vessels,", "all,vessels", "scan.nii.gz"])
    def test_an_unknown_kind(self, text):
        with pytest.raises(ModelError, match="vessels, radiomics, all"):
            requested_estimators(text)

    def test_none_are_chosen_where_none_were_asked_for(self, monkeypatch):
        stored(monkeypatch, ("v", "vessels", "bundled"))
        assert chosen_models(ModelChoice()).estimates == {}

    def test_the_bundled_one_comes_before_the_users_and_a_named_one_before_both(self, monkeypatch):
        stored(monkeypatch, ("v", "vessels", "bundled"), ("mine", "vessels", "user"), ("r", "radiomics", "user"))
        chosen = chosen_models(ModelChoice(estimates=("radiomics", "vessels"))).estimates
        assert {kind: model.card.name for kind, model in chosen.items()} == {"vessels": "v", "radiomics": "r"}
        chosen = chosen_models(ModelChoice(("mine",), estimates=("all",))).estimates
        assert {kind: model.card.name for kind, model in chosen.items()} == {"vessels": "mine", "radiomics": "r"}

    @pytest.mark.parametrize(
        ("choice", "words"),
        [
            (ModelChoice(estimates=("radiomics",)), "no model for 'radiomics'.*cac train radiomics"),
            (ModelChoice(estimates=("vessels",)), "several models for 'vessels': v, w. Name one"),
            (ModelChoice(("v", "w"), estimates=("vessels",)), "Two models for 'vessels'"),
        ],
    )
    def test_what_cannot_be_chosen(self, monkeypatch, choice, words):
        stored(monkeypatch, ("v", "vessels", "user"), ("w", "vessels", "user"))
        with pytest.raises(ModelError, match=words):
            chosen_models(choice)

    def test_all_of_nothing(self, monkeypatch):
        stored(monkeypatch)
        with pytest.raises(ModelError, match="no model for a whole-scan estimate"):
            chosen_models(ModelChoice(estimates=("all",)))

    def test_a_named_model_whose_estimate_is_not_asked_for(self, monkeypatch):
        stored(monkeypatch, ("v", "vessels", "user"))
        with pytest.raises(ModelError, match="--whole-scan vessels"):
            chosen_models(ModelChoice(("v",)))
        with pytest.raises(ModelError, match="--whole-scan vessels"):
            chosen_models(ModelChoice(("v",), estimates=("radiomics",)))


class TestAsking:
    def test_estimates_come_with_the_result_in_their_own_step(self, result, prediction):
        progress = Progress()
        given = {"vessels": by_hand.vessels(1500), "radiomics": by_hand.radiomics(0.9)}
        asked = with_whole_scan_estimates(result, prediction(**given), progress=progress)
        assert asked.estimates == tuple(given.values())
        assert list(progress.seconds) == ["whole-scan estimates"]
        assert asked.methods is result.methods
        assert asked.warnings == result.warnings

    @pytest.mark.parametrize(
        ("error", "words"),
        [
            (CTError("The heart is too small."), "The heart is too small. The score"),
            (ValueError("odd"), "unexpected ValueError at test_run.py"),
        ],
    )
    def test_one_that_fails_is_a_warning_and_the_others_are_asked(self, result, prediction, error, words):
        asked = with_whole_scan_estimates(result, prediction(vessels=error, radiomics=by_hand.radiomics(0.9)))
        assert [estimate.network for estimate in asked.estimates] == ["radiomics"]
        [failure] = [warning for warning in asked.warnings if warning.code == FAILED]
        assert words in failure.message
        assert asked.methods is result.methods

    def test_what_is_no_number_is_no_estimate(self, result, prediction):
        asked = with_whole_scan_estimates(result, prediction(vessels=by_hand.vessels(float("nan"))))
        assert not asked.estimates
        assert "no finite number" in asked.warnings[-1].message

    def test_a_wide_difference_travels_with_the_result(self, result, prediction):
        asked = with_whole_scan_estimates(result, prediction(vessels=by_hand.vessels(0.1)))
        [told] = [warning for warning in asked.warnings if warning.code == DIFFERS]
        assert "calcium map: 810" in told.message
        document = report.result_as_json(asked, {})
        assert DIFFERS in [warning["code"] for warning in document["warnings"]]
        assert "They differ widely" in page.result_as_html(asked)


class TestStoredModels:
    """The real ways of asking, with models that learned nothing."""

    @pytest.fixture
    def loaded(self, tmp_path, monkeypatch):
        pytest.importorskip("mirp")
        by_hand.save_vessels(tmp_path, test=by_hand.VESSELS_TEST)
        by_hand.save_radiomics(tmp_path)
        monkeypatch.setattr(models, "bundled_folder", lambda: tmp_path / "none")
        monkeypatch.setenv("CAC_MODEL_DIR", str(tmp_path))
        chosen = chosen_models(ModelChoice(estimates=("all",))).estimates
        return {network: models.load_model(model.path, "cpu") for network, model in chosen.items()}

    def test_both_answer_with_numbers_and_a_picture(self, result, loaded):
        asked = with_whole_scan_estimates(result, loaded)
        assert FAILED not in [warning.code for warning in asked.warnings], asked.warnings
        estimated, told = asked.estimates
        assert estimated.total == pytest.approx(sum(estimated.agatston.values()))
        assert estimated.saliency.GetSize() == result.scan.image.GetSize()
        assert len(estimated.slice_weights) == by_hand.SMALL_VESSELS.slices
        assert estimated.sha256 == loaded["vessels"].card.sha256
        assert "rank correlation" in estimated.trust
        assert 0 < told.probability < 1
        assert told.limit == 0.5
        assert set(told.contributions) <= set(loaded["radiomics"].card.config["features"])
        assert estimates_from_json(json.loads(json.dumps(report.result_as_json(asked, {})))) == tuple(
            replace(estimate, saliency=None) for estimate in asked.estimates
        )


def with_saliency(result, k=12, highest=2.0):
    """An image on the scan's grid that is highest in slice k, at row 27 and column 41."""
    values = np.zeros(result.scan.hu.shape, np.float32)
    values[k, 26:29, 40:43], values[3, 30:34, 30:34] = highest, highest / 4
    image = sitk.GetImageFromArray(values)
    image.CopyInformation(result.scan.image)
    return image


class TestReport:
    def test_without_estimates_nothing_changes(self, result):
        assert report.result_as_json(result, {})["second_opinions"] == {}
        assert "Whole-scan estimate" not in page.result_as_html(result) + report.result_as_text(result)

    def test_numbers_agreement_and_worth(self, result, prediction):
        answers = prediction(
            vessels=by_hand.vessels(10, 900, 20, 30, trust="Trust <it> little."),
            radiomics=by_hand.radiomics(0.12, contributions={"heart_<volume>": 0.5, "candidate_count": -1.25}),
        )
        asked = with_whole_scan_estimates(result, answers)
        text = page.result_as_html(asked)
        assert "<td>900</td>" in text
        assert "about 960" in text
        assert "12%; positive from 30%" in text
        assert "same class" in text
        assert "not reviewed" in text
        assert "Trust &lt;it&gt; little." in text
        assert "heart &lt;volume&gt;" in text
        assert re.search(r"candidate count</td><td>−1.25</td><td>against", text)
        document = json.loads(json.dumps(report.result_as_json(asked, {})))
        assert document["second_opinions"]["vessels"]["agatston"] == {"LM": 10, "LAD": 900, "LCX": 20, "RCA": 30}
        assert estimates_from_json(document) == asked.estimates
        assert "vessel regression: Agatston about 960" in report.result_as_text(asked)

    def test_radiomics_alone_need_no_arteries(self, result, prediction):
        text = page.result_as_html(with_whole_scan_estimates(result, prediction(radiomics=by_hand.radiomics(0.9))))
        assert "<th>LCX</th>" not in text
        assert "yes <span" in text

    def test_saliency_is_shown_and_written(self, result, prediction, tmp_path):
        asked = with_whole_scan_estimates(
            result, prediction(vessels=by_hand.vessels(1500, saliency=with_saliency(result)))
        )
        assert "Slice 12 has the highest saliency" in page.result_as_html(asked)
        report.write_images(tmp_path, asked)
        written = sitk.ReadImage(tmp_path / SALIENCY_FILE)
        assert SALIENCY_FILE in RESULT_FILES
        np.testing.assert_array_equal(sitk.GetArrayFromImage(written), sitk.GetArrayFromImage(with_saliency(result)))

    def test_a_saliency_of_nothing(self, result, prediction):
        nothing = with_saliency(result, highest=0.0)
        asked = with_whole_scan_estimates(result, prediction(vessels=by_hand.vessels(1500, saliency=nothing)))
        assert "No change in any voxel" in page.result_as_html(asked)

    def test_the_picture_is_orange_where_the_saliency_is_highest(self, result):
        lesions = result.methods["threshold"].lesions
        jpeg, k = pictures.saliency_picture(result.scan, result.heart.mask, lesions, with_saliency(result))
        colours = np.asarray(Image.open(io.BytesIO(jpeg)).convert("RGB")).astype(int)
        assert k == 12
        orange = (colours[..., 0] - colours[..., 2]) > 100
        rows, columns = np.nonzero(orange)
        # The heart reaches from column 14 to 50 and row 16 to 48 with 15 mm, five voxels, around.
        zoom = colours.shape[1] / 47
        assert columns.mean() / zoom == pytest.approx(41.5 - 9, abs=1.5)
        assert rows.mean() / zoom == pytest.approx(27.5 - 11, abs=1.5)


def test_columns_of_a_cohort(result, prediction):
    asked = with_whole_scan_estimates(
        result, prediction(vessels=by_hand.vessels(1500), radiomics=by_hand.radiomics(0.75))
    )
    row = cohort_table.result_row(report.result_as_json(asked, {}))
    assert (row["vessels_agatston"], row["radiomics_probability"]) == (1500, 0.75)
    names = cohort_table.columns(["threshold"], False, ["vessels", "radiomics"])
    assert names[-7:-4] == ["vessels_agatston", "radiomics_probability", "seconds"]
    assert "vessels_agatston" not in cohort_table.columns(["threshold"], False)
    assert Artery.LAD in asked.estimates[0].agatston
