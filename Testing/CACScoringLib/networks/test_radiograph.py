"""The network for radiographs: the heart that it finds, its squares, its detail, and its backbones."""

import dataclasses

import pytest
import torch

from CACScoringLib.networks.radiograph import DETAIL_GAIN, RadiographNet, RadiographNetConfig, cut_out, with_detail

SMALL = RadiographNetConfig(views=("PA", "lateral"), size=32, width=4)


def untrained_network(config=SMALL):
    torch.manual_seed(0)
    return RadiographNet(config).eval()


def test_squares_about_the_hearts_are_evaluated():
    network, views = untrained_network(), torch.rand(1, 2, 432, 432)
    with torch.no_grad():
        network.finder.last.weight.normal_()  # away from the middle
        centres = network.locate(views)
        assert not torch.allclose(centres, torch.full_like(centres, 215.5), atol=0.5)
        torch.testing.assert_close(network(views), network(network.crop(views, centres), crops=True))


def test_squares_of_a_ramp_have_their_places():
    row, column = torch.meshgrid(torch.arange(100.0), torch.arange(120.0), indexing="ij")
    views = torch.stack([row, column])[None]
    square = cut_out(views, torch.tensor([[[40.0, 50.0], [40.0, 50.0]]]), 32, 8)
    expected = torch.arange(8) * 4.0 - 14
    torch.testing.assert_close(square[0, 0], (40 + expected)[:, None].expand(8, 8))
    torch.testing.assert_close(square[0, 1], (50 + expected)[None].expand(8, 8))


def test_detail_is_the_difference_from_the_surroundings():
    flat = torch.linspace(0, 1, 32).expand(1, 1, 32, 32).clone()
    inner = with_detail(flat, SMALL)[0, 1, 8:-8, 8:-8]
    torch.testing.assert_close(inner, torch.zeros_like(inner), atol=1e-4, rtol=0)
    flat[0, 0, 16, 16] += 0.5
    z = with_detail(flat, SMALL)
    assert z[0, 1, 16, 16] > 0.8 * DETAIL_GAIN * (0.5 / flat.std())
    torch.testing.assert_close(z[0, 0].std(), torch.tensor(1.0), atol=1e-3, rtol=0)


@pytest.mark.long
@pytest.mark.parametrize(("backbone", "weights"), [("resnet18", 11_176_512), ("densenet121", 6_953_856)])
def test_published_networks_are_the_usual_ones(backbone, weights):
    """torchvision's numbers of weights, without the last layer, and with two inputs in place of three colours."""
    network = untrained_network(dataclasses.replace(SMALL, backbone=backbone, views=("PA",), size=64))
    layers = network.backbones[0].layers
    assert sum(p.numel() for p in network.backbones[0].parameters()) == weights - 64 * 49
    x = torch.rand(1, 2, 64, 64)
    for layer in layers if backbone == "resnet18" else layers[0]:
        x = layer(x)
    assert x.shape[2:] == (2, 2)
    assert network(torch.rand(1, 1, 64, 64), crops=True).shape == (1, 3)
