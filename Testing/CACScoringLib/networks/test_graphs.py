"""The graphs for processors answer as the modules they are made of, and refuse weights that do not fit."""

import numpy as np
import pytest
import torch

from CACScoringLib.models.inference import ProcessorNetwork
from CACScoringLib.networks.configs import (
    GeneratorConfig,
    HeartNetConfig,
    SliceClassifierConfig,
    TerritoryNetConfig,
)
from CACScoringLib.networks.graphs import WeightsError, graph_of
from CACScoringLib.networks.van_velzen import build


def trained(config, x):
    """A network whose normalisations are unlike those of a fresh layer, and its state."""
    torch.manual_seed(0)
    network = build(config)
    network(x * 3)
    return network.eval(), {name: tensor.numpy() for name, tensor in network.state_dict().items()}


@pytest.mark.parametrize(
    ("config", "shape"),
    [
        (HeartNetConfig(width=2, residual_blocks=1), (2, 1, 12, 16, 20)),
        (SliceClassifierConfig(width=4, residual_blocks=1), (2, 1, 20, 28)),
        (SliceClassifierConfig(4, 2, "average+max", neighbours=1, position=True), (3, 6, 20, 28)),
        (GeneratorConfig(width=4, residual_blocks=1), (2, 1, 20, 28)),
        (GeneratorConfig(4, 2, "resize", skips=True, neighbours=1, position=True), (3, 6, 20, 28)),
        (TerritoryNetConfig(width=4, blocks=2), (1, 2, 16, 16, 24)),
    ],
)
def test_a_graph_answers_as_the_trained_module(config, shape):
    x = torch.rand(shape)
    network, state = trained(config, x)
    with torch.no_grad():
        expected = network(x).numpy()
    answer = ProcessorNetwork(graph_of(config, state)).run(x.numpy())
    np.testing.assert_allclose(answer, expected, rtol=0, atol=1e-3 * expected.std())


def test_weights_that_do_not_fit_are_refused():
    config = SliceClassifierConfig(width=4, residual_blocks=1)
    _, state = trained(config, torch.rand(2, 1, 20, 28))
    with pytest.raises(WeightsError, match=r"features.0.weight is of shape \(4, 1, 7, 7\) instead of \(5, 1, 7, 7\)"):
        graph_of(SliceClassifierConfig(width=5, residual_blocks=1), state)
    with pytest.raises(WeightsError, match=r"features\.9\.layers\.0\.weight belongs to no layer"):
        graph_of(SliceClassifierConfig(width=4, residual_blocks=0), state)
    with pytest.raises(WeightsError, match="bias is missing"):
        graph_of(config, {name: tensor for name, tensor in state.items() if name != "dense.bias"})
