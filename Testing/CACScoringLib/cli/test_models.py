"""Models that come with CAC score the sample; a model that finds nothing in it is not installed."""

import dataclasses

import pytest

from CACScoringLib.cli import main as cli
from CACScoringLib.io.reading import read_ct
from CACScoringLib.models.cards import find_model, list_models, read_card, read_network
from CACScoringLib.models.choice import ModelChoice, chosen_models, load_models
from CACScoringLib.models.store import save_model
from CACScoringLib.mrml.sample_data import sample_file
from CACScoringLib.pipeline import score_scan
from CACScoringLib.whole_scan.run import estimate_whole_scan


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """Empty folder of the user's models."""
    monkeypatch.setenv("CAC_MODEL_DIR", str(tmp_path / "installed"))
    return tmp_path / "installed"


@pytest.mark.long
@pytest.mark.parametrize("name", ["", *(model.card.name for model in list_models() if model.origin == "alternative")])
def test_every_model_that_comes_with_cac_finds_calcium_in_the_sample(installed, name):
    choice = ModelChoice((name,) if name else (), device="cpu", estimates=("vessels",))
    models = load_models(chosen_models(choice))
    result = score_scan(read_ct(sample_file()), networks=models.networks)
    clinical, calcium_map = result.methods["threshold"], result.methods["decomposition"]
    assert clinical.total.agatston == pytest.approx(190.08), "the map has no say in the clinical rule"
    assert clinical.has_intervals
    assert calcium_map.total.clinical_agatston > 50
    assert calcium_map.has_intervals
    is_foreign = "map-calibrated-for-others" in {warning.code for warning in result.warnings}
    assert is_foreign == (name == "map-labels"), "which was calibrated with the former lesion network"
    whole_scan = estimate_whole_scan(result.scored_scan, result.heart, result.methods, models.estimates, False)
    assert whole_scan.estimates


@pytest.mark.long
def test_a_model_that_finds_nothing_in_the_sample_is_not_installed(installed, tmp_path, capsys):
    """Its weights are finite and not zero, but its map is empty everywhere."""
    for name, scale, code in (("alive", 1.0, 0), ("dead", 1e-4, cli.BAD_INPUT)):
        card, network = read_network(find_model("decomposition").path)
        network.last.weight.data *= scale
        path = save_model(network, dataclasses.replace(card, name=name), tmp_path / "made")
        assert cli.main(["models", "install", str(path)]) == code
    assert "With the model dead the calcium map of the sample" in capsys.readouterr().err
    assert [path.name for path in installed.glob("*.json")] == ["alive.json"]
    assert read_card(installed / "alive.json").name == "alive"
