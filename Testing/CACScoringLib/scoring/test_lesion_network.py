"""The patches that the lesion network sees, whatever the scan's voxels, and its answers at the voxels of the scan."""

from types import SimpleNamespace

import numpy as np
import pytest
from images import image_of

from CACScoringLib.anatomy.territories import Territories
from CACScoringLib.core.acquisition import Acquisition
from CACScoringLib.core.ct import AIR_HU, scan_from_image
from CACScoringLib.core.scan_grid import ScanGrid
from CACScoringLib.networks.configs import LESION_KINDS, LESION_PATCH
from CACScoringLib.scoring.lesion_network import (
    CORE,
    PATCH_STEP_MM,
    LesionPatch,
    PatchSampler,
    covering,
    network_input,
    voxel_kinds,
)
from CACScoringLib.scoring.parts import without_faint_stents

SPACING_MM = np.array([3.0, 0.5, 0.5])


@pytest.mark.parametrize("spacing_mm", [(0.75, 0.75, 2.0), (1.5, 1.5, 4.0)])
def test_a_patch_samples_a_linear_volume_exactly(spacing_mm):
    """Means over intervals keep a plane, so the value at each patch voxel is that of its centre in mm."""
    shape = (60, 160, 160)
    places = np.stack(np.indices(shape), axis=-1) * np.array(spacing_mm[::-1])
    volume = places @ np.array([3.0, -2.0, 1.0])
    centre = np.array([30, 80, 80])
    sampler = PatchSampler.around(centre, shape, np.array(spacing_mm[::-1]))
    patch = sampler.sample(volume[sampler.boxes])
    offsets = [step * (np.arange(n) - (n - 1) / 2) for n, step in zip(patch.shape, PATCH_STEP_MM, strict=True)]
    middle = centre * np.array(spacing_mm[::-1])
    expected = sum(
        weight * (start + offset).reshape([-1 if axis == n else 1 for n in range(3)])
        for axis, (weight, start, offset) in enumerate(zip((3.0, -2.0, 1.0), middle, offsets, strict=True))
    )
    inside = (slice(2, -2), slice(2, -2), slice(2, -2))
    # Slices are slabs, within which the volume is constant, so along k the mean is exact to half a slice.
    np.testing.assert_allclose(patch[inside], expected[inside], atol=3.0 * spacing_mm[2] / 2 + 1e-2)
    if spacing_mm == (0.75, 0.75, 2.0):
        np.testing.assert_allclose(patch[inside], expected[inside], atol=0.8)


def test_beyond_the_scan_there_is_air():
    hu, spacing_mm = np.full((40, 100, 100), 40), np.array(PATCH_STEP_MM)
    sampler = PatchSampler.around(np.array([1, 1, 1]), hu.shape, spacing_mm)
    patch = sampler.sample(hu[sampler.boxes], AIR_HU)
    assert patch.shape == LESION_PATCH
    assert patch[0, 0, 0] == pytest.approx(AIR_HU)
    assert patch[-1, -1, -1] == pytest.approx(40, abs=1)


def test_the_network_sees_windows_what_is_dense_territories_and_noise():
    hu, dense = np.full(LESION_PATCH, 1200, np.float32), np.zeros(LESION_PATCH, np.float32)
    hu[:8], hu[0], dense[2] = 2250, 3500, 0.25
    territories = np.arange(11, dtype=np.float32)[:, None, None, None] / 55 * np.ones((8, 12, 12), np.float32)
    inputs = network_input(LesionPatch(hu, dense, territories), 20.0)
    assert inputs.shape == (16, *LESION_PATCH)
    assert inputs[0, [-1, 1, 0], 0, 0].tolist() == [0, 0.5, 1], "metal"
    assert inputs[1:3, -1, 0, 0] == pytest.approx([1, (1200 + 150) / 1650])
    np.testing.assert_array_equal(inputs[3], dense)
    np.testing.assert_array_equal(inputs[4:15, 3, 40, 5], territories[:, 0, 0, 0])
    assert inputs[15] == pytest.approx(0.4)


def test_unknown_noise_is_usual_and_much_noise_is_bounded():
    patch = LesionPatch(*np.zeros((2, *LESION_PATCH), np.float32), np.zeros((11, 8, 12, 12), np.float32))
    unknown, usual, much, more = (
        network_input(patch, noise_hu)[-1, 0, 0, 0] for noise_hu in (None, 15.0, 400.0, 500.0)
    )
    assert unknown == usual < much == more


def test_every_voxel_lies_in_the_core_of_its_patch():
    places = np.random.default_rng(0).integers(0, (20, 200, 200), (400, 3))
    cover = covering(places, SPACING_MM)
    offsets_mm = np.abs(places - cover.centres[cover.patch]) * SPACING_MM
    assert (offsets_mm <= np.array(CORE) / 2 * PATCH_STEP_MM + 1e-9).all()
    assert set(cover.patch.tolist()) == set(range(len(cover.centres)))


def test_a_small_lesion_takes_one_patch():
    places = np.argwhere(np.ones((2, 6, 6), bool)) + 10
    assert len(covering(places, SPACING_MM).centres) == 1
    assert len(covering(np.zeros((0, 3), int), SPACING_MM).centres) == 0


def test_voxels_get_the_answers_at_their_places():
    shape = (12, 120, 120)
    hu = np.zeros(shape, np.int16)
    hu[:, 0], hu[0, 10, 0] = -1000, 1500
    hu[3:9, 30:46, 30:46] = 300
    hu[3:9, 30:46, 80:96] = 600
    scan = scan_from_image(image_of(hu, tuple(SPACING_MM[::-1])), Acquisition("memory", kvp=120.0))
    grid = ScanGrid((0.0, 0.0, 0.0), (6.0, 6.0, 1.0), (20, 20, 12))
    territories = Territories(grid, np.ones((12, 20, 20)), np.full((11, 12, 20, 20), 1 / 11, np.float32), "test")

    class ByBrightness:
        """Answer LAD where the CT is bright, RCA where it is very bright, by the wide window."""

        def run(self, inputs):
            assert inputs[:, -1].max() == pytest.approx(20 / 50)
            bright = inputs[:, 2] > 0.35
            answers = np.zeros((len(inputs), len(LESION_KINDS), *LESION_PATCH), np.float32)
            answers[:, 1], answers[:, 3] = ~bright, bright
            return answers

    flat = np.flatnonzero((hu >= 130) & (hu < 1500))
    kinds = voxel_kinds(flat, scan, territories, 20.0, SimpleNamespace(network=ByBrightness()))
    assert kinds.sum(axis=1) == pytest.approx(1, abs=1e-5)
    is_right = hu.reshape(-1)[flat] == 600
    assert (kinds[:, 3] > 0.5)[is_right].mean() > 0.7  # their edges are blurred
    assert (kinds[:, 1] > 0.5)[~is_right].all()


def test_specks_that_are_not_asked_about_take_no_patch():
    hu = np.full((12, 160, 160), -50, np.int16)
    hu[:, 0] = -1000
    hu[5:7, 30:36, 30:36] = hu[6, 120, 120] = 300
    scan = scan_from_image(image_of(hu, tuple(SPACING_MM[::-1])), Acquisition("memory", kvp=120.0))
    grid = ScanGrid((0.0, 0.0, 0.0), (8.0, 8.0, 1.0), (20, 20, 12))
    territories = Territories(grid, np.ones((12, 20, 20)), np.full((11, 12, 20, 20), 1 / 11, np.float32), "test")
    counts = []

    class Even:
        def run(self, inputs):
            counts.append(len(inputs))
            return np.full((len(inputs), len(LESION_KINDS), *LESION_PATCH), 0.5, np.float32)

    flat = np.flatnonzero(hu >= 130)
    model = SimpleNamespace(network=Even())
    is_asked = flat != np.ravel_multi_index((6, 120, 120), hu.shape)
    all_kinds, kinds = (voxel_kinds(flat, scan, territories, 20.0, model, asked) for asked in (True, is_asked))
    assert counts == [2, 1]
    np.testing.assert_array_equal(kinds[is_asked], all_kinds[is_asked])
    assert not kinds[~is_asked].any()
    assert not voxel_kinds(flat, scan, territories, 20.0, model, False).any()


def test_faint_stents_are_noise():
    """Plaques that look like stents are no evidence if their peak stays below 300 HU."""
    hu = np.zeros((1, 2, 12), np.float32)
    hu[0, 0, :3], hu[0, 0, 4:7], hu[0, 0, 8:11] = (150, 299, 150), (150, 300, 150), (150, 900, 200)
    flat = np.flatnonzero(hu)
    stent, noise = LESION_KINDS.index("stent"), LESION_KINDS.index("noise")
    kinds = np.zeros((9, len(LESION_KINDS)), np.float32)
    kinds[:, stent], kinds[:, noise], kinds[:, 0] = 0.6, 0.1, 0.3
    before = kinds.copy()
    moved = without_faint_stents(kinds, flat, hu)
    expected = before.copy()
    expected[:3, stent], expected[:3, noise] = 0.0, 0.7
    np.testing.assert_allclose(moved, expected, atol=1e-6)
    np.testing.assert_array_equal(kinds, before)
    assert without_faint_stents(kinds[:0], flat[:0], hu).shape == (0, len(LESION_KINDS))
