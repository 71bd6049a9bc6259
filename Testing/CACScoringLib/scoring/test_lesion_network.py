"""The patches that the lesion network sees, whatever the scan's voxels, and what it is asked."""

import numpy as np
import pytest
from handmade_networks import LooksLike, loaded
from images import image_of
from known_territories import label_of, territories_of

from CACScoringLib.core.ct import Acquisition, CTScan
from CACScoringLib.core.labels import Artery
from CACScoringLib.networks.configs import LESION_KINDS, LesionNetConfig
from CACScoringLib.scoring import lesion_network
from CACScoringLib.scoring.lesion_network import (
    PATCH_STEP_MM,
    PatchSampler,
    lesion_kinds,
    lesion_patches,
    network_input,
)
from CACScoringLib.scoring.lesions import ScoringRules, find_lesions


def scan_of(hu, spacing_mm):
    image = image_of(hu.astype(np.int16), spacing_mm)
    return CTScan(image, Acquisition("memory"))


def with_lesions(spacing_mm=(0.75, 0.75, 2.0), shape=(40, 100, 100), boxes=()):
    """A scan of 40 HU with boxes [k, j, i] of 400 HU, its lesions in the LAD, and territories all of the LAD."""
    hu = np.full(shape, 40)
    for box in boxes:
        hu[box] = 400
    scan = scan_of(hu, spacing_mm)
    lesions = find_lesions(scan.image, np.where(hu >= 130, np.uint8(Artery.LAD), 0), ScoringRules())
    return scan, lesions, territories_of(scan.image, np.full(shape, label_of("LAD")))


@pytest.mark.parametrize("spacing_mm", [(0.75, 0.75, 2.0), (0.5, 0.5, 1.0), (1.5, 1.5, 4.0)])
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
    scan, lesions, territories = with_lesions(boxes=[np.s_[0:2, 0:3, 0:3]])
    (patch,) = lesion_patches(lesions.id_map, lesions.ids, scan, territories)
    assert patch.hu.shape == (16, 48, 48)
    assert patch.hu[0, 0, 0] == pytest.approx(-1024)
    assert patch.hu[-1, -1, -1] == pytest.approx(40, abs=1)
    assert patch.mask.sum() == pytest.approx(2 * 3 * 3, rel=0.05), "the patch's voxels are those of the scan"


def test_each_patch_shows_its_lesion_alone_and_its_territory():
    boxes = [np.s_[10:12, 40:44, 40:44], np.s_[30:31, 60:62, 60:63]]
    scan, lesions, territories = with_lesions(boxes=boxes)
    patches = list(lesion_patches(lesions.id_map, lesions.ids, scan, territories))
    for patch, lesion in zip(patches, lesions.lesions, strict=True):
        assert patch.mask.sum() == pytest.approx(lesion.voxels, rel=0.05)
        # A single slice fills half of the two middle ones.
        assert patch.mask[7:9, 22:26, 22:26].max() == pytest.approx(min(1, len(lesion.slices) / 2), abs=0.05)
        assert patch.territories[label_of("LAD")] == pytest.approx(1)
    large = int(np.argmax([lesion.voxels for lesion in lesions.lesions]))
    inputs = network_input(patches[large])
    assert inputs.shape == (14, 16, 48, 48)
    brightest = np.unravel_index(inputs[1].argmax(), inputs[1].shape)
    assert inputs[1][brightest] == pytest.approx((400 + 150) / 1650, abs=0.01)
    assert inputs[0][brightest] == 1
    assert inputs[2][brightest] == pytest.approx(1, abs=0.01)
    np.testing.assert_allclose(inputs[3 + label_of("LAD")], 1, atol=1e-5)


@pytest.mark.parametrize("most_held", [1, 64])
def test_the_network_sees_each_lesion_once_in_order(monkeypatch, most_held):
    monkeypatch.setattr(lesion_network, "MAX_HELD", most_held)
    scan, lesions, territories = with_lesions(boxes=[np.s_[10:12, 40:44, 40:44], np.s_[30:31, 60:62, 60:63]])
    model = loaded(LooksLike(0.7, "mitral annulus"), LesionNetConfig())
    kinds = lesion_kinds(lesions.id_map, lesions.ids, scan, territories, model)
    assert kinds.shape == (2, len(LESION_KINDS))
    assert kinds[:, LESION_KINDS.index("mitral annulus")] == pytest.approx([0.3, 0.3])
    scan, lesions, territories = with_lesions()
    assert lesion_kinds(lesions.id_map, lesions.ids, scan, territories, model).shape == (0, len(LESION_KINDS))
