"""The architectures against table 2 of van Velzen et al., worked out by hand."""

import pytest
import torch
from torch import nn

from CACScoringLib.networks import configs
from CACScoringLib.networks.configs import build
from CACScoringLib.networks.van_velzen import PatchDiscriminator

# Weights of each layer of table 2 (kernel × inputs × outputs), plus 2 per channel for its batch normalisation.
DOWN = (7**2 * 1 * 64 + 128) + (3**2 * 64 * 128 + 256) + (3**2 * 128 * 256 + 512) + 6 * 2 * (3**2 * 256 * 256 + 512)
CLASSIFIER = DOWN + (256 * 2 + 2)
GENERATOR = DOWN + (3**2 * 256 * 128 + 256) + (3**2 * 128 * 64 + 128) + (7**2 * 64 * 1 + 1)
# Isola et al. 2017: C64-C128-C256-C512, the first without normalisation, then one channel.
DISCRIMINATOR = (
    (4**2 * 1 * 64 + 64)
    + (4**2 * 64 * 128 + 256)
    + (4**2 * 128 * 256 + 512)
    + (4**2 * 256 * 512 + 1024)
    + (4**2 * 512 * 1 + 1)
)


def parameters(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


@pytest.mark.parametrize(
    ("config", "by_hand", "count"),
    [
        (configs.SliceClassifierConfig(), CLASSIFIER, 7_457_218),
        (configs.GeneratorConfig(), GENERATOR, 7_828_865),
        (configs.DiscriminatorConfig(), DISCRIMINATOR, 2_763_585),
    ],
)
def test_published_networks_have_the_parameters_of_table_2(config, by_hand, count):
    assert parameters(build(config)) == by_hand == count


def test_patch_of_the_discriminator_is_70_pixels():
    network = PatchDiscriminator(configs.DiscriminatorConfig(width=2)).eval()
    x = torch.rand(1, 1, 224, 224, requires_grad=True)
    responses = network.patches(x)
    responses[0, 0, responses.shape[2] // 2, responses.shape[3] // 2].backward()
    touched = x.grad[0, 0].abs() > 0
    assert int(touched.any(0).sum()) == int(touched.any(1).sum()) == 70


def test_slice_sharpener_adds_nothing_before_training():
    torch.manual_seed(2)
    network = build(configs.SliceSuperResolutionConfig(factor=3, neighbours=1, width=4, layers=1))
    assert parameters(network) == (9 * 3 * 4 + 4) + (9 * 4 * 4 + 4) + (9 * 4 * 3 + 3)
    x = torch.rand(2, 3, 9, 13)
    with torch.no_grad():
        assert network(x).shape == (2, 3, 9, 13)
        assert not network(x).any()
        network.layers[-1].weight.normal_()
        assert network(x).any()
