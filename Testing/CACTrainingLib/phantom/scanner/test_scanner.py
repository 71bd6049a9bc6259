"""Slice profile, noise, tube voltage."""

import numpy as np
import pytest

from CACTrainingLib.phantom.scanner.noise import NoiseSource, direction_gains
from CACTrainingLib.phantom.scanner.scanner import KERNELS, Grid, Scanner, centred_grid

GRID = Grid((4, 256, 256), (0.7, 0.7, 3.0), (0.0, 0.0, 0.0))


@pytest.mark.parametrize("thickness", [1.0, 3.0, 5.0])
def test_slice_profile_has_unit_integral_and_its_thickness(thickness):
    z = np.linspace(-10, 10, 4001)
    profile = Scanner(slice_thickness_mm=thickness).profile(z)
    assert np.trapezoid(profile, z) == pytest.approx(1, rel=1e-4)
    half = z[profile >= profile.max() / 2]
    assert half[-1] - half[0] == pytest.approx(thickness, abs=0.15)


def test_grid_holds_the_range_and_the_field_of_view():
    grid = centred_grid(Scanner(field_of_view_mm=400, slice_spacing_mm=2.5), (-50.0, 50.0), (3.0, -2.0))
    assert grid.shape == (40, 512, 512)
    assert grid.z_mm()[[0, -1]] == pytest.approx([-48.75, 48.75])
    assert grid.x_mm().mean() == pytest.approx(3.0)
    assert grid.y_mm().mean() == pytest.approx(-2.0)


@pytest.mark.parametrize("kernel", sorted(KERNELS))
def test_noise_has_unit_variance_and_the_kernels_spectrum(kernel):
    scanner = Scanner(kernel=KERNELS[kernel])
    field = NoiseSource((1, 2), GRID, scanner).slice_field(0)
    assert field.std() == pytest.approx(1, rel=0.03)
    power = np.abs(np.fft.rfft2(field)) ** 2
    frequency = np.hypot(np.fft.fftfreq(256, 0.7)[:, None], np.fft.rfftfreq(256, 0.7)[None])
    low = power[(frequency > 0) & (frequency < 0.05)].mean()
    middle = power[(frequency > 0.2) & (frequency < 0.3)].mean()
    expected = (
        0.3 * scanner.kernel.transfer(np.array(0.25)) ** 2 / (0.09 * scanner.kernel.transfer(np.array(0.04)) ** 2)
    )
    assert middle / low == pytest.approx(expected, rel=0.25)


def test_overlapping_slices_share_noise():
    source = NoiseSource((3,), GRID, Scanner(slice_thickness_mm=5, slice_spacing_mm=2.5))
    a, b, c = (source.slice_field(k) for k in range(3))
    assert np.corrcoef(a.ravel(), b.ravel())[0, 1] == pytest.approx(0.5, abs=0.03)
    assert np.corrcoef(a.ravel(), c.ravel())[0, 1] == pytest.approx(0.0, abs=0.03)
    assert a.std() == pytest.approx(1, rel=0.03)


def test_noise_is_reproducible_and_differs_between_slices():
    first, again = NoiseSource((5,), GRID, Scanner()), NoiseSource((5,), GRID, Scanner())
    assert np.array_equal(first.slice_field(2), again.slice_field(2))
    assert not np.array_equal(first.slice_field(2), first.slice_field(3))
    assert not np.array_equal(first.slice_field(2), NoiseSource((6,), GRID, Scanner()).slice_field(2))


def test_wide_shoulders_give_streaks_along_the_long_way():
    y, x = np.mgrid[-180:181.0, -180:181.0]
    round_body = np.where(np.hypot(x, y) < 120, 0.0, -1000.0)
    shoulders = np.where(np.hypot(x / 175, y / 90) < 1, 0.0, -1000.0)
    assert direction_gains(round_body, 1.0)[0] == pytest.approx(direction_gains(round_body, 1.0)[1])
    gain_x, gain_y = direction_gains(shoulders, 1.0)
    assert gain_y > 1.5 * gain_x
    field = NoiseSource((7,), GRID, Scanner()).slice_field(0, gain_x, gain_y)
    # Rays along x disagree from row to row: rows are alike within, columns are not.
    assert np.diff(field, axis=0).std() > 1.2 * np.diff(field, axis=1).std()
