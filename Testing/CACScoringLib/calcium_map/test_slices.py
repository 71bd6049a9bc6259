"""Which slices show calcium: the right slices reach the network, and its answers the right slices of the scan."""

import numpy as np
import pytest
import torch
from handmade_networks import loaded, scan_of
from torch import nn

from CACScoringLib.calcium_map.decomposition import slice_probabilities
from CACScoringLib.models.inference import CPU_BATCH, DeviceError, predict
from CACScoringLib.networks.van_velzen import SliceClassifierConfig


class BrightestPixel(nn.Module):
    """Probability: the highest value of the slice itself."""

    def forward(self, x):
        highest = x[:, 0].amax((1, 2))
        return torch.stack([1 - highest, highest], 1)


def scan_with_bright_planes(planes, slice_mm, count=40):
    hu = np.full((count, 60, 60), 40, np.int16)
    hu[list(planes), 28:32, 28:32] = 950
    heart = np.zeros(hu.shape, np.uint8)
    heart[5:-5, 10:50, 10:50] = 1
    return scan_of(hu, (1.0, 1.0, slice_mm), heart)


@pytest.mark.parametrize("slice_mm", [3.0, 5.0])
def test_thick_slices_are_marked_where_the_calcium_is(slice_mm):
    scan, heart = scan_with_bright_planes([12, 20, 21], slice_mm)
    found = slice_probabilities(scan, heart, loaded(BrightestPixel(), SliceClassifierConfig()))
    assert np.nonzero(found.on_scan > 0.9)[0].tolist() == [12, 20, 21]
    assert np.isnan(found.on_scan[:5]).all()
    assert np.isnan(found.on_scan[-5:]).all()
    assert np.isfinite(found.on_scan[5:-5]).all()
    assert found.on_grid.shape == (len(found.slices),)
    assert found.on_grid.max() == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("slice_mm", [0.6, 1.0, 1.5, 2.5])
def test_every_slice_of_the_heart_has_a_probability(slice_mm):
    """Also where the scan's slices are thinner than the grid's; and none lies further off than one of these."""
    scan, heart = scan_with_bright_planes([20], slice_mm)
    found = slice_probabilities(scan, heart, loaded(BrightestPixel(), SliceClassifierConfig()))
    in_heart = np.arange(5, 35)
    near_end = 1.5 / slice_mm
    assert np.isfinite(found.on_scan[(in_heart[0] + int(near_end)) : (in_heart[-1] - int(near_end))]).all()
    brightest = np.nonzero(found.on_scan == np.nanmax(found.on_scan))[0]
    assert np.abs(brightest - 20).max() * slice_mm <= 1.5


def test_neighbours_and_position_reach_the_network():
    class Channels(nn.Module):
        def forward(self, x):
            assert x.shape[1:] == (6, 224, 224)
            return x[:, :2].mean((2, 3))

    scan, heart = scan_with_bright_planes([20], 3.0)
    config = SliceClassifierConfig(neighbours=1, position=True)
    assert slice_probabilities(scan, heart, loaded(Channels(), config)).on_grid.size


class Greedy(nn.Module):
    """Runs out of memory beyond `fits` items on the GPU, which the meta device stands for."""

    def __init__(self, fits: int, fits_cpu: int = 99) -> None:
        super().__init__()
        self.place = nn.Parameter(torch.zeros(1, device="meta"))
        self.fits, self.fits_cpu, self.batches = fits, fits_cpu, []

    def to(self, device, *dtype):
        assert device == "cpu"
        self.place = nn.Parameter(torch.zeros(1))
        return self

    def forward(self, x):
        on_gpu = x.device.type == "meta"
        if len(x) > (self.fits if on_gpu else self.fits_cpu):
            raise torch.OutOfMemoryError("CUDA out of memory.")
        self.batches.append((x.device.type, len(x)))
        return torch.zeros(len(x), 1) if on_gpu else x.mean((2, 3))


INPUTS = np.arange(10, dtype=np.float32)[:, None, None, None] * np.ones((1, 1, 4, 4), np.float32)


def test_out_of_memory_halves_the_batch():
    network = Greedy(fits=3)
    outputs, warnings = predict(network, INPUTS, 8)
    assert network.batches == [("meta", 2)] * 5
    assert len(outputs) == 10
    assert [w.code for w in warnings] == ["smaller-batches"] * 2
    assert "batches of 2" in warnings[-1].message


def test_out_of_memory_moves_to_the_cpu():
    network = Greedy(fits=0)
    outputs, warnings = predict(network, INPUTS, 4)
    assert network.batches == [("cpu", CPU_BATCH)] * (10 // CPU_BATCH)
    np.testing.assert_allclose(outputs[:, 0], np.arange(10))
    assert [w.code for w in warnings] == ["smaller-batches", "smaller-batches", "moved-to-cpu"]


def test_out_of_memory_everywhere_and_other_errors():
    with pytest.raises(DeviceError, match="too little memory"):
        predict(Greedy(fits=0, fits_cpu=0), INPUTS, 4)

    class Broken(nn.Module):
        def forward(self, x):
            raise RuntimeError("sizes do not match")

    with pytest.raises(RuntimeError, match="sizes do not match"):
        predict(Broken(), INPUTS, 4)
