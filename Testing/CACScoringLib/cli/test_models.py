"""Models that come with CAC score the sample; a model that scores it wrongly is not installed."""

import dataclasses
import re

import pytest
import torch

from CACScoringLib.cli import main as cli
from CACScoringLib.io.reading import read_ct
from CACScoringLib.models.cards import find_model, list_models, read_card, read_network
from CACScoringLib.models.choice import ModelChoice, chosen_models, load_models
from CACScoringLib.models.store import save_model
from CACScoringLib.mrml.sample_data import sample_file
from CACScoringLib.networks.configs import SCORING_CONFIGS
from CACScoringLib.pipeline import score_scan
from CACScoringLib.whole_scan.run import estimate_whole_scan

_ALTERNATIVES = [
    model.card.name for network in SCORING_CONFIGS for model in list_models(network) if model.origin == "alternative"
]


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """Empty folder of the user's models."""
    monkeypatch.setenv("CAC_MODEL_DIR", str(tmp_path / "installed"))
    return tmp_path / "installed"


@pytest.mark.long
@pytest.mark.parametrize("name", ["", *_ALTERNATIVES])
def test_every_model_that_comes_with_cac_finds_calcium_in_the_sample(installed, name):
    choice = ModelChoice((name,) if name else (), device="cpu", estimates=("vessels",))
    models = load_models(chosen_models(choice))
    result = score_scan(read_ct(sample_file()), networks=models.networks)
    clinical, calcium_map = result.methods["threshold"], result.methods["decomposition"]
    assert clinical.total.agatston == pytest.approx(190.08), "the map has no say in the clinical rule"
    assert clinical.has_intervals
    assert calcium_map.total.clinical_agatston > 50
    assert calcium_map.has_intervals
    assert "map-calibrated-for-others" not in {warning.code for warning in result.warnings}
    whole_scan = estimate_whole_scan(result.scored_scan, result.heart, result.methods, models.estimates, False)
    assert whole_scan.estimates


def _shuffled(tensor):
    return tensor.flatten()[torch.randperm(tensor.numel(), generator=torch.Generator().manual_seed(0))].view_as(tensor)


@pytest.mark.long
@pytest.mark.parametrize(
    ("network", "change", "fault"),
    [
        ("decomposition", lambda weights: weights, None),
        ("decomposition", lambda weights: weights * 3, "map agreement"),
        ("lesions", _shuffled, "clinical agreement"),
        ("slices", lambda weights: -weights, "slice contrast"),
        ("territories", _shuffled, ""),
    ],
)
def test_a_model_is_installed_by_its_scores_of_the_sample(installed, tmp_path, capsys, network, change, fault):
    """Weights are finite and not zero, whatever the score; figures stand on the card, and hold there."""
    card, module = read_network(find_model(network).path)
    layers = [tensor for tensor in module.parameters() if tensor.ndim > 1]
    for tensor in layers if network in ("lesions", "territories") else layers[-1:]:
        tensor.data = change(tensor.data)
    path = save_model(module, dataclasses.replace(card, name="made"), tmp_path / "made")
    code = cli.main(["models", "install", str(path)])
    if fault is not None:
        assert code == cli.BAD_INPUT
        assert re.search(rf"With the model made .*{fault}", capsys.readouterr().err)
        assert not [*installed.glob("*")]
        return
    assert code == 0
    stored = read_card(installed / "made.json")
    assert stored.validation["sample"]["figures"]["clinical_score"] == pytest.approx(190.08)
    stored.validation["sample"]["figures"]["map_score"] *= 2
    changed = tmp_path / "made" / "made.json"
    changed.write_text(stored.to_json(), encoding="utf-8")
    assert cli.main(["models", "install", str(changed), "--overwrite"]) == cli.BAD_INPUT
    assert "and the card states" in capsys.readouterr().err
