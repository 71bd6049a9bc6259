"""Input of the networks for vessel scores, of synthetic objects."""

from dataclasses import replace

import numpy as np
import pytest
from images import image_of

from CACScoringLib.core.ct import Acquisition, CTScan
from CACScoringLib.networks.configs import TERRITORY_STEP, VesselNetConfig
from CACScoringLib.whole_scan.vessels import normalise, to_agatston, vessel_input

HEART = VesselNetConfig(slices=16, size=32, field="heart", field_mm=48.0, around_mm=4.0)


def scan_of(hu: np.ndarray, spacing: tuple[float, float, float]) -> CTScan:
    return CTScan(image_of(hu, spacing, (-20.0, 7.0, -100.0)), Acquisition("made up"))


def chest(spacing: tuple[float, float, float], lesion_hu: float = 500.0) -> tuple[CTScan, np.ndarray]:
    """Return a ball of tissue, radius 15 mm, in lung, with an off-centre box of calcium of 6×6×6 mm, and its mask."""
    sides = [round(60 / s) for s in spacing]
    x, y, z = np.meshgrid(*((np.arange(n) + 0.5) * s - 30 for n, s in zip(sides, spacing, strict=True)), indexing="ij")
    heart = (x**2 + y**2 + z**2 < 15**2).T
    lesion = ((abs(x - 4) < 3) & (abs(y + 5) < 3) & (abs(z) < 3)).T
    hu = np.where(lesion, lesion_hu, np.where(heart, 40, -800)).astype(np.float32)
    return scan_of(hu, spacing), heart


@pytest.mark.parametrize("spacing", [(0.5, 0.5, 3.0), (0.75, 0.75, 1.0), (1.0, 0.6, 1.5), (1.2, 1.2, 0.6)])
def test_calcium_does_not_vanish(spacing):
    """The amount of calcium does not depend on the scan's voxels."""
    scan, heart = chest(spacing)
    bright = vessel_input(scan, heart, HEART)
    plain = vessel_input(*chest(spacing, lesion_hu=40.0), HEART)
    lesion_mm3 = np.count_nonzero(scan.hu == 500) * np.prod(spacing)
    assert lesion_mm3 == pytest.approx(6**3, rel=0.3)
    assert (bright - plain).sum() * 1000 * 1.5 * 1.5 * 3 == pytest.approx(460 * lesion_mm3, rel=0.01)


def test_window_and_surroundings():
    scan, heart = chest((0.5, 0.5, 1.5), lesion_hu=2000.0)
    x = vessel_input(scan, heart, HEART)
    assert x.dtype == np.float32
    assert x.shape == (16, 32, 32)
    assert x.max() == 1
    assert x[8, 16, 14] == pytest.approx(0.14)
    assert x[8, 16, 3] == 0, "lung"
    bone = scan.hu.copy()
    bone[:, :, :20] = 1000  # as near as 20 mm to the middle, 5 mm to the heart
    with_bone = scan_of(bone, (0.5, 0.5, 1.5))
    x = vessel_input(with_bone, heart, HEART)
    assert not x[:, :, :3].any()
    wide = vessel_input(with_bone, heart, replace(HEART, around_mm=12.0))
    assert wide[8, 16, 1] == 1


def test_territories_follow_the_slices():
    scan, heart = chest((0.5, 0.5, 1.5))
    labels = heart * np.uint8(4)
    labels[:, :60] *= 2
    x = vessel_input(scan, heart, replace(HEART, kind="voxel-sum", territories=True), labels)
    assert x.shape == (32, 32, 32)
    np.testing.assert_array_equal(x[:16], vessel_input(scan, heart, HEART))
    np.testing.assert_array_equal(x[24, :, 16] / TERRITORY_STEP, [0] * 6 + [8] * 10 + [4] * 10 + [0] * 6)


@pytest.mark.parametrize("output", ["linear", "log"])
def test_scores_and_back(output):
    scores = np.array([[0.0, 1.0, 12.5, 800.0]])
    shares = normalise(scores, 800.0, output)
    assert shares[0, 0] == 0
    assert shares[0, 3] == 1
    np.testing.assert_allclose(to_agatston(shares, 800.0, output), scores, atol=1e-9)
    assert to_agatston(np.array([-0.2]), 800.0, output) == 0
    assert to_agatston(np.array([40.0]), 800.0, output) <= 40 * 800
