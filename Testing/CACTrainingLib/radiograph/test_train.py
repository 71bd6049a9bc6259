"""`cac train radiograph` on synthetic radiographs."""

import json

import pytest

from CACScoringLib.models.cards import verify_model
from CACTrainingLib.cli.main import main

QUICK = {"size": 32, "training": {"loop": {"validate_every": 3}, "batch_size": 4, "finder_steps": 2}}


@pytest.fixture(scope="module")
def folder(write_cases, tmp_path_factory):
    folder = tmp_path_factory.mktemp("radiographs")
    write_cases(folder, 16, ("PA",))
    write_cases(folder / "others", 8, ("PA",), first=100)
    return folder


def train(folder, output, **more):
    command = ["train", "radiograph", "--data", folder, "--output", output, "--steps=6", "--device=cpu"]
    return main([*map(str, command), "--settings", json.dumps(QUICK | more)])


def test_a_model_is_written(folder, tmp_path):
    assert train(folder, tmp_path / "tiny", external=str(folder / "others"), curriculum=True) == 0
    card = verify_model(tmp_path / "tiny.json")
    assert card.network == "radiograph"
    assert card.config["views"] == ["PA"]
    assert card.training.settings["curriculum"]
    assert "SHA-256" in card.training.data
    assert "no real radiograph" in card.intended_use
    assert set(card.calibration) == {f"{kind}_{t}" for kind in ("image", "factors") for t in (0, 100, 400)}
    assert card.validation["external_n"] == 8
    assert len(card.validation["external_auc_above_0_95"]) == 2
    json.dumps(card.validation, allow_nan=False)


def test_patients_of_the_data_are_no_external_test(folder, tmp_path, capsys):
    assert train(folder, tmp_path / "tiny", external=str(folder)) == 3
    assert "is learned from" in capsys.readouterr().err
