"""Grids, intensities and the way back, on objects whose answer is known."""

import math

import numpy as np
import pytest
import SimpleITK as sitk
from images import image_of

from CACScoringLib.core.ct import Acquisition, CTScan
from CACScoringLib.core.errors import MaskError
from CACScoringLib.models.preprocessing import (
    MAX_NEIGHBOURS,
    POSITION_SCALE,
    HeartSlices,
    heart_slices,
    middle_square,
    position_channels,
    slice_input,
)

OBLIQUE = (0.98, -0.199, 0.0, 0.199, 0.98, 0.0, 0.0, 0.0, 1.0)


def slices_of(image: sitk.Image, heart: np.ndarray) -> HeartSlices:
    return heart_slices(CTScan(image, Acquisition("made up")), heart)


def box_mask(image: sitk.Image, k: slice, j: slice, i: slice) -> np.ndarray:
    mask = np.zeros(image.GetSize()[::-1], bool)
    mask[k, j, i] = True
    return mask


def points_mm(image: sitk.Image) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """LPS coordinates of every voxel of an image without rotation, each [k, j, i]."""
    k, j, i = np.indices(image.GetSize()[::-1])
    return tuple(o + s * n for o, s, n in zip(image.GetOrigin(), image.GetSpacing(), (i, j, k), strict=True))


def ramp_scan(spacing_mm=(0.7, 0.8, 2.0), size=(300, 280, 60)) -> sitk.Image:
    """HU rise linearly with LPS position, so that every interpolated value is known."""
    image = image_of(np.zeros(size[::-1], np.float32), spacing_mm, (-99.0, -90.0, -51.0))
    x, y, z = points_mm(image)
    ramp = image_of((2 * x + y - 3 * z).astype(np.float32), spacing_mm, image.GetOrigin())
    return ramp


@pytest.fixture(scope="module")
def scan_and_heart():
    scan = ramp_scan()
    return scan, box_mask(scan, slice(20, 41), slice(100, 181), slice(120, 201))


class TestSlices:
    def test_grid_is_centred_on_the_heart(self, scan_and_heart):
        scan, heart = scan_and_heart
        slices = slices_of(scan, heart)
        image = slices.grid.in_space(scan).image(slices.heart)
        assert image.GetSpacing() == pytest.approx((1.0, 1.0, 1.5))
        middle = image.TransformContinuousIndexToPhysicalPoint((111.5, 111.5, 0))[:2]
        assert middle == pytest.approx(scan.TransformContinuousIndexToPhysicalPoint((160, 140, 0))[:2])
        assert slices.centre[:2] == pytest.approx((111.5, 111.5))

    def test_values_are_those_of_the_scan_at_the_same_place(self, scan_and_heart):
        scan, heart = scan_and_heart
        slices = slices_of(scan, heart)
        image = slices.grid.in_space(scan).image(slices.heart)
        x, y, _ = points_mm(image)
        # Along k the scan is a staircase of 2 mm slabs from −52 mm on, averaged here at 1500 points to a slice.
        points = image.GetOrigin()[2] + 1.5 * np.arange(len(slices))[:, None] + (np.arange(1500) / 1500 - 0.4997) * 1.5
        z = (-51 + 2 * np.floor((points + 52) / 2)).mean(1)[:, None, None]
        hu = slices.hu[MAX_NEIGHBOURS:-MAX_NEIGHBOURS]
        inside = np.s_[:, 30:-30, 30:-30]  # away from where the window leaves the scan
        np.testing.assert_allclose(hu[inside], (2 * x + y - 3 * z)[inside], atol=0.02)

    @pytest.mark.parametrize("slice_mm", [1.5, 4.5])
    def test_a_lesion_in_a_single_slice_stays_there(self, slice_mm):
        """Slices that fit the grid stay sharp, also when pasted back."""
        hu = np.zeros((20, 40, 40), np.float32)
        hu[10] = 100
        scan = image_of(hu, (1.0, 1.0, slice_mm))
        slices = slices_of(scan, box_mask(scan, slice(2, 18), slice(0, 40), slice(0, 40)))
        lesion = slices.hu[MAX_NEIGHBOURS:-MAX_NEIGHBOURS, 112, 112]
        assert np.count_nonzero(lesion) == slice_mm / 1.5
        np.testing.assert_allclose(lesion[lesion > 0], 100, rtol=1e-5)
        back = slices.grid.paste(slices.hu[MAX_NEIGHBOURS:-MAX_NEIGHBOURS], scan.GetSize())
        assert back[9:12, 20, 20] == pytest.approx([0, 100, 0], abs=1e-3)

    def test_slices_do_not_move_with_the_mask(self, scan_and_heart):
        scan, heart = scan_and_heart
        moved = box_mask(scan, slice(18, 41), slice(100, 181), slice(120, 201))
        steps = (slices_of(scan, heart).grid.first[2] - slices_of(scan, moved).grid.first[2]) / (1.5 / 2.0)
        assert steps == pytest.approx(round(steps), abs=1e-9)
        assert round(steps) in (2, 3)

    def test_neighbours_are_the_slices_below_and_above(self, scan_and_heart):
        scan, heart = scan_and_heart
        slices = slices_of(scan, heart)
        x = slice_input(slices, np.array([0, 5]), neighbours=2)
        assert x.shape == (2, 5, 224, 224)
        for row, s in enumerate((0, 5)):
            for channel, offset in enumerate((0, -2, -1, 1, 2)):
                expected = np.clip((slices.hu[s + MAX_NEIGHBOURS + offset] + 50) / 1000, 0, 1)
                np.testing.assert_allclose(x[row, channel], expected, atol=1e-6)
        with pytest.raises(ValueError, match="3 neighbours"):
            slice_input(slices, np.array([0]), neighbours=3)

    def test_position_in_the_hearts_frame(self):
        """A ball: 0 in its middle and ±1 on its surface, along every axis."""
        scan = image_of(np.zeros((80, 120, 120), np.int16), (1.0, 1.0, 1.5))
        x, y, z = points_mm(scan)
        slices = slices_of(scan, (x - 60) ** 2 + (y - 55) ** 2 + (z - 60) ** 2 <= 40**2)
        k, j, i = (np.nonzero(slices.heart.any(axes))[0] for axes in ((1, 2), (0, 2), (0, 1)))
        position = position_channels(slices, np.arange(len(slices))) / POSITION_SCALE
        assert position[0, 0, 0, [i[0], i[-1]]] == pytest.approx([-1, 1], abs=0.02)
        assert position[0, 1, [j[0], j[-1]], 0] == pytest.approx([-1, 1], abs=0.02)
        assert position[[k[0], k[-1]], 2, 0, 0] == pytest.approx([-1, 1], abs=0.04)
        assert np.abs(position).max() <= 2.0001
        inputs = slice_input(slices, np.arange(3), neighbours=1, position=True)
        assert inputs.shape == (3, 6, 224, 224)
        part = slice_input(slices, np.arange(3), neighbours=1, position=True, box=middle_square(160))
        np.testing.assert_array_equal(part, inputs[..., 32:192, 32:192])

    def test_bad_masks(self, scan_and_heart):
        scan, heart = scan_and_heart
        with pytest.raises(MaskError, match="empty"):
            slices_of(scan, heart & False)
        with pytest.raises(MaskError, match="grid"):
            slices_of(scan, heart[1:])


@pytest.mark.long
@pytest.mark.parametrize("in_plane_mm", [0.5, 0.92, 1.4])
@pytest.mark.parametrize("slice_mm", [1.0, 2.5, 5.0])
def test_mass_is_kept_there_and_back(in_plane_mm, slice_mm):
    """A Gaussian blob of σ 2 mm and 300 HU at its peak has (2π)^1.5 σ³ × 300 HU·mm³."""
    size = [round(120 / in_plane_mm), round(120 / in_plane_mm), round(60 / slice_mm)]
    scan = image_of(np.zeros(size[::-1], np.float32), (in_plane_mm, in_plane_mm, slice_mm))
    x, y, z = points_mm(scan)
    distance2 = (x - 61.3) ** 2 + (y - 58.8) ** 2 + (z - 30.4) ** 2
    slices = slices_of(scan, distance2 < 25**2)
    grid_image = slices.grid.in_space(scan).image(slices.heart)
    x, y, z = points_mm(grid_image)
    blob = 300 * np.exp(-((x - 61.3) ** 2 + (y - 58.8) ** 2 + (z - 30.4) ** 2) / (2 * 2.0**2))
    back = slices.grid.paste(blob.astype(np.float32), scan.GetSize())
    mass = back.sum() * math.prod(scan.GetSpacing())
    assert mass == pytest.approx((2 * math.pi) ** 1.5 * 2.0**3 * 300, rel=1e-3)
    again = slices.grid.resample(back, 0.0).sum() * 1.5
    assert again == pytest.approx(mass, rel=1e-3)


@pytest.mark.parametrize("direction", [None, OBLIQUE])
def test_place_is_kept(direction):
    scan = image_of(np.zeros((30, 150, 160), np.int16), (0.8, 0.8, 2.0), (-70.0, 20.0, 400.0), direction)
    slices = slices_of(scan, box_mask(scan, slice(5, 25), slice(40, 110), slice(50, 120)))
    spot = np.zeros(slices.heart.shape, np.float32)
    spot[9:12, 99:102, 119:122] = 500
    centre = slices.grid.in_space(scan).image(spot).TransformIndexToPhysicalPoint((120, 100, 10))
    back = slices.grid.paste(spot, scan.GetSize())
    k, j, i = (float(np.average(n, weights=back[back > 0])) for n in np.nonzero(back))
    assert scan.TransformContinuousIndexToPhysicalPoint((i, j, k)) == pytest.approx(centre, abs=0.1)
