"""Slice profile, noise, tube voltage."""

import numpy as np
import pytest

from CACScoringLib.core.grid import Grid
from CACTrainingLib.phantom.scanner.scanner import KERNELS, NoiseSource, Scanner

GRID = Grid((256, 256, 4), (0.7, 0.7, 3.0), (0.0, 0.0, 0.0))


@pytest.mark.parametrize("thickness", [1.0, 3.0, 5.0])
def test_slice_profile_has_unit_integral_and_its_thickness(thickness):
    z = np.linspace(-10, 10, 4001)
    profile = Scanner(slice_thickness_mm=thickness).profile(z)
    assert np.trapezoid(profile, z) == pytest.approx(1, rel=1e-4)
    half = z[profile >= profile.max() / 2]
    assert half[-1] - half[0] == pytest.approx(thickness, abs=0.15)


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
