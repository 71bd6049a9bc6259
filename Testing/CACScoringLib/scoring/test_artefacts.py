"""What is dense but no calcium: metal, told by the whole device wherever its densest voxels lie; and noise, told where
it explains many and most candidates."""

from dataclasses import replace

import numpy as np
import pytest
import SimpleITK as sitk

from CACScoringLib.anatomy.heart_region import candidate_region, heart_region
from CACScoringLib.core.ct import Acquisition, scan_from_image
from CACScoringLib.core.labels import Artery
from CACScoringLib.io.reading import read_ct
from CACScoringLib.pipeline import score_scan
from CACScoringLib.scoring.acquisition import BloodPool
from CACScoringLib.scoring.artefacts import (
    METAL_EDGE_HU,
    METAL_HU,
    METAL_REACH_MM,
    NOISE_CANDIDATES,
    metal_lesions,
    metal_warning,
    noise_warning,
    without_metal,
)
from CACScoringLib.scoring.lesions import ScoringRules, find_lesions

MASK = slice(10, 30)
"""Columns of the heart in `made`; metal beyond them is outside."""


def made(hu, spacing=(1.0, 1.0, 3.0)):
    """A scan of 6 × 20 × 90 voxels of 40 HU with pieces of other HU, and the lesions in its heart.

    hu: pieces as (k, row, first column, last column, HU).
    """
    values = np.full((6, 20, 90), 40, np.int16)
    for k, row, first, last, value in hu:
        values[k, row, first : last + 1] = value
    image = sitk.GetImageFromArray(values)
    image.SetSpacing(spacing)
    arteries = np.zeros(values.shape, np.uint8)
    arteries[:, :, MASK] = Artery.UNASSIGNED
    return find_lesions(image, arteries, ScoringRules()), image


PLAQUE = (1, 4, 15, 18, 1500)
BAND = (3, 10, 25, 34, 700)


class TestLesions:
    def test_a_device_whose_densest_voxels_lie_outside(self):
        found, image = made([PLAQUE, BAND, (3, 10, 34, 36, 2500)])
        (plaque, band) = sorted(found.lesions, key=lambda lesion: -lesion.peak_hu)
        assert band.peak_hu < METAL_HU
        assert metal_lesions(found, image) == {band.id}
        kept, warnings = without_metal(found, image)
        assert [lesion.id for lesion in kept.lesions] == [plaque.id]
        assert set(np.unique(kept.id_map)) == {0, plaque.id}
        assert [w.code for w in warnings] == ["metal"]
        assert "1 lesion(s)" in warnings[0].message
        assert "(slices 3)" in warnings[0].message

    def test_a_device_that_leaves_the_heart_through_another_slice(self):
        found, image = made([BAND, (4, 11, 35, 40, 700), (5, 12, 41, 42, 2100)])
        assert len(metal_lesions(found, image)) == 1

    def test_what_touches_metal_is_metal(self):
        """As one faint rim of a device, or a voxel of the next slice, is."""
        found, image = made([(3, 10, 29, 29, 300), (4, 11, 30, 31, 2500)])
        assert len(metal_lesions(found, image)) == 1
        apart, image = made([(3, 10, 28, 28, 300), (4, 11, 30, 31, 2500)])
        assert len(metal_lesions(apart, image)) == 0

    def test_bone_between_calcium_and_metal_is_no_bridge(self):
        for bridge, metal in ((METAL_EDGE_HU - 1, 0), (METAL_EDGE_HU, 1)):
            found, image = made([(3, 10, 20, 28, 900), (3, 10, 29, 40, bridge), (3, 10, 41, 42, 2500)])
            assert len(found.lesions) == 1
            assert len(metal_lesions(found, image)) == metal

    def test_a_lesion_that_is_dense_itself(self):
        found, image = made([(3, 10, 20, 20, METAL_HU), PLAQUE])
        assert [lesion.id for lesion in found.lesions if lesion.peak_hu == METAL_HU] == list(
            metal_lesions(found, image)
        )

    def test_metal_far_off_is_not_looked_for(self):
        edge = MASK.stop - 1 + int(METAL_REACH_MM)
        for last, metal in ((edge, 1), (edge + 1, 0)):
            found, image = made([(3, 10, 25, last, 700), (3, 10, last, last, 2500)])
            assert len(metal_lesions(found, image)) == metal

    @pytest.mark.parametrize("hu", [[], [PLAQUE], [(3, 10, 50, 60, 3000)], [PLAQUE, (3, 10, 50, 60, 3000)]])
    def test_none(self, hu):
        found, image = made(hu)
        assert metal_lesions(found, image) == frozenset()
        assert without_metal(found, image) == (found, [])
        assert metal_warning(found, image) == []


def test_the_device_below_a_real_heart_is_no_candidate(real_ct):
    """A band of 2706 Agatston in the region found from the lungs; its two voxels of 2000 HU and more lie outside."""
    scan = read_ct(real_ct("4d_lung/113_HM10395_40pct_3mm.nii.gz"))
    region = heart_region(scan)
    found = find_lesions(scan.image, candidate_region(region), ScoringRules())
    kept, warnings = without_metal(found, scan.image)
    assert max(lesion.peak_hu for lesion in found.lesions) < METAL_HU
    gone = [lesion for lesion in found.lesions if lesion not in kept.lesions]
    assert sorted(lesion.voxels for lesion in gone) == [10, 713]
    assert all(37 <= k <= 41 for lesion in gone for k in lesion.slice_indices), "below the heart"
    assert [w.code for w in warnings] == ["metal"]


BLOOD = BloodPool(median_hu=40.0, bright_hu=45.0, noise_hu=30.0, windows=50)
"""Of which noise reaches 190 HU."""


def found(*groups):
    """Lesions of one voxel each. groups: (how many, HU)."""
    peaks = [hu for count, hu in groups for _ in range(count)]
    values = np.full((1, 2, 2 * len(peaks)), 40, np.int16)
    values[0, 0, ::2] = peaks
    return find_lesions(
        sitk.GetImageFromArray(values), np.full(values.shape, Artery.UNASSIGNED, np.uint8), ScoringRules()
    )


def test_many_and_most():
    many = NOISE_CANDIDATES + 1
    (warning,) = noise_warning(found((many, 190), (many - 1, 191)), BLOOD)
    assert (warning.code, warning.severe) == ("noise-candidates", True)
    assert f"{many} of {2 * many - 1} candidates" in warning.message
    assert "up to 190 HU" in warning.message


@pytest.mark.parametrize(
    "groups",
    [
        [(NOISE_CANDIDATES, 150)],  # few
        [(30, 150), (30, 400)],  # not most
        [(60, 191)],  # denser than noise
    ],
)
def test_what_noise_does_not_explain(groups):
    assert noise_warning(found(*groups), BLOOD) == []


def test_nothing_is_said_without_a_measure():
    lesions = found((50, 150))
    assert noise_warning(lesions, BLOOD)
    assert noise_warning(lesions, None) == []
    assert noise_warning(lesions, replace(BLOOD, bright_hu=300.0)) == []


def noisy(sd):
    """A scan of blood with noise, and its heart."""
    hu = np.random.default_rng(0).normal(40, sd, (20, 80, 80)).round()
    hu[:, 0], hu[0, 0, 0] = -1000, 1400
    image = sitk.GetImageFromArray(hu.astype(np.int16))
    image.SetSpacing((1.0, 1.0, 3.0))
    heart = np.zeros(hu.shape, np.uint8)
    heart[1:19, 8:72, 8:72] = 1
    mask = sitk.GetImageFromArray(heart)
    mask.CopyInformation(image)
    return scan_from_image(image, Acquisition("NIfTI", kvp=120.0)), mask


def test_a_noisy_scan_is_told_and_its_scores_stay():
    scan, heart = noisy(45)
    result = score_scan(scan, heart=heart)
    assert "noise-candidates" in [w.code for w in result.warnings if w.severe]
    assert result.methods["threshold"].total.lesions > 500
    assert result.methods["threshold"].total.agatston > 500
    labels = sitk.Cast(heart, sitk.sitkUInt8) * int(Artery.LAD)
    assert "noise-candidates" not in [w.code for w in score_scan(scan, heart=heart, lesions=labels).warnings]
    quiet, heart = noisy(20)
    assert "noise-candidates" not in [w.code for w in score_scan(quiet, heart=heart).warnings]


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("lung_pet_ct_dx/A0001_philips_L_5mm_heart.nii.gz", True),  # a sharp kernel: 446 candidates, 42 HU
        ("lung_pet_ct_dx/A0001_philips_B_5mm.nii.gz", False),  # the same scan, a soft one
        ("lidc_idri/LIDC-IDRI-0314_bin2_3mm_chest.nii.gz", False),  # 33 candidates, 9 HU
    ],
)
def test_real_scans(real_ct, name, told):
    codes = [warning.code for warning in score_scan(read_ct(real_ct(name))).warnings]
    assert ("noise-candidates" in codes) == told
