"""Which slices show calcium: the right slices reach the network, and its answers the right slices of the scan."""

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from handmade_networks import loaded, scan_of
from torch import nn

from CACScoringLib.calcium_map.decomposition import generator_slices, on_scan_slices, slice_probabilities
from CACScoringLib.core.scan_grid import ScanGrid
from CACScoringLib.networks.configs import SliceClassifierConfig


class BrightestPixel(nn.Module):
    """Probability: the highest value of the slice itself."""

    def forward(self, x):
        highest = x[:, 0].amax((1, 2))
        return torch.stack([1 - highest, highest], 1)


def scan_with_bright_planes(planes, slice_mm, count=40):
    hu = np.full((count, 60, 60), 40, np.int16)
    hu[list(planes), 28:32, 28:32] = 950
    heart = np.zeros(hu.shape, bool)
    heart[5:-5, 10:50, 10:50] = True
    return scan_of(hu, (1.0, 1.0, slice_mm), heart)[0], heart


def test_thick_slices_with_calcium_are_marked():
    scan, heart = scan_with_bright_planes([12, 20, 21], 5.0)
    probabilities = slice_probabilities(scan, heart, loaded(BrightestPixel(), SliceClassifierConfig()))
    assert np.nonzero(probabilities.on_scan > 0.9)[0].tolist() == [12, 20, 21]
    assert np.isnan(probabilities.on_scan[:5]).all()
    assert np.isnan(probabilities.on_scan[-5:]).all()
    assert np.isfinite(probabilities.on_scan[5:-5]).all()
    assert probabilities.on_grid.shape == (probabilities.grid.size[2],)
    assert probabilities.on_grid.max() == pytest.approx(1, abs=1e-3)


def test_neighbours_and_position_reach_the_network():
    class Channels(nn.Module):
        def forward(self, x):
            assert x.shape[1:] == (6, 224, 224)
            return x[:, :2].mean((2, 3))

    scan, heart = scan_with_bright_planes([20], 3.0)
    config = SliceClassifierConfig(neighbours=1, position=True)
    assert slice_probabilities(scan, heart, loaded(Channels(), config)).on_grid.size


def grid_of(first, step, count):
    """A grid of the networks' slices; first and step in slices of the scan."""
    return ScanGrid((0.0, 0.0, first), (1.0, 1.0, step), (2, 2, count))


NAN = float("nan")


@pytest.mark.parametrize(
    ("first", "step", "values", "expected"),
    [
        (1.0, 0.5, (0.1, 0.7, 0.3), (NAN, 0.7, 0.7, NAN)),  # 1, 1.5 (in both slices) and 2
        (0.75, 0.5, (0.1, 0.2), (NAN, 0.2, NAN, NAN)),
        (0.0, 3.0, (0.4, 0.8), (0.4, 0.4, 0.8, 0.8)),  # thinner slices than the grid's: the nearest
        (0.0, 2.0, (0.4, 0.8), (0.4, 0.4, 0.8, 0.8)),  # slice 1 is as near to both: the first
        (1.6, 1.8, (0.6,), (NAN, 0.6, 0.6, NAN)),  # up to 0.9 from its centre
    ],
)
def test_values_of_the_scans_slices_by_hand(first, step, values, expected):
    grid = grid_of(first, step, len(values))
    values = on_scan_slices(np.array(values, np.float32), grid, sitk.Image(2, 2, 4, sitk.sitkInt16))
    np.testing.assert_array_equal(values, np.array(expected, np.float32))


@pytest.mark.parametrize(
    ("first", "step", "count", "numbers", "weights"),
    [
        (1.0, 0.75, 2, (0, 1), ((1, 0), (0, 1))),  # 2 mm slices: each is seen
        (1.0, 0.52, 3, (0, 1, 2), ((1, 0, 0), (0, 1, 0), (0, 0, 1))),  # 2.9 mm
        (0.75, 0.5, 4, (0, 2), ((1, 0), (1, 0), (0, 1), (0, 1))),  # 3 mm slices: 1 and 2, at 0.75 and 1.75
        (0.5, 0.5, 3, (0, 1, 2), ((0.5, 0.5, 0), (0, 1, 0), (0, 0.5, 0.5))),  # ends in slices 0 and 2
    ],
)
def test_slices_that_the_generator_sees_by_hand(first, step, count, numbers, weights):
    slice_numbers, slice_weights = generator_slices(grid_of(first, step, count), 5)
    assert tuple(slice_numbers) == numbers
    np.testing.assert_allclose(slice_weights, weights, atol=1e-6)
