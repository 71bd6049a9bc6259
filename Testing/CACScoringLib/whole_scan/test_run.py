"""Whole-scan estimates of a result: choice of models, failures, and report."""

import json
from dataclasses import replace
from types import SimpleNamespace

import handmade_estimates as by_hand
import panel_results
import pytest

from CACScoringLib.core.errors import ModelError
from CACScoringLib.models import cards as models
from CACScoringLib.models.choice import ModelChoice, chosen_models
from CACScoringLib.report import page
from CACScoringLib.whole_scan import run as whole_scan_run
from CACScoringLib.whole_scan.estimates import estimate_record, recorded_estimates
from CACScoringLib.whole_scan.run import FAILED, estimate_whole_scan

ESTIMATORS = {
    "vessels": by_hand.estimator("vessels"),
    "radiomics": by_hand.estimator("radiomics", by_hand.RADIOMICS_TEST),
}


@pytest.fixture(scope="module")
def result():
    """Result of a small chest without a review; the map's score is 810 on the scale of clinical ones."""
    return panel_results.scored(panel_results.chest_image())


@pytest.fixture
def prediction(monkeypatch):
    """Function that sets the models' estimates, or errors, by kind."""

    def answers(**by_kind):
        def estimate(network, scan, heart, model, saliency):
            if isinstance(by_kind[network], Exception):
                raise by_kind[network]
            return by_kind[network], ()

        monkeypatch.setattr(whole_scan_run, "_estimate", estimate)
        return {kind: ESTIMATORS[kind] for kind in by_kind}

    return answers


def with_estimates(result, estimated):
    """Return a result with whole-scan estimates, in its record too."""
    opinions = {estimate.network: estimate_record(estimate, result.methods) for estimate in estimated.estimates}
    return replace(result.stating(second_opinions=opinions), estimates=estimated.estimates)


def stored(monkeypatch, *cards):
    """List models by (name, network, origin)."""
    stored_models = [
        models.StoredModel(SimpleNamespace(name=name, network=network), None, origin) for name, network, origin in cards
    ]

    def listed(network=None):
        return [model for model in stored_models if network in (None, model.card.network)]

    monkeypatch.setattr("CACScoringLib.models.choice.list_models", listed)


class TestWhichModels:
    @pytest.mark.parametrize(
        ("choice", "words"),
        [
            (ModelChoice(estimates=("vessels",)), "several models for 'vessels': v, w. Name one"),
            (ModelChoice(("v", "w"), estimates=("vessels",)), "Two models for 'vessels'"),
        ],
    )
    def test_refused_choices(self, monkeypatch, choice, words):
        stored(monkeypatch, ("v", "vessels", "user"), ("w", "vessels", "user"))
        with pytest.raises(ModelError, match=words):
            chosen_models(choice)


@pytest.fixture
def loaded(tmp_path, monkeypatch):
    pytest.importorskip("mirp")
    by_hand.save_vessels(tmp_path, test=by_hand.VESSELS_TEST)
    by_hand.save_radiomics(tmp_path)
    monkeypatch.setattr(models, "bundled_folder", lambda: tmp_path / "none")
    monkeypatch.setenv("CAC_MODEL_DIR", str(tmp_path))
    models_by_kind = chosen_models(ModelChoice(estimates=("all",))).estimates
    return {network: models.load_model(model.path, "cpu") for network, model in models_by_kind.items()}


@pytest.mark.long
def test_both_answer_with_numbers_and_a_picture(result, loaded):
    estimated = estimate_whole_scan(result.scan, result.region, result.methods, loaded)
    assert FAILED not in [warning.code for warning in estimated.warnings], estimated.warnings
    vessels, radiomics = estimated.estimates
    assert vessels.record.total == pytest.approx(sum(vessels.record.agatston.values()))
    assert vessels.saliency.GetSize() == result.scan.image.GetSize()
    assert len(vessels.record.slice_weights) == by_hand.SMALL_VESSELS.slices
    assert vessels.record.model.sha256 == loaded["vessels"].card.sha256
    assert "rank correlation" in vessels.record.trust
    assert 0 < radiomics.record.probability < 1
    assert radiomics.record.limit == 0.5
    assert set(radiomics.record.contributions) <= set(loaded["radiomics"].card.config["features"])
    unpictured = tuple(replace(estimate, saliency=None) for estimate in estimated.estimates)
    assert recorded_estimates(with_estimates(result, estimated).record) == unpictured


def test_a_report_has_numbers_and_worth(result, prediction):
    doubtful = {"LM": 0.0, "LAD": 0.0, "LCX": 7.0, "RCA": 726.0}
    answers = prediction(
        vessels=by_hand.vessels(10, 900, 20, 30, trust="Trust <it> little.", undetermined_agatston=doubtful),
        radiomics=by_hand.radiomics(0.12, contributions={"heart_<volume>": 0.5, "candidate_count": -1.25}),
    )
    estimated = estimate_whole_scan(result.scan, result.region, result.methods, answers)
    result = with_estimates(result, estimated)
    text = page.result_as_html(result)
    assert "<td>900</td>" in text
    assert "Trust &lt;it&gt; little." in text
    assert "heart &lt;volume&gt;" in text
    assert "LCX 7, RCA 726." in " ".join(text.split())
    document = json.loads(json.dumps(result.record.as_json()))
    assert document["second_opinions"]["vessels"]["agatston"] == {"LM": 10, "LAD": 900, "LCX": 20, "RCA": 30}
    assert document["second_opinions"]["vessels"]["undetermined_agatston"] == doubtful
    assert recorded_estimates(result.record) == estimated.estimates
