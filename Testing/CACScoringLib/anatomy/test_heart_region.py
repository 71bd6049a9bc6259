"""The heart region: on a chest of ellipsoids, on real CTs, and on scans without a heart."""

import numpy as np
import pytest
import SimpleITK as sitk
from ellipsoid_chest import Chest
from images import image_of
from scipy import ndimage

from CACScoringLib.anatomy.between_lungs import heart_region, landmarks
from CACScoringLib.anatomy.heart_region import cut_warnings, large_bone
from CACScoringLib.core.acquisition import Acquisition
from CACScoringLib.core.ct import scan_from_image
from CACScoringLib.core.errors import NoHeartError

ACQUISITION = Acquisition("test")

CONTRAST_CHEST = "lidc_idri/LIDC-IDRI-0001_contrast_1p4x1p4x2p5mm.nii.gz"
MASKS = {
    CONTRAST_CHEST: ("lidc_idri/LIDC-IDRI-0001_totalseg_labels.nii.gz", 51),
    "totalsegmentator/pulmonary_report_ct_cropped.nii.gz": ("totalsegmentator/pulmonary_report_heart.nii.gz", 1),
    "totalsegmentator/aorta_report_ct_cropped.nii.gz": ("totalsegmentator/aorta_report_heart.nii.gz", 1),
}


def array(image: sitk.Image) -> np.ndarray:
    return sitk.GetArrayFromImage(image)


def covered(truth: np.ndarray, mask: np.ndarray) -> float:
    return float(mask[truth].mean())


def dice(first: np.ndarray, second: np.ndarray) -> float:
    return 2 * float((first & second).sum()) / float(first.sum() + second.sum())


def read(path) -> sitk.Image:
    return sitk.ReadImage(str(path))


def codes(region) -> set[str]:
    return {warning.code for warning in region.warnings}


def test_region_covers_the_heart(chest, region):
    assert covered(chest.heart, region.mask) >= 0.97
    assert (region.mask.dtype, region.warnings) == (bool, ())


def test_foam_behind_the_patient_is_no_lung_beside_cut_lungs(chest):
    """Foam taken for lung shifts the lungs' back, and the front of each vertebra into the region."""
    hu = np.pad(array(chest.image), ((0, 0), (0, 20), (0, 0)), constant_values=-1000)
    hu[:, 46:106][hu[:, 46:106] < -930] = -955
    image = image_of(hu, chest.image.GetSpacing())
    columns = slice(25, 123)
    region = heart_region(scan_from_image(image[columns], ACQUISITION))
    vertebrae = (chest.spine & chest.bone & (chest.y < 85))[:, :, columns]
    assert not region.mask[:, : vertebrae.shape[1]][vertebrae].any()


def open_airway(hu):
    """Join the lungs to the air in front by a tube through the chest's uppermost slices."""
    hu = hu.copy()
    hu[-30:, 30:50, 30:62] = -995
    hu[-6:, :45, 40:50] = -995
    return hu


SURROUNDINGS = {
    "a slice of air at each end": lambda hu: np.pad(hu, ((1, 1), (0, 0), (0, 0)), constant_values=-1000),
    "open airway": open_airway,
}


@pytest.mark.parametrize("surround", SURROUNDINGS.values(), ids=SURROUNDINGS)
def test_lungs_lie_inside_the_body(chest, surround):
    hu = array(chest.image)
    changed = surround(hu)
    before, after = (landmarks(array(scan_from_image(image_of(values, chest.image.GetSpacing()), ACQUISITION).coarse))
                     for values in (hu, changed))  # fmt: skip
    assert after.lungs.sum() == pytest.approx(before.lungs.sum(), rel=0.03)
    assert (after.back - after.front, after.width) == pytest.approx((before.back - before.front, before.width), abs=2)


def test_region_leaves_out_spine_sternum_arch_and_liver(chest, region):
    for part in (chest.spine, chest.sternum, chest.aorta):
        assert covered(part, region.mask) == 0
    assert covered(chest.arch, region.mask) <= 0.1
    deep = chest.liver & (chest.z < -90)
    assert deep.any()
    assert covered(deep, region.mask) == 0
    assert covered(chest.liver, region.mask) <= 0.1


def test_bone_beside_the_heart_is_excluded(chest, region):
    nearby = ndimage.distance_transform_edt(~region.mask, (3.0, 2.5, 2.5)) < 25
    assert region.bone[chest.sternum & nearby].mean() >= 0.95
    assert region.bone[chest.heart].mean() <= 0.02


def test_thin_parts_of_bone_are_excluded_and_coronary_plaque_is_not(chest, region):
    assert region.bone[chest.spur].all()
    assert covered(chest.plaque, region.mask) == 1
    assert not region.bone[chest.plaque].any()


@pytest.mark.parametrize("air", [0, 6])
def test_what_a_small_field_leaves_of_a_rib_is_bone_and_plaque_is_none(air):
    hu = np.full((10, 60, 60), 40.0)
    hu[:, :12, 20:40], hu[2:8, 25:35, 25:35] = 400, 500
    hu = np.pad(hu, ((0, 0), (air, air), (air, air)), constant_values=-1024)
    organs = np.ones(hu.shape, bool)
    bone = large_bone(hu, organs)
    assert bone[:, air : air + 12, air + 20 : air + 40].all()
    assert not bone[2:8, air + 25 : air + 35, air + 25 : air + 35].any()
    organs[:, :, : air + 31] = False
    assert large_bone(hu, organs)[2:8, air + 25 : air + 35, air + 25 : air + 35].all()


def test_enhanced_blood_is_not_taken_for_bone():
    enhanced = Chest(blood_hu=350.0)
    region = enhanced.region()
    assert covered(enhanced.heart, region.mask) >= 0.97
    assert covered(enhanced.spine, region.mask) == 0


@pytest.mark.long
def test_fluid_in_a_single_lung_does_not_lift_the_floor_and_is_reported():
    chest = Chest(fluid_mm=70.0)
    region = chest.region()
    assert covered(chest.heart, region.mask) >= 0.95
    assert "heart-floor-uncertain" in codes(region)


@pytest.mark.long
def test_gas_in_the_stomach_is_no_lung(region):
    assert dice(Chest(gas=True).region().mask, region.mask) >= 0.99


def test_crop_through_lungs_and_heart_is_covered_and_reported(chest):
    k, j, i = 32, 8, 36
    crop = chest.image[i:120, j:80, k:70]
    region = heart_region(scan_from_image(crop, ACQUISITION))
    assert covered(chest.heart[k:70, j:80, i:120], region.mask) >= 0.97
    assert [(warning.code, warning.severe) for warning in region.warnings] == [("heart-cut", False)]


def _noise(size, mean, sd):
    return np.random.default_rng(1).normal(mean, sd, size)


def _soft_tissue() -> np.ndarray:
    hu = np.full((60, 90, 120), -1000.0)
    hu[:, 10:80, 10:110] = _noise((60, 70, 100), 40, 20)
    return hu


def _head() -> np.ndarray:
    k, j, i = np.mgrid[-30:30, -45:45, -45:45]
    radius = np.sqrt((k / 40) ** 2 + (j / 36) ** 2 + (i / 30) ** 2)
    hu = np.where(radius < 1, 35.0, -1000.0)
    hu[(radius > 0.88) & (radius < 0.96)] = 900
    hu += _noise(hu.shape, 0, 10)
    for side in (-9, 9):
        hu[(k + 18) ** 2 + (j + 22) ** 2 + (i - side) ** 2 < 36] = -980
    return hu


def _empty_bed() -> np.ndarray:
    hu = _noise((60, 90, 120), -1000, 10)
    hu[:, 70:72] += 1200
    hu[:, 72:80] = -900
    return hu


@pytest.mark.parametrize("make", [_soft_tissue, _head, _empty_bed])
def test_scans_without_chest_are_refused(make):
    image = image_of(np.clip(make(), -1024, 3000).astype(np.int16), (3.0, 3.0, 3.0))
    with pytest.raises(NoHeartError, match="heart mask"):
        heart_region(scan_from_image(image, ACQUISITION))


def test_abdomen_with_the_lungs_lowest_part_is_refused(chest):
    below_the_domes = chest.image[:, :, :31]
    with pytest.raises(NoHeartError):
        heart_region(scan_from_image(below_the_domes, ACQUISITION))


@pytest.mark.long
@pytest.mark.parametrize("name", MASKS)
def test_real_hearts_are_covered(real_ct, name):
    mask_name, label = MASKS[name]
    truth = array(sitk.DICOMOrient(read(real_ct(mask_name)), "LPS")) == label
    region = heart_region(scan_from_image(read(real_ct(name)), ACQUISITION))
    assert covered(truth, region.mask) >= 0.95
    assert dice(truth, region.mask) >= 0.6


@pytest.mark.parametrize(
    ("areas", "is_cut"),
    [
        ([21, 40, 60, 80], False),  # narrows to nothing in 3 mm
        ([40, 44, 48, 52], True),  # would last for 30 mm more
        ([40, 30, 20, 10], True),
        ([23, 30, 52, 60], False),  # 4.8 mm
        ([23, 30, 49, 60], True),  # 5.3 mm
        ([23] * 4, True),
        ([22] * 4, False),  # 1.98 cm²
    ],
)
@pytest.mark.parametrize("end", [1, -1])
def test_arteries_are_cut_if_a_piece_of_them_is_missing(areas, is_cut, end):
    coronaries = np.zeros((12, 20, 20), bool)
    for plane, area in zip(coronaries[:4], areas, strict=True):
        plane.reshape(-1)[42 : 42 + area] = True
    heart = np.ones(coronaries.shape, bool)
    warnings = cut_warnings(heart, coronaries[::end])
    assert [warning.code for warning in warnings] == ["heart-cut"] * is_cut
    assert not is_cut or f"reaches the {'bottom' if end == 1 else 'top'} of the scan" in warnings[0].message
