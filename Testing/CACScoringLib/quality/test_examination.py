"""Blood pool, noise, contrast and the warnings on how a scan was made."""

from dataclasses import replace

import numpy as np
import pytest
import SimpleITK as sitk
from images import image_of

from CACScoringLib.anatomy.heart_region import HeartRegion
from CACScoringLib.core.ct import Acquisition, ScanWarning, scan_from_image
from CACScoringLib.core.errors import ContrastError
from CACScoringLib.pipeline import score_scan
from CACScoringLib.quality.examination import (
    examine,
    examine_quality,
    measure_blood,
    named_agent,
    require_unenhanced,
)
from CACScoringLib.quality.normalisation import normalisation_of
from CACScoringLib.record.findings import BloodPool
from CACScoringLib.record.rules import ScoringRules, rules_for_tube_voltage
from support.ellipsoid_chest import Chest

GOOD = Acquisition("test", kvp=120.0, slice_thickness_mm=3.0)
UNENHANCED = BloodPool(median_hu=42, bright_hu=50, noise_hu=15, windows=300)


class Heart:
    """A block of blood in fat in air, with noise: [k, j, i] 20 x 120 x 120, 1 x 1 x 3 mm."""

    def __init__(self, blood_hu=40.0, noise_hu=20.0, acquisition=GOOD):
        rng = np.random.default_rng(3)
        self.hu = np.full((20, 120, 120), -1000.0)
        self.hu[:, 10:110, 10:110] = -100
        self.hu[:, 20:100, 20:100] = blood_hu
        self.hu += rng.normal(0, noise_hu, self.hu.shape)
        self.inside = np.zeros(self.hu.shape, bool)
        self.inside[:, 15:105, 15:105] = True
        self.acquisition = acquisition

    def scan(self):
        return scan_from_image(self._image(np.rint(self.hu).astype(np.int16)), self.acquisition)

    def mask(self):
        return self._image(self.inside)

    def blood(self):
        return measure_blood(self.scan(), self.inside)

    def _image(self, array):
        return image_of(array, (1.0, 1.0, 3.0))


def codes(warnings) -> set[str]:
    return {warning.code for warning in warnings}


def test_calcium_fat_and_liver_are_not_in_the_measure():
    heart = Heart(blood_hu=43, noise_hu=20)
    plain = heart.blood()
    assert (plain.median_hu, plain.bright_hu) == (pytest.approx(43, abs=1.5), pytest.approx(46, abs=3))
    assert plain.noise_hu == pytest.approx(20, rel=0.05)
    heart.hu[:, 40:44, 40:80] += 900  # calcium
    heart.hu[:, 60:64, 20:100] -= 140  # a groove of fat
    heart.hu[:9] += 30  # liver below
    blood = heart.blood()
    assert blood.median_hu == pytest.approx(plain.median_hu, abs=1.5)
    assert (blood.bright_hu, blood.noise_hu) == (pytest.approx(plain.bright_hu, abs=3), pytest.approx(20, rel=0.1))


def test_a_single_enhanced_chamber_is_enough():
    heart = Heart(blood_hu=45)
    heart.hu[:, 25:60, 25:60] += 250
    blood = heart.blood()
    assert blood.median_hu < 60
    assert blood.enhanced
    with pytest.raises(ContrastError):
        require_unenhanced(heart.scan(), blood)


@pytest.mark.parametrize("doubt", [None, "mask-doubtful", "mask-resampled"])
def test_a_mask_that_misses_the_heart_shows_no_contrast(doubt):
    heart = Heart(blood_hu=300)
    doubts = () if doubt is None else (ScanWarning(doubt, "It lies on bone."),)
    region, scan = HeartRegion(heart.inside, None, "given", doubts), heart.scan()
    normalisation = normalisation_of(scan, "off")
    if doubt == "mask-doubtful":
        quality = examine_quality(scan, scan, region, normalisation)
        assert quality.blood is None
        assert "blood-unmeasured" in codes(quality.warnings)
    else:
        with pytest.raises(ContrastError):
            examine_quality(scan, scan, region, normalisation)


def test_a_mask_without_room_gives_no_measure_and_says_so():
    heart = Heart()
    heart.inside[:] = 0
    heart.inside[10, 50:54, 50:54] = 1
    assert heart.blood() is None
    assert codes(examine(heart.scan(), None)) == {"blood-unmeasured"}
    heart.inside[:] = 0
    assert heart.blood() is None


SMALL_SCAN = np.full((3, 4, 4), 40, np.int16)
SMALL_SCAN[0], SMALL_SCAN[1, 0, 0] = -1000, 1200


def codes_of_small_scan(blood=UNENHANCED, threshold_hu=130.0, spacing_mm=(1.0, 1.0, 3.0), **facts) -> set[str]:
    """Codes of the warnings on a small scan with 120 kVp and slices of 3 mm, or with other facts."""
    scan = scan_from_image(image_of(SMALL_SCAN, spacing_mm), replace(GOOD, **facts))
    return codes(examine(scan, blood, threshold_hu))


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        *(({"kvp": None}, {"kvp-unknown"}), ({"kvp": 120.5}, set())),
        *(({"kvp": 120.6}, {"not-120-kvp"}), ({"kvp": 119.4}, {"not-120-kvp"})),
        ({"slice_thickness_mm": None}, {"thickness-unknown"}),
        ({"slice_thickness_mm": 5.0, "spacing_mm": (1.0, 1.0, 5.0)}, set()),
        ({"slice_thickness_mm": 5.1, "spacing_mm": (1.0, 1.0, 5.0)}, {"thick-slices"}),
        ({"slice_thickness_mm": 5.0, "spacing_mm": (1.0, 1.0, 5.005)}, set()),
        ({"slice_thickness_mm": 5.0, "spacing_mm": (1.0, 1.0, 5.02)}, {"wide-spacing"}),
        ({"slice_thickness_mm": 2.0, "spacing_mm": (1.0, 1.0, 4.0)}, {"slice-gaps"}),
        ({"spacing_mm": (1.0, 1.0, 3.05)}, set()),
        ({"spacing_mm": (1.0, 1.0, 3.07)}, {"slice-gaps"}),  # more than a fiftieth
        ({"spacing_mm": (1.5, 1.5, 3.0)}, set()),
        ({"spacing_mm": (1.52, 1.0, 3.0)}, {"coarse-pixels"}),
        ({"spacing_mm": (1.2, 3.0, 3.0)}, {"coarse-pixels"}),
        ({"contrast_agent": "OMNIPAQUE"}, {"contrast-tag"}),
    ],
)
def test_limits_of_voltage_slices_and_pixels(facts, expected):
    assert codes_of_small_scan(**facts) == expected


@pytest.mark.parametrize(
    ("kvp", "material", "expected"),
    [
        (150.0, "ALUMINUM TIN", {"tin-filter"}),
        (100.0, "ALUMINUM", {"not-120-kvp"}),
    ],
)
def test_a_tin_filter_is_scored_as_120_kvp_with_a_warning(kvp, material, expected):
    facts = {"kvp": kvp, "filter_material": material}
    rules = rules_for_tube_voltage(replace(GOOD, **facts), ScoringRules())
    assert rules.threshold_hu == (145.0 if "not-120-kvp" in expected else 130.0)
    assert codes_of_small_scan(threshold_hu=rules.threshold_hu, **facts) == expected


def test_a_contrast_tag_refuses_only_where_the_blood_is_unknown():
    scan = Heart(acquisition=Acquisition("test", contrast_agent="APPLIED")).scan()
    with pytest.raises(ContrastError, match="could not be measured"):
        require_unenhanced(scan, None)
    assert require_unenhanced(scan, None, allow_contrast=True) == ()
    assert require_unenhanced(scan, UNENHANCED) == ()
    assert "contrast-tag" in {warning.code for warning in examine(scan, UNENHANCED)}


@pytest.mark.parametrize(
    "text",
    [
        *(None, " ", "No Contrast", "W/O", "N/A", "Ohne i.v. KM", "不明", "NCCT", "ORAL ONLY", "oral, no iv"),
        *("não", "ikke givet", "χωρίς", "없음", "造影なし", "0 ml", "non injecté", "-", "KM: nein", "w/o contrast"),
    ],
)
def test_tags_that_say_no_contrast_are_understood(text):
    assert named_agent(replace(GOOD, contrast_agent=text)) is None
    assert codes_of_small_scan(contrast_agent=text) == set()


@pytest.mark.parametrize(
    ("blood", "threshold_hu", "expected"),
    [
        (BloodPool(40, 50, 29.9, 9), 130.0, set()),
        (BloodPool(40, 50, 30.0, 9), 130.0, {"noise"}),  # three standard deviations below the threshold
        (BloodPool(40, 50, 34.9, 9), 145.0, set()),
        (BloodPool(40, 89.9, 10, 9), 130.0, set()),
        (BloodPool(40, 90.0, 10, 9), 130.0, {"blood-bright"}),
        (BloodPool(40, 109.9, 35, 9), 130.0, {"blood-bright", "noise"}),
        (BloodPool(40, 110.0, 35, 9), 130.0, set()),  # enhanced, which is refused elsewhere
    ],
)
def test_limits_of_blood_and_noise(blood, threshold_hu, expected):
    assert codes_of_small_scan(blood, threshold_hu) == expected
    assert blood.enhanced == (blood.bright_hu >= 110)


def test_air_around_a_scan_changes_no_measure():
    heart, wide = Heart(), Heart()
    wide.hu, wide.inside = (np.pad(array, ((0, 0), (4, 3), (5, 2)), mode="edge") for array in (heart.hu, heart.inside))
    assert wide.blood() == heart.blood()


def test_only_the_upper_half_and_windows_off_the_edge_are_measured():
    """A heart of slices 2 to 7 of 45 × 45 pixels of 1 mm has five by five windows of 9 mm, of which the inner nine
    count in slices 5 to 7."""
    hu = np.full((10, 60, 60), -1000.0)
    mask = np.zeros(hu.shape, bool)
    mask[2:8, :45, :45] = True
    hu[1:] = 200
    hu[5:8, 9:36, 9:36] = 40
    hu[0, 0, 0] = 1200
    hu[:, -1, -1] = np.arange(10)  # no slice is blank, or a copy
    blood = measure_blood(scan_from_image(sitk.GetImageFromArray(hu.astype(np.int16)), GOOD), mask)
    assert blood == BloodPool(median_hu=40.0, bright_hu=40.0, noise_hu=0.0, windows=27)


@pytest.mark.parametrize(
    "text",
    [
        *("Ultravist 370", "IV", "80 ml", "Omnipaque, no oral", "w/ contrast", "oral and IV"),
        *("no oral, iv given", "unknown, 80 ml Ultravist", "Ultravist, not oral only"),
    ],
)
def test_tags_that_name_an_agent_are_understood(text):
    assert named_agent(replace(GOOD, contrast_agent=text)) == text


def test_a_chest_without_calcium_in_its_bones_is_doubted_severely():
    """Virtual non-calcium images, and images with bone removed, have such bones."""
    chest = Chest()
    heart = sitk.GetImageFromArray(chest.heart.astype(np.uint8))
    heart.CopyInformation(chest.image)
    hu = sitk.GetArrayFromImage(chest.image)
    suppressed = sitk.GetImageFromArray(np.where(hu > 100, 60, hu).astype(np.int16))
    suppressed.CopyInformation(chest.image)
    for image, is_suppressed in ((chest.image, False), (suppressed, True)):
        warnings = score_scan(scan_from_image(image, GOOD), heart=heart).warnings
        assert ("calcium-suppressed" in [warning.code for warning in warnings if warning.severe]) == is_suppressed
