"""Training of the super-resolution network on small blocks with a learnable residual."""

import json

import numpy as np
import pytest

from CACScoringLib.models.cards import read_card
from CACTrainingLib.cli import main as cli
from CACTrainingLib.radiograph import train_super_resolution as training
from CACTrainingLib.radiograph.super_resolution import SlicePair


def pair_of(seed):
    """Return plaques one thin slice high in uniform tissue; thick slices are means of three."""
    g = np.random.default_rng(seed)
    thin = np.full((18, 24, 20), 40.0)
    calcium = np.zeros(thin.shape)
    for k, j, i in zip(g.integers(3, 15, 6), g.integers(2, 20, 6), g.integers(2, 16, 6), strict=True):
        calcium[k, j : j + 2, i : i + 2] = 300
    thin += calcium
    thick = thin.reshape(6, 3, 24, 20).mean(1)
    heart = np.ones(thick.shape, bool)
    return SlicePair(*(a.astype(np.int16) for a in (thick, thin, calcium)), heart, (1.0, 1.0, 3.0))


@pytest.fixture
def pairs(tmp_path, monkeypatch):
    """Write synthetic pairs in place of digital patients; returns the model's path."""
    monkeypatch.setattr(training, "stratified_patients", lambda first, count: list(range(first, first + count)))
    folder = tmp_path / "mine.training" / training.PAIRS
    folder.mkdir(parents=True)
    for use, count in enumerate((4, 4, 6)):
        for number in range(70 + 10_000 * use, 70 + 10_000 * use + count):
            np.savez(folder / f"patient_{number:05d}.npz", **vars(pair_of(number)))
    return tmp_path / "mine"


@pytest.mark.long
def test_model_is_trained_and_evaluated_beside_interpolation(pairs, capsys):
    command = ["train", "super-resolution", "--output", str(pairs)]
    command += ["--settings", '{"patients": 4, "first_number": 70}']
    assert cli.main([*command, "--steps", "60", "--device", "cpu"]) == 0
    card = read_card(pairs.with_suffix(".json"))
    assert card.network == "super_resolution"
    assert "training: 70, 71, 72, 73; validation: 10070" in card.training.data
    assert card.training.settings["steps_done"] == 60
    plain, learned = card.validation["interpolated"], card.validation["learned"]
    assert card.validation["patients"] == 6
    assert learned["rms_heart"] != plain["rms_heart"]  # an untrained one adds nothing
    assert plain["peaks"] < 0.7
    assert cli.main([*command, "--steps", "60", "--device", "cpu", "--resume"]) == 2
    assert "exists already" in capsys.readouterr().err
    lines = (pairs.parent / "mine.training" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    assert "reduction" in json.loads(lines[-1])
