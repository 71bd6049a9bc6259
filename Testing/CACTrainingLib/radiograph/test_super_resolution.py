"""Thin slices from thick ones: interpolation compared with SciPy, the network with a residual known on paper."""

import numpy as np
import pytest
import torch
from scipy import ndimage

from CACScoringLib.models.cards import LoadedModel, ModelCard, Training
from CACScoringLib.networks.configs import SliceSuperResolutionConfig
from CACScoringLib.networks.registry import build
from CACTrainingLib.radiograph.super_resolution import HU_SCALE, interpolate, sharpen


@pytest.fixture
def volume():
    return np.random.default_rng(0).normal(40, 200, (7, 5, 6)).astype(np.int16)


@pytest.mark.parametrize("factor", [2, 3])
def test_interpolation_is_scipys_cubic_spline(volume, factor):
    thin = interpolate(volume, factor)
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
    residual = sharpen(volume, LoadedModel(card(config), network)) - interpolate(volume, 3)
    below = volume[np.maximum(np.arange(7) - 1, 0)].astype(float)
    above = volume[np.minimum(np.arange(7) + 1, 6)].astype(float)
    np.testing.assert_allclose(residual[0::3], (below - volume) / 2, atol=0.01)
    np.testing.assert_allclose(residual[1::3], 0, atol=0.01)
    np.testing.assert_allclose(residual[2::3], (above - volume) / 2, atol=0.01)
    assert HU_SCALE > 0
