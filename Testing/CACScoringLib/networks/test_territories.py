"""The territory network: what it gives, and for which inputs."""

import pytest
import torch

from CACScoringLib.core.labels import TERRITORIES
from CACScoringLib.models.preprocessing import TERRITORY_PATCH
from CACScoringLib.networks.configs import build
from CACScoringLib.networks.territories import INPUTS, STRIDE, TerritoryNet, TerritoryNetConfig


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return build(TerritoryNetConfig(width=2, blocks=1)).eval()


def test_probabilities_of_heart_and_of_territories_add_up(network):
    assert isinstance(network, TerritoryNet)
    with torch.no_grad():
        y = network(torch.rand(2, INPUTS, 16, 24, 32))
    assert y.shape == (2, 1 + len(TERRITORIES), 16, 24, 32)
    assert y[:, :1].min() >= 0
    assert y[:, :1].max() <= 1
    torch.testing.assert_close(y[:, 1:].sum(1), torch.ones(2, 16, 24, 32))


def test_the_patch_fits_and_other_sides_are_refused(network):
    assert TERRITORY_PATCH % STRIDE == 0
    with pytest.raises(ValueError, match="multiples of 8"):
        network(torch.rand(1, INPUTS, 16, 16, 20))
