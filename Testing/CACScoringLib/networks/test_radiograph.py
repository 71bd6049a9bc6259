"""The network for radiographs: the heart that it finds, its squares, its details, and its backbones."""

import dataclasses

import pytest
import torch

from CACScoringLib.networks import radiograph

SMALL = radiograph.RadiographNetConfig(views=("PA", "lateral"), size=32, width=4)


def untrained_network(config=SMALL):
    torch.manual_seed(0)
    return radiograph.RadiographNet(config).eval()


def test_squares_about_the_hearts_are_evaluated():
    network, views = untrained_network(), torch.rand(1, 2, 864, 864)
    with torch.no_grad():
        network.finder.last.weight.normal_()  # away from the middle
        centres = network.locate(views)
        assert not torch.allclose(centres, torch.full_like(centres, 431.5), atol=0.5)
        torch.testing.assert_close(network(views), network(network.crop(views, centres), crops=True))


def test_squares_of_a_ramp_have_their_places():
    row, column = torch.meshgrid(torch.arange(100.0), torch.arange(120.0), indexing="ij")
    views = torch.stack([row, column])[None]
    square = radiograph.cut_out(views, torch.tensor([[[40.5, 50.5], [40.5, 50.5]]]), 8)
    expected = torch.arange(8) - 3.0
    torch.testing.assert_close(square[0, 0], (40 + expected)[:, None].expand(8, 8))
    torch.testing.assert_close(square[0, 1], (50 + expected)[None].expand(8, 8))


INPUTS = 8


def test_details_are_differences_from_the_surroundings():
    ramp = torch.linspace(0, 1, 128).expand(1, 1, 128, 128).clone()
    channels = radiograph.details(ramp)
    assert channels.shape == (1, INPUTS, 64, 64)
    inner = channels[0, :4, 20:-20, 20:-20]
    torch.testing.assert_close(inner, torch.zeros_like(inner), atol=2e-3, rtol=0)
    ramp[0, 0, 64:66, 64:66] += 0.05  # row 32, column 32
    changed = (radiograph.details(ramp) - channels)[0, :4, 32, 32]
    assert changed[0] > changed[1] > changed[2] > changed[3] > 0
    ramp[0, 0, 64:66, 64:66] += 5.0
    assert radiograph.details(ramp)[0, :4].abs().max() <= 4


@pytest.mark.parametrize("backbone", ["light", pytest.param("resnet18", marks=pytest.mark.long)])
def test_a_network_without_details_gets_the_square_place_and_view(backbone):
    network = untrained_network(dataclasses.replace(SMALL, backbone=backbone, views=("PA",), details=False))
    inputs = []
    network.backbones[0].register_forward_pre_hook(lambda module, args: inputs.append(args[0]))
    square = torch.rand(2, 1, 32, 32)
    network.eval()(square, crops=True)
    torch.testing.assert_close(inputs[0], radiograph.details(square)[:, 4:])


def test_the_answer_is_of_places_anywhere_and_of_rows_that_views_share():
    odds = torch.full((1, 2, 2, 24, 24), -8.0)
    odds[0, 0, 0, 5, 6] = odds[0, 1, 0, 5, 18] = 3.0
    moved, apart = odds.roll(7, 3), odds.clone()
    apart[0, 1] = apart[0, 1].roll(14, 1)
    torch.testing.assert_close(radiograph.pooled_evidence(moved), radiograph.pooled_evidence(odds))
    together, separate = radiograph.pooled_evidence(odds), radiograph.pooled_evidence(apart)
    torch.testing.assert_close(together[:, :20], separate[:, :20])
    assert together[0, 20] > separate[0, 20] + 5


@pytest.mark.long
@pytest.mark.parametrize(("backbone", "weights"), [("resnet18", 11_176_512), ("densenet121", 6_953_856)])
def test_published_networks_are_the_usual_ones(backbone, weights):
    """torchvision's numbers of weights, without the last layer, and with INPUTS in place of three colours."""
    network = untrained_network(dataclasses.replace(SMALL, backbone=backbone, views=("PA",), size=64))
    layers = network.backbones[0].layers
    assert sum(p.numel() for p in network.backbones[0].parameters()) == weights + (INPUTS - 3) * 64 * 49
    x = torch.rand(1, INPUTS, 64, 64)
    for layer in layers if backbone == "resnet18" else layers[0]:
        x = layer(x)
    assert x.shape[2:] == (2, 2)
    assert network(torch.rand(1, 1, 128, 128), crops=True).shape == (1, 3)
