"""A model that finds nothing in the sample is not installed."""

import dataclasses

import pytest

from CACScoringLib.cli import main as cli
from CACScoringLib.models.cards import find_model, read_card, read_network
from CACScoringLib.models.store import save_model


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """Empty folder of the user's models."""
    monkeypatch.setenv("CAC_MODEL_DIR", str(tmp_path / "installed"))
    return tmp_path / "installed"


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
