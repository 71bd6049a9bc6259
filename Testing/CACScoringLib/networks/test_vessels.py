"""Networks for vessel scores: published ones against numbers of parameters worked out by hand, "voxel-sum" against
sums."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import ndimage

from CACScoringLib.core.labels import ARTERIES
from CACScoringLib.networks.configs import TERRITORY_STEP, UNLIKELY, VESSEL_KINDS, VesselNetConfig, build
from CACScoringLib.networks.vessels import VesselNet, preset
from CACScoringLib.networks.voxel_sum import AGATSTON_PER_HU_MM3, CELL, FIRST_TISSUE_HU

SMALL = VesselNetConfig(slices=4, size=32, field="heart", field_mm=40.0, width=4, reduction=2, patch=16, feed_forward=8)

CNN = (3**2 * 73 * 32 + 64) + (3**2 * 32 * 64 + 128) + (3**2 * 64 * 128 + 256) + (128 * 128 + 128) + (128 * 4 + 4)
LAYER = (3 * 128 * 128 + 3 * 128) + (128 * 128 + 128) + (128 * 512 + 512) + (512 * 128 + 128) + 4 * 128
VIT = (32 * 32 * 73 * 128 + 128) + 128 + 257 * 128 + 3 * LAYER + (2 * 128 + 128 * 4 + 4)


def small(kind: str, **changes: object) -> VesselNet:
    torch.manual_seed(0)
    return VesselNet(replace(SMALL, kind=kind, **changes)).eval()


def scan_with(*spots: tuple[int, int, int], value: float = 0.7) -> torch.Tensor:
    """Tissue of 40 HU with single bright voxels."""
    x = torch.full((1, 4, 32, 32), 0.14)
    for spot in spots:
        x[(0, *spot)] = value
    return x


def randomised(network: VesselNet) -> VesselNet:
    """Return the network with random last weights, so that its shares depend on the input."""
    torch.manual_seed(1)
    torch.nn.init.normal_(network.body.last.weight[: len(ARTERIES) + 1], std=2.0)
    return network


@pytest.mark.parametrize(
    ("kind", "count"), [("cnn", CNN), ("se-cnn", CNN + (73 * 4 + 4) + (4 * 73 + 73)), ("vit", VIT)]
)
def test_the_paper_by_hand(kind, count):
    with torch.device("meta"):
        network = VesselNet(preset("paper", kind))
    assert sum(p.numel() for p in network.parameters()) == count


@pytest.mark.parametrize("kind", VESSEL_KINDS)
def test_four_scores_of_every_scan(kind):
    network = build(replace(SMALL, kind=kind))
    assert isinstance(network, VesselNet)
    assert network.eval()(torch.rand(3, 4, 32, 32)).shape == (3, 4)
    with pytest.raises(ValueError, match=r"\[B, 4, 32, 32\] is needed"):
        network(torch.rand(3, 5, 32, 32))


def test_squeeze_and_excite_is_equation_2():
    network = small("se-cnn")
    x = torch.rand(2, 4, 32, 32)
    first, second = (network.squeeze.layers[n] for n in (0, 2))
    g = x.mean((2, 3))
    s = torch.sigmoid(torch.relu(g @ first.weight.T + first.bias) @ second.weight.T + second.bias)
    assert first.weight.shape == (2, 4)
    torch.testing.assert_close(network.slice_weights(x), s)
    torch.testing.assert_close(network(x), network.body(x * s[:, :, None, None]))


def test_voxel_sum_begins_above_the_density_of_tissue():
    network = small("voxel-sum")
    share = 1 / (4 + math.e**4)
    hu_mm3 = 2 * (0.7 * 1000 - 100 - FIRST_TISSUE_HU) * (40 / 32) ** 2 * 3
    expected = share * hu_mm3 * AGATSTON_PER_HU_MM3
    network.set_largest(100)
    with torch.no_grad():
        scores = network(scan_with((1, 5, 9), (3, 20, 31)))
    # The tolerance covers the hundred pixels just below the tissue's density, which hardly count.
    torch.testing.assert_close(scores, torch.full((1, 4), expected / 100), rtol=0.03, atol=0)


def test_maps_lie_at_calcium_and_sum_to_the_scores():
    network = randomised(small("voxel-sum"))
    network.set_largest(1)
    places = [(0, 3, 3), (2, 17, 30), (3, 31, 0)]
    x = scan_with(*places)
    with torch.no_grad():
        maps = network.maps(x)
        torch.testing.assert_close(maps.sum((2, 3, 4)), network(x))
    assert maps.shape == (1, 4, 4, 32, 32)
    total = maps[0].sum(0)
    assert sorted(map(tuple, torch.nonzero(total > 0.1 * total.max()).tolist())) == sorted(places)
    assert small("cnn").maps(x) is None


def test_voxel_sum_sees_the_next_slices_and_the_near_surroundings():
    network = randomised(small("voxel-sum"))
    network.body.bright = 0.6  # only the spot's cell is evaluated
    x = scan_with((1, CELL, CELL))
    with torch.no_grad():
        assert (network(x) > 0).all()
        score = network.maps(x)[0, :, 1, CELL, CELL]
        for place, is_near in (((0, 17, 17), True), ((2, 17, 17), True), ((3, 17, 17), False), ((1, 14, 14), True)):
            changed = x.clone()
            changed[(0, *place)] = 0.3
            assert torch.equal(network.maps(changed)[0, :, 1, CELL, CELL], score) != is_near


def test_doubts_add_nothing_and_certainty_is_that_of_the_sum():
    network = randomised(small("voxel-sum"))
    network.body.last.get_parameter("bias").data[len(ARTERIES)] = 0.0
    x = scan_with((0, 3, 3), (2, 17, 30))
    with torch.no_grad():
        cells = network.body._bright_cells(x)
        amounts, shares = network.body._amounts(x, cells)
        probability = 1 - shares[:, -1].exp()
        assert network.certainty(x).item() == pytest.approx(np.average(probability, weights=amounts.sum(1)), rel=1e-5)
        network.body.least = float(probability[amounts.sum(1) > 0.1].max()) + 1e-3
        assert network(x).max() < 1e-3
        assert network.certainty(torch.full((1, 4, 32, 32), 0.14)).tolist() == [1.0]


def test_territories_are_seen_near_their_place():
    network = randomised(small("voxel-sum", territories=True))
    x = torch.cat([scan_with((1, 17, 17)), torch.zeros(1, 4, 32, 32)], 1)
    changed = x.clone()
    changed[0, 4 + 1, 17, 17] = 5 * TERRITORY_STEP
    elsewhere = x.clone()
    elsewhere[0, 4 + 2, 17, 17] = elsewhere[0, 4 + 1, 2, 2] = 5 * TERRITORY_STEP

    def shares_at_the_spot(y: torch.Tensor) -> torch.Tensor:
        return network.body._amounts(y, network.body._bright_cells(y))[1][0, :, 17 % CELL, 17 % CELL]

    with torch.no_grad():
        assert not torch.equal(shares_at_the_spot(x), shares_at_the_spot(changed))
        assert torch.equal(shares_at_the_spot(x), shares_at_the_spot(elsewhere))


def test_the_territory_names_the_artery_and_the_undecided_is_told_apart():
    network = randomised(small("voxel-sum", territories=True, least_probability=0.3))
    places = [(0, 3, 3), (1, 12, 20), (2, 17, 30), (3, 30, 5)]
    x = torch.cat([scan_with(*places), torch.zeros(1, 4, 32, 32)], 1)
    for (k, j, i), label in zip(places, (4, 2, 4, 6), strict=True):  # RCA, LAD, RCA, mitral annulus
        x[0, 4 + k, j, i] = label * TERRITORY_STEP

    def scores(probability: float) -> tuple[list[float], list[float], float]:
        """Return what is counted, what is undetermined, and the certainty, if all voxels have a probability."""
        network.body.last.weight.data.zero_()
        bias = network.body.last.get_parameter("bias").data
        bias.zero_()
        bias[len(ARTERIES)] = math.log(len(ARTERIES) * (1 - probability) / probability)
        counted = network.maps(x).sum((2, 3, 4))[0]
        return counted.tolist(), network.undetermined(x)[0].tolist(), float(network.certainty(x))

    with torch.no_grad():
        counted, undetermined, certainty = scores(0.4)
        spot = (0.7 * 1000 - 100 - FIRST_TISSUE_HU) * (40 / 32) ** 2 * 3 * AGATSTON_PER_HU_MM3
        assert counted == pytest.approx([0, spot, 0, 2 * spot], rel=0.01), "all of a voxel, in its territory alone"
        assert (undetermined, certainty) == ([0, 0, 0, 0], 1)
        assert scores(0.2) == ([0, 0, 0, 0], pytest.approx(counted), 1)  # nothing is stated of which to be uncertain
        assert scores(UNLIKELY / 2)[1] == [0, 0, 0, 0]


def test_a_lesion_counts_as_a_whole_by_its_mean_probability():
    network = randomised(small("voxel-sum", territories=True, least_probability=0.3))
    spots = [(n % 4, 3 + 4 * (n % 7), 2 + 3 * (n % 10)) for n in range(40)]
    touching = [(k, j, i + 1) for k, j, i in spots]
    x = torch.cat([scan_with(*spots, *touching), torch.full((1, 4, 32, 32), 2 * TERRITORY_STEP)], 1)
    x[:, 4:][x[:, :4] < 0.5] = 0  # what is not bright belongs to no artery
    with torch.no_grad():
        cells = network.body._bright_cells(x)
        amounts, shares = network.body._amounts(x, cells)
        probability, weight = torch.zeros(4, 32, 32), torch.zeros(4, 32, 32)
        for _, k, j, i, amount, share in zip(*(n.tolist() for n in cells), amounts, shares, strict=True):
            place = k, slice(CELL * j, CELL * (j + 1)), slice(CELL * i, CELL * (i + 1))
            weight[place], probability[place] = amount.sum(0), 1 - share[-1].exp()
        labels, count = ndimage.label(weight.numpy() > 0, np.ones((3, 3, 3)))
        means = [np.average(probability[labels == n], weights=weight[labels == n]) for n in range(1, count + 1)]
        network.body.least = float(np.median(means))
        counted, undetermined = network.maps(x)[0].sum(0).numpy(), float(network.undetermined(x).sum())
        for n, mean in enumerate(means, 1):
            assert set(counted[labels == n] > 0) == {mean > network.body.least}
        assert min(counted.sum(), undetermined) > 0
        unit = float(network.body._agatston_of_unit())
        assert counted.sum() + undetermined == pytest.approx(unit * float(weight.sum()), rel=1e-4)
        share = counted.sum() / (counted.sum() + undetermined)
        assert float(network.certainty(x)) == pytest.approx(share, rel=1e-4)


def calcium_at(*places, amount=0.5, artery=1):
    """Return calcium at places as VesselNet takes it in training, [1, 4, 32, 32]."""
    amounts, arteries = torch.zeros(1, 4, 32, 32), torch.zeros(1, 4, 32, 32, dtype=torch.long)
    for place in places:
        amounts[(0, *place)], arteries[(0, *place)] = amount, artery
    return amounts, arteries


@pytest.mark.long
def test_training_with_true_calcium_learns_its_places_and_artery():
    torch.manual_seed(0)
    network = small("voxel-sum", width=4).train()
    network.set_largest(100)
    calcium_places, bright_places = [(1, 5, 9), (2, 12, 20)], [(3, 25, 28), (0, 20, 5)]
    x, calcium = scan_with(*calcium_places, *bright_places), calcium_at(*calcium_places)
    optimizer = torch.optim.Adam(network.parameters(), 0.01)
    first = float(network(x, calcium)[1].detach())
    for _ in range(60):
        optimizer.zero_grad()
        _, error = network(x, calcium)
        error.backward()
        optimizer.step()
    assert float(error.detach()) < 0.1 * first
    maps = network.maps(x)[0].detach()
    scores = torch.stack([maps[:, k, j, i] for k, j, i in calcium_places + bright_places])
    assert scores[:2].argmax(1).tolist() == [1, 1], "the artery of the training"
    assert scores[:2, 1].min() > 5 * scores[2:].max(), "places as bright without calcium"
