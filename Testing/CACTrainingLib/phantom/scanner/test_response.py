"""Image of points against analytical answers and plain back-projection."""

import math
from dataclasses import replace

import numpy as np
import pytest

from CACScoringLib.core.grid import Grid
from CACTrainingLib.phantom.anatomy.points import PointCloud, tube
from CACTrainingLib.phantom.scanner import response
from CACTrainingLib.phantom.scanner.scanner import KERNELS, Scanner

GRID = Grid((96, 96, 7), (0.7, 0.7, 3.0), (-33.3, -33.1, -9.0))
SCANNER = Scanner(field_of_view_mm=0.7 * 512)


def rod(place, direction, diameter_mm, length_mm, density, step_mm=0.35):
    """Return a cylinder as points."""
    half = 0.5 * length_mm * np.array(direction) / np.linalg.norm(direction)
    return tube(np.stack([place - half, place + half]), np.full(2, diameter_mm / 2), density, step_mm)


def image_of(cloud, grid=GRID, scanner=SCANNER, displacement=None, view_gain=None):
    volume = np.zeros(grid.shape, np.float64)
    response.add_stamps(volume, response.image_of_points(cloud, grid, scanner, displacement, view_gain))
    return volume


@pytest.mark.parametrize(
    ("kernel", "thickness", "spacing"),
    [*((kernel, 3.0, 3.0) for kernel in sorted(KERNELS)), ("soft", 5.0, 2.5), ("soft", 1.0, 1.0)],
)
def test_a_still_object_keeps_its_mass_at_any_place(kernel, thickness, spacing):
    scanner = Scanner(slice_thickness_mm=thickness, slice_spacing_mm=spacing, kernel=KERNELS[kernel])
    grid = Grid((96, 96, int(20 / spacing)), (0.7, 0.7, spacing), (-33.3, -33.1, -10.0))
    for place in ((0.0, 0.0, 0.0), (3.21, -5.4, 0.77)):
        cloud = rod(place, (1, 0, 1), 2.0, 4.0, 0.4)
        assert image_of(cloud, grid, scanner).sum() * math.prod(grid.spacing_mm) == pytest.approx(cloud.total, rel=2e-3)


@pytest.mark.parametrize(("half_scan", "gantry"), [(False, 0.0), (True, 0.0), (True, 0.6)])
def test_motion_equals_back_projection_view_by_view(half_scan, gantry):
    """Compare with the sum over views of the ramp-filtered point spread at the point's place in each view."""
    scanner = replace(SCANNER, rotation_s=0.5, table_speed_mm_s=1e9, half_scan=half_scan, start_phase=gantry)

    def displacement(time_s):
        time_s = np.asarray(time_s)
        return np.stack([6 * np.sin(4 * time_s), 4 * np.cos(5 * time_s), 0 * time_s], axis=-1)

    image = image_of(PointCloud(np.zeros((1, 3)), np.ones(1)), scanner=scanner, displacement=displacement)[3]
    frequency = np.fft.rfftfreq(8192, 0.02)
    ramp = np.fft.fftshift(np.fft.irfft(frequency * scanner.transfer(frequency), 8192) / 0.02)
    s = (np.arange(8192) - 4096) * 0.02
    x, y = np.meshgrid(*GRID.axes_mm()[:2])
    expected, views = np.zeros_like(x), 360
    for angle in np.arange(views) * 2 * math.pi / views:
        lag = (angle / (2 * math.pi) - gantry + 0.5) % 1.0 - 0.5
        weight = np.clip((0.25 - abs(lag)) / 0.1 + 0.5, 0, 1) if half_scan else 0.5
        dx, dy, _ = displacement(lag * scanner.rotation_s)
        across = (x - dx) * math.cos(angle) + (y - dy) * math.sin(angle)
        expected += weight * np.interp(across, s, ramp) * 2 * math.pi / views
    expected *= scanner.profile(np.zeros(1))[0]
    in_reach = np.hypot(x, y) < 12
    assert np.abs(image - expected)[in_reach].max() < 0.04 * expected.max()
    assert expected.min() < -0.02 * expected.max()


def test_views_that_disagree_leave_streaks_but_no_mass():
    gain = 1 + np.random.default_rng(1).normal(0, 0.3, 40)
    gain += 1 - gain.mean()
    cloud = PointCloud(np.zeros((1, 3)), np.ones(1))
    wide = Grid((240, 240, 7), (0.7, 0.7, 3.0), (-84.0, -84.0, -9.0))
    plain, streaks = image_of(cloud, wide), image_of(cloud, wide, view_gain=gain)
    assert streaks.sum() == pytest.approx(plain.sum(), rel=0.06)
    is_far = np.hypot(*np.meshgrid(*wide.axes_mm()[:2])) > 10
    assert np.abs(streaks[3][is_far]).max() > 20 * np.abs(plain[3][is_far]).max()


@pytest.mark.parametrize("half_scan", [False, True])
def test_pictures_of_levels_blend_into_that_of_a_moving_object(half_scan):
    """A rod at two places, each seen by the views of its time, equals the rod moved as a cloud of points."""
    scanner = replace(SCANNER, rotation_s=0.5, table_speed_mm_s=1e9, half_scan=half_scan, start_phase=0.1)
    cloud = rod((0, 0, 0), (0, 0, 1), 3.0, 40.0, 1.0)
    x_mm = np.clip(20 * response.view_times_s(scanner, 0.0), -2, 2)
    levels, share = response.levels_of_views(x_mm, 9)
    places = [
        image_of(PointCloud(cloud.positions_mm + np.array([x, 0, 0]), cloud.weights), scanner=scanner)[3]
        for x in levels
    ]
    spectrum = np.fft.rfft2(places[0]).astype(np.complex64)
    changes, rows = [(place - places[0]).astype(np.float32) for place in places[1:]], slice(0, len(places[0]))
    no_filter = np.ones(spectrum.shape, np.float32)
    weights = response.add_levels(spectrum, changes, rows, GRID.spacing_mm[0], scanner, 0.0, share, no_filter)
    assert weights.sum() == pytest.approx(1)
    blended = np.fft.irfft2(spectrum, s=places[0].shape)

    def displacement(time_s):
        x = np.clip(20 * np.asarray(time_s), -2, 2)
        return np.stack([x, 0 * x, 0 * x], axis=-1)

    moved = image_of(cloud, scanner=scanner, displacement=displacement)[3]
    assert np.abs(blended - moved).max() < 0.05 * moved.max()
