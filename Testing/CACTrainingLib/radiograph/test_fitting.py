"""Fit of one fold on synthetic radiographs, splits, and calibration and fusion of known coefficients."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from interruption import interrupted_at

from CACScoringLib.core.errors import ModelError
from CACScoringLib.models.cards import verify_model
from CACScoringLib.networks.configs import RadiographNetConfig
from CACScoringLib.networks.radiograph import RadiographNet
from CACScoringLib.radiograph.view import enhance
from CACTrainingLib.cli.main import main
from CACTrainingLib.data.scan_table import read_radiographs
from CACTrainingLib.radiograph.dataset import NONE, PATIENTS, load_radiographs
from CACTrainingLib.radiograph.fitting import FitSettings, fit, fit_calibration, load_pretrained, validation_split
from CACTrainingLib.radiograph.task import (
    SEVERE_FIRST,
    Pictures,
    RadiographTask,
    RadiographTraining,
    ViewAugmentation,
    augment,
)
from CACTrainingLib.training.run_folder import CHECKPOINT
from CACTrainingLib.training.settings import LoopSettings

TRAINING = RadiographTraining(
    LoopSettings(60, validate_every=20, average=0.9, half_precision=False),
    batch_size=8,
    learning_rate=5e-3,
    finder_steps=5,
)
SETTINGS = FitSettings(RadiographNetConfig(size=32, width=6), TRAINING, "cpu")
SHORT = replace(SETTINGS, training=replace(TRAINING, loop=replace(TRAINING.loop, steps=8, validate_every=4)))


@pytest.fixture(scope="module")
def split(drawn):
    return validation_split(drawn, 0.5, 0, "agatston")


def test_no_patient_is_on_both_sides(drawn):
    shared = replace(drawn, patients=np.arange(24) // 2)  # two radiographs of each patient
    cases = np.arange(4, 24)
    training, validation = validation_split(shared, 0.25, 0, "agatston", cases)
    assert sorted([*training, *validation]) == cases.tolist()
    assert not set(shared.patients[training]) & set(shared.patients[validation])


@pytest.mark.long
def test_an_ended_training_goes_on_as_if_nothing_had_happened(drawn, split, tmp_path):
    complete = fit(drawn, *split, SHORT, tmp_path / "complete").network
    with interrupted_at(RadiographTask, "step", 7), pytest.raises(KeyboardInterrupt):
        fit(drawn, *split, SHORT, tmp_path / "ended")
    assert (tmp_path / "ended" / CHECKPOINT).exists()
    again = fit(drawn, *split, SHORT, tmp_path / "ended").network
    for name, weights in complete.state_dict().items():
        torch.testing.assert_close(again.state_dict()[name], weights, rtol=0, atol=0)


def test_a_curriculum_begins_with_severe_calcium(drawn):
    settings = replace(TRAINING, curriculum=SEVERE_FIRST, drawn_share=0.0)
    pictures = Pictures(drawn, drawn.scores["agatston"], np.arange(24), settings)
    generator = np.random.default_rng(0)
    least = [{s for s in pictures.draw(generator, 300, part)[1] if s > 0} for part in (0.0, 0.2, 0.5)]
    assert min(least[0]) >= 400
    assert 100 <= min(least[1]) < 400
    assert 0 < min(least[2]) < 100


def test_pictures_are_drawn_with_other_calcium_and_less_as_training_goes_on(drawn):
    pictures = Pictures(drawn, drawn.scores["agatston"], np.arange(24), replace(TRAINING, scale_spread=0.0))
    cases, scores = pictures.draw(np.random.default_rng(0), 200, 1.0)
    numbers = [number for _, calcium in cases for number in calcium]
    assert len(numbers) == 200
    assert {PATIENTS, NONE, 0} == set(numbers)
    scored = drawn.scores["agatston"]
    expected = [
        {PATIENTS: scored[case], NONE: 0.0, 0: 200.0}[number] for (case, _), number in zip(cases, numbers, strict=True)
    ]
    np.testing.assert_allclose(scores, expected)
    squares, maps = augment(drawn, cases[:6], [0], RadiographNetConfig(size=320), ViewAugmentation(), PICTURES)
    assert squares.shape == (6, 1, 320, 320)
    assert [bool(m.max() > 1) for m in maps] == [score > 0 for score in scores[:6]]


PICTURES = np.random.default_rng(3)


def test_the_same_exposure_is_enhanced_or_not(drawn_folder):
    """Every picture of a patient has the noise of its one exposure; enhancement is of that."""
    rows = read_radiographs(drawn_folder)[:2]
    plain = load_radiographs(rows, ("PA",), one_exposure=True)
    enhanced = load_radiographs(rows, ("PA",), "unsharp", one_exposure=True)
    inner = slice(60, -60), slice(60, -60)  # away from the square's border, which the complete view does not have
    for case in range(2):
        expected = enhance(plain.picture(case, 0), "unsharp")[inner]
        np.testing.assert_allclose(enhanced.picture(case, 0)[inner], expected, atol=2e-4)
    config, still = RadiographNetConfig(size=320), ViewAugmentation(0, 0, 0, 0)
    pictures = [(0, {PATIENTS: 1.0})] * 2
    first, second = augment(plain, pictures, [0], config, still, PICTURES)[0]
    torch.testing.assert_close(first, second, rtol=0, atol=0)
    renewed = load_radiographs(rows, ("PA",))
    first, second = augment(renewed, pictures, [0], config, still, PICTURES)[0]
    assert (first - second).abs().max() > 0.01


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


def patients(count, seed):
    """Simulate factors, a logit and a score with log odds 0.8 logit + 0.08 (age - 60) + 0.6 (male) - 0.3."""
    generator = np.random.default_rng(seed)
    factors = np.column_stack(
        [generator.normal(60, 10, count), generator.integers(0, 2, count), generator.normal(27, 5, count)]
    )
    logit = generator.normal(0, 1.5, count)
    odds = 0.8 * logit + 0.08 * (factors[:, 0] - 60) + 0.6 * factors[:, 1] - 0.3
    return factors, logit, (generator.random(count) < sigmoid(odds)) * 50.0


def test_known_coefficients_are_recovered():
    train_factors, _, train_scores = patients(20000, 0)
    factors, logit, scores = patients(20000, 1)
    calibration = fit_calibration((0,), train_scores, train_factors, logit[:, None], scores, factors)["factors_0"]
    np.testing.assert_allclose(
        [calibration[name] for name in ("logit", "age_years", "male", "bmi_kg_m2")], [0.8, 0.08, 0.6, 0], atol=0.06
    )
    assert abs(calibration["offset"] - (-0.3 - 0.08 * 60)) < 0.4


RESNET = RadiographNetConfig(backbone="resnet18", views=("PA", "lateral"), size=32)
PARTS = {"0": "conv1", "1": "bn1", "4": "layer1", "5": "layer2", "6": "layer3", "7": "layer4"}


def as_torchvision(network):
    """Return a ResNet18's state dict under torchvision's names, with three colours and the last layer."""
    state = {}
    for name, tensor in network.backbones[0].state_dict().items():
        _, part, suffix = name.split(".", 2)
        state[f"{PARTS[part]}.{suffix}"] = torch.randn_like(tensor) if tensor.is_floating_point() else tensor
    state["conv1.weight"] = torch.randn(64, 3, 7, 7)
    state["fc.weight"] = torch.randn(1000, 512)
    return state


@pytest.fixture(scope="module")
def network():
    return RadiographNet(RESNET)


@pytest.fixture(scope="module")
def state(network):
    return as_torchvision(network)


@pytest.mark.long
@pytest.mark.parametrize("ending", ["pth", "safetensors"])
def test_all_views_begin_with_them(network, state, tmp_path, ending):
    file = tmp_path / f"weights.{ending}"
    if ending == "pth":
        torch.save(state, file)
    else:
        from safetensors.torch import save_file

        save_file(state, file)
    assert len(load_pretrained(network, file)) == 64
    for backbone in network.backbones:
        loaded = backbone.state_dict()
        torch.testing.assert_close(loaded["layers.7.1.conv2.weight"], state["layer4.1.conv2.weight"])
        torch.testing.assert_close(loaded["layers.1.running_var"], state["bn1.running_var"])
        # A grey picture gives the same on two inputs as on three colours.
        torch.testing.assert_close(loaded["layers.0.weight"].sum(1), state["conv1.weight"].sum(1))


@pytest.mark.long
def test_a_file_for_another_network(network, state, tmp_path):
    torch.save({name: tensor for name, tensor in state.items() if "layer4" not in name}, tmp_path / "w.pth")
    with pytest.raises(ModelError, match=r"no torchvision state dict of resnet18.*layers\.7"):
        load_pretrained(network, tmp_path / "w.pth")


QUICK = {"size": 32, "training": {"loop": {"validate_every": 3}, "batch_size": 4, "finder_steps": 2}}


def train(folder, output, **more):
    command = ["train", "radiograph", "--data", folder, "--output", output, "--steps=6", "--device=cpu"]
    return main([*map(str, command), "--settings", json.dumps(QUICK | more)])


def test_a_model_is_written(drawn_folder, other_folder, tmp_path):
    assert train(drawn_folder, tmp_path / "tiny", external=str(other_folder), curriculum=True) == 0
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


def test_patients_of_the_data_are_no_external_test(drawn_folder, tmp_path, capsys):
    assert train(drawn_folder, tmp_path / "tiny", external=str(drawn_folder)) == 3
    assert "is learned from" in capsys.readouterr().err
