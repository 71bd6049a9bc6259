"""Thin slices from thick ones against SciPy and on paper, and radiographs with a sharpened heart."""

import json

import numpy as np
import pytest
import torch
from images import image_of
from scipy import ndimage

from CACScoringLib.core.grid import Grid
from CACScoringLib.drr.projection import water_equivalent_mm
from CACScoringLib.models.cards import LoadedModel, ModelCard, Training, read_card
from CACScoringLib.models.preprocessing import RESIDUAL_HU, interpolated_slices
from CACScoringLib.networks.configs import SliceSuperResolutionConfig, build
from CACTrainingLib.cli import main as cli
from CACTrainingLib.radiograph import train_super_resolution as training
from CACTrainingLib.radiograph.cases import view_geometry
from CACTrainingLib.radiograph.super_resolution import (
    SlicePair,
    fade,
    sharpen,
    thin_grid,
    thin_slice_bodies,
)


@pytest.fixture
def volume():
    return np.random.default_rng(0).normal(40, 200, (7, 5, 6)).astype(np.int16)


@pytest.mark.parametrize("factor", [2, 3])
def test_interpolation_is_scipys_cubic_spline(volume, factor):
    thin = interpolated_slices(volume, factor)
    heights = (np.arange(factor * 7) - (factor - 1) / 2) / factor
    places = np.meshgrid(heights, np.arange(5.0), np.arange(6.0), indexing="ij")
    # At integer places along rows and columns a spline keeps the values.
    slow = ndimage.map_coordinates(volume.astype(float), places, order=3, mode="mirror")
    np.testing.assert_allclose(thin, slow, atol=0.02)
    if factor % 2:
        np.testing.assert_allclose(thin[factor // 2 :: factor], volume, atol=0.01)


def card(config):
    training = Training("", 0, {}, "")
    return ModelCard("x", "super_resolution", "custom", vars(config), 1, training, {}, {}, "", "")


def test_network_sees_the_neighbours_in_order_and_its_answer_is_added_in_order(volume):
    """A network with fixed weights adds half the difference of the slice below to the lowest thin slice, and half that
    of the slice above to the highest."""
    config = SliceSuperResolutionConfig(factor=3, neighbours=1, width=4, layers=0)
    network = build(config)
    with torch.no_grad():
        for layer in network.layers:
            if hasattr(layer, "weight"):
                layer.weight.zero_()
                layer.bias.zero_()
        for part, sign, neighbour in ((0, 1, 1), (1, -1, 1), (2, 1, 2), (3, -1, 2)):
            network.layers[0].weight[part, neighbour, 1, 1] = sign  # channels: the middle, below, above
        for part, sign, thin in ((0, 1, 0), (1, -1, 0), (2, 1, 2), (3, -1, 2)):
            network.layers[-1].weight[thin, part, 1, 1] = sign / 2
    residual = sharpen(volume, LoadedModel(card(config), network)) - interpolated_slices(volume, 3)
    below = volume[np.maximum(np.arange(7) - 1, 0)].astype(float)
    above = volume[np.minimum(np.arange(7) + 1, 6)].astype(float)
    np.testing.assert_allclose(residual[0::3], (below - volume) / 2, atol=0.01)
    np.testing.assert_allclose(residual[1::3], 0, atol=0.01)
    np.testing.assert_allclose(residual[2::3], (above - volume) / 2, atol=0.01)
    assert RESIDUAL_HU > 0


SPACING, ORIGIN = (2.0, 2.0, 3.0), (-60.0, -50.0, -45.0)
LOW, HIGH = (6, 10, 12), (24, 40, 45)
STANDS = {"PA": view_geometry(1.5, -1.0, (0.0, 0.0, 0.0)), "lateral": view_geometry(90.0, 0.0, (3.0, 2.0, 1.0))}


@pytest.fixture(scope="module")
def ct():
    """Noisy body with a dense plaque."""
    hu = np.random.default_rng(1).normal(0, 60, (30, 50, 60))
    hu[:, :4] = hu[:, -4:] = -1000
    hu[14:16, 24:27, 28:31] += 700
    return hu.astype(np.int16)


@pytest.fixture(scope="module")
def box(ct):
    """Slices around the heart."""
    return np.ascontiguousarray(ct[tuple(slice(a, b) for a, b in zip(LOW, HIGH, strict=True))])


@pytest.fixture(scope="module")
def bodies(ct):
    return {view: water_equivalent_mm(image_of(ct, SPACING, ORIGIN), stand) for view, stand in STANDS.items()}


@pytest.mark.parametrize("view", STANDS)
def test_same_as_projecting_the_sharpened_ct(ct, box, bodies, view):
    thin = interpolated_slices(box, 3)
    origin = tuple(o + s * n for o, s, n in zip(ORIGIN, SPACING, LOW[::-1], strict=True))
    grid = thin_grid(Grid(box.shape[::-1], SPACING, origin))
    projected = thin_slice_bodies(bodies, STANDS, box, grid, {"interpolated": thin})[view, "interpolated"]
    sharpened = interpolated_slices(np.maximum(ct, -1000), 3, order=1)
    thin_box = tuple(slice(f * a, f * b) for a, b, f in zip(LOW, HIGH, (3, 1, 1), strict=True))
    weights = fade(thin.shape, (2.0, 2.0, 1.0))
    before = np.maximum(interpolated_slices(box, 3, order=1), -1000)
    sharpened[thin_box] += weights * (np.maximum(thin, -1000) - before)
    direct = water_equivalent_mm(image_of(sharpened, (2.0, 2.0, 1.0), (*ORIGIN[:2], ORIGIN[2] - 1)), STANDS[view])
    middle = slice(360, 500)  # thin slices end before thick ones at the CT's ends
    assert np.abs(projected - bodies[view])[middle].max() > 0.2
    np.testing.assert_allclose(projected[middle], direct[middle], atol=2e-3)


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
def test_model_is_trained_and_evaluated_beside_interpolation(pairs):
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
    lines = (pairs.parent / "mine.training" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    assert "reduction" in json.loads(lines[-1])
