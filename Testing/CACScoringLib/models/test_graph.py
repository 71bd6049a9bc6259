"""Graphs on model cards: they compute what the PyTorch modules compute, and refuse weights that do not fit."""

import base64
import zlib

import numpy as np
import pytest
import torch

from CACScoringLib.models.cards import alternatives_folder, bundled_folder, list_models, load_model, read_network
from CACScoringLib.models.graph import read_graph, write_graph
from CACScoringLib.models.inference import ProcessorNetwork
from CACScoringLib.networks.configs import (
    SCORING,
    GeneratorConfig,
    SliceClassifierConfig,
    TerritoryNetConfig,
    build,
)

SMALL = SliceClassifierConfig(width=4, residual_blocks=1)


def weights_of(network):
    return {name: tensor.numpy() for name, tensor in network.state_dict().items()}


def packed(graph: bytes) -> str:
    return base64.b64encode(zlib.compress(graph)).decode()


@pytest.mark.parametrize(
    ("config", "shape"),
    [
        (SliceClassifierConfig(4, 2, "average+max", neighbours=1, position=True), (3, 6, 20, 28)),
        (GeneratorConfig(width=4, residual_blocks=1), (2, 1, 20, 28)),
        (GeneratorConfig(4, 2, "resize", skips=True, neighbours=1, position=True), (3, 6, 20, 28)),
        (TerritoryNetConfig(width=4, blocks=2), (1, 2, 16, 16, 24)),
    ],
)
def test_a_graph_computes_the_same_as_the_trained_module(config, shape):
    torch.manual_seed(0)
    x = torch.rand(shape)
    network = build(config)
    for _ in range(10):  # until normalisations have the statistics of this input
        network(x * 3)
    with torch.no_grad():
        expected = network.eval()(x).numpy()
    graph = read_graph(write_graph(build(config)), weights_of(network))
    output = ProcessorNetwork(graph).run(x.numpy())
    np.testing.assert_allclose(output, expected, rtol=0, atol=1e-3 * expected.std())


def bundled_scoring_models():
    models = [model for model in list_models() if model.origin != "user"]
    return [model for model in models if model.card.network in SCORING]


@pytest.mark.parametrize("model", bundled_scoring_models(), ids=lambda model: model.card.name)
def test_cards_of_bundled_models_hold_the_graphs_of_their_modules(model):
    assert model.path.parent in (bundled_folder(), alternatives_folder())
    card, network = read_network(model.path)
    channels, *kernel = next(network.parameters()).shape[1:]
    channels = getattr(network, "input_channels", channels)
    torch.manual_seed(0)
    x = torch.rand(2, channels, *[32] * len(kernel))
    with torch.no_grad():
        expected = network.eval()(x).numpy()
    output = load_model(model.path, "cpu").network.run(x.numpy())
    np.testing.assert_allclose(output, expected, rtol=0, atol=1e-3 * expected.std())
    assert output.std() > 0
    assert len(card.graph) < 20_000


def test_weights_that_do_not_fit_are_refused():
    graph, weights = write_graph(build(SMALL)), weights_of(build(SMALL))
    wider = weights_of(build(SliceClassifierConfig(width=5, residual_blocks=1)))
    for other, message in (
        (wider, r"features.0.weight is of shape \(5, 1, 7, 7\) instead of \(4, 1, 7, 7\)"),
        (weights | {"extra": np.zeros(1)}, "extra belongs to no layer"),
        ({name: tensor for name, tensor in weights.items() if name != "dense.bias"}, "bias is missing"),
    ):
        with pytest.raises(ValueError, match=message):
            read_graph(graph, other)


@pytest.mark.parametrize(
    "text",
    [
        *("no base64!", base64.b64encode(b"no zlib").decode(), packed(b"<net"), packed(b"<net></net>")),
        packed(b"<net>" + b" " * 100_000_000),
    ],
    ids=["no base64", "no zlib", "torn", "no layers", "inflates without end"],
)
def test_a_damaged_graph_is_refused(text):
    with pytest.raises(ValueError, match="the graph cannot be read"):
        read_graph(text, {})
