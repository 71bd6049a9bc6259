"""Which mass calibration is taken, from insert to published values; and the width of the body."""

import math
from pathlib import Path

import numpy as np
import phantoms
import pytest
import SimpleITK as sitk
from images import image_of

from CACScoringLib.core.ct import Acquisition, CTScan, scan_from_image
from CACScoringLib.core.errors import CTError, MaskError, TableError
from CACScoringLib.quality import mass_calibration
from CACScoringLib.record.findings import MassCalibration

DEVICE = {"mass_factor_small": 0.74, "mass_factor_medium": 0.77, "mass_factor_large": 0.81}


def chest(width_cm: float, acquisition: Acquisition, pixels: int = 120, circle: bool = False) -> CTScan:
    """A body as wide as asked for, of voxels of 4 × 4 × 5 mm, on a table; in a circle that is padded outside."""
    j, i = np.mgrid[:pixels, :pixels] * 4.0
    middle = pixels * 2 - 2
    body = ((i - middle) / (5 * width_cm)) ** 2 + ((j - middle) / 100) ** 2 <= 1
    hu = np.where(body, 40, -1000).astype(np.int16)
    hu[(j > 345) & (j < 353)] = 100
    hu[60, 60] = 1200  # bone, as every chest has
    if circle:
        hu[np.hypot(i - middle, j - middle) > pixels * 2] = -1024
    image = image_of(np.stack([hu] * 5), (4.0, 4.0, 5.0))
    return scan_from_image(image, acquisition)


def heart_of(scan: CTScan) -> np.ndarray:
    mask = np.zeros(scan.hu.shape, bool)
    mask[1:4, 55:65, 55:65] = True
    return mask


def calibration(width_cm: float = 35.0, rules_factor: float | None = None, table: Path | None = None, **facts):
    scan = chest(width_cm, Acquisition("DICOM", **facts))
    return mass_calibration.scan_calibration(scan, heart_of(scan), rules_factor, table)


def test_the_width_is_that_of_the_hearts_middle_slice():
    slices = [sitk.GetArrayFromImage(chest(width, Acquisition("DICOM")).image)[0] for width in (20, 24, 30, 36, 40)]
    image = image_of(np.stack(slices), (4.0, 4.0, 5.0))
    scan = scan_from_image(image, Acquisition("DICOM"))
    assert mass_calibration.lateral_width_cm(scan, heart_of(scan)) == pytest.approx(30, abs=0.5)


def table(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "calibrations.csv"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_given_number_comes_first():
    assert calibration(rules_factor=0.0008, mass_factor_patient=0.7, **DEVICE) == MassCalibration("given", 0.8)


def test_the_factor_of_this_scan_comes_before_the_scanners():
    assert calibration(mass_factor_patient=0.7, **DEVICE).source == "dicom-patient"


def test_the_scanners_factors_follow_the_width():
    result = calibration(41, **DEVICE)
    assert (result.source, result.mg_per_cm3_per_hu) == ("dicom-device", 0.81)
    assert result.lateral_width_cm == pytest.approx(41, abs=0.5)


def test_a_body_that_is_cut_off_takes_the_middle_factor_with_more_doubt():
    """Half of what small and large differ by, 4.55 %, adds to its error of 5 %."""
    result = calibration(60, **DEVICE)
    assert result == MassCalibration("dicom-device", 0.77, pytest.approx(math.hypot(5, 50 * 0.07 / 0.77)))


def test_the_users_table_comes_before_published_values(tmp_path):
    path = table(tmp_path, "kvp,mg_per_cm3_per_hu,width_to_cm,manufacturer\n100,0.65,,\n120,0.7,34,Scanners Inc\n")
    assert calibration(table=path, kvp=100).mg_per_cm3_per_hu == 0.65
    assert calibration(30, table=path, kvp=120, manufacturer="SCANNERS INC.").mg_per_cm3_per_hu == 0.7
    assert calibration(36, table=path, kvp=120, manufacturer="SCANNERS INC.").source == "published"
    assert calibration(30, table=path, kvp=120).source == "published"
    assert calibration(table=path, kvp=100, **DEVICE).source == "dicom-device"


def test_a_table_with_two_lines_that_fit_is_refused(tmp_path):
    with pytest.raises(TableError, match="2 lines"):
        calibration(table=table(tmp_path, "kvp,mg_per_cm3_per_hu\n100,0.65\n,0.7\n"), kvp=100)


def insert_phantom(hu=250.0):
    """Return a scan of an insert, HU, and its mask."""
    phantom = phantoms.tissue((12, 12, 5), (1.0, 1.0, 3.0))
    phantoms.paint_cylinder(phantom, (5.0, 5.0, 0.0), 2.0, 15.0, hu, 1)
    return sitk.GetArrayFromImage(phantom.image), sitk.GetArrayFromImage(phantom.arteries) > 0


def test_calibration_from_an_insert():
    """200 mg/cm³ at 250 HU, water at 10 HU, which may be 20 HU off."""
    result = mass_calibration.insert_calibration(*insert_phantom(), 200.0, water_hu=10.0)
    assert (result.source, result.mg_per_cm3_per_hu) == ("insert", pytest.approx(200 / 240))
    assert result.uncertainty_percent == pytest.approx(100 * 20 / 240)


@pytest.mark.parametrize(
    ("hu", "density", "water_hu", "message"),
    [
        (250.0, 0.0, 0.0, "density .* 0 mg/cm³"),
        (250.0, float("nan"), 0.0, "density"),
        (50.0, 200.0, 50.0, "not above water .50 HU"),
    ],
)
def test_no_calibration_from_an_impossible_insert(hu, density, water_hu, message):
    with pytest.raises(CTError, match=message):
        mass_calibration.insert_calibration(*insert_phantom(hu), density, water_hu)


def test_no_calibration_from_a_mask_that_does_not_fit():
    hu, insert = insert_phantom()
    with pytest.raises(MaskError, match="empty"):
        mass_calibration.insert_calibration(hu, insert & False, 200.0)
    with pytest.raises(MaskError, match="shape"):
        mass_calibration.insert_calibration(hu, insert[1:], 200.0)


def test_width():
    for circle in (False, True):
        scan = chest(32, Acquisition("DICOM"), circle=circle)
        assert mass_calibration.lateral_width_cm(scan, heart_of(scan)) == pytest.approx(32, abs=0.5)
    cut = chest(50, Acquisition("DICOM"), circle=True)
    assert mass_calibration.lateral_width_cm(cut, heart_of(cut)) is None
    for side in ("left", "right"):
        scan = chest(32, Acquisition("DICOM"))
        body = np.flatnonzero(scan.hu[len(scan.hu) // 2, scan.hu.shape[1] // 2] > -300)
        part = slice(int(body[0]), None) if side == "left" else slice(0, int(body[-1]) + 1)
        at_side = CTScan(scan.image[part], scan.acquisition)
        assert mass_calibration.lateral_width_cm(at_side, heart_of(scan)[:, :, part]) is None, side
        beside = slice(int(body[0]) - 1, None) if side == "left" else slice(0, int(body[-1]) + 2)
        near_side = CTScan(scan.image[beside], scan.acquisition)
        assert mass_calibration.lateral_width_cm(near_side, heart_of(scan)[:, :, beside]) == pytest.approx(
            32, abs=0.5
        ), side
    assert mass_calibration.lateral_width_cm(cut, np.zeros(cut.hu.shape, bool)) is None


@pytest.mark.parametrize(
    ("maker", "kvp", "width_cm", "factor", "percent"),
    [
        *(("CANON_MEC", 120.0, 25.0, 0.714, 5.0), ("TOSHIBA", 120.0, 40.0, 0.725, 5.0)),
        ("Canon", 120.5, None, 0.7195 / (129.633 / 130), 5.0),  # 35 cm
        ("SIEMENS", 120.0, 45.0, 0.816, 5.0),
        ("GE MEDICAL SYSTEMS", 80.0, 40.0, 0.880 / (177 / 130), math.hypot(5, 3)),
        *(("Philips", None, 30.0, 0.783, 10.0), ("Philips", 60.0, 30.0, 0.783, 10.0)),
        *(("Philips", 141.0, 30.0, 0.783, 10.0), ("Philips", 140.0, 30.0, 0.783 / (119 / 130), math.hypot(5, 3))),
        (None, None, None, 0.797125, 10.0),
        ("Neusoft", 100.0, 40.0, (0.725 + 0.880 + 0.797 + 0.816) / 4 / (145 / 130), math.hypot(10, 3)),
    ],
)
def test_published_calibration_by_hand(maker, kvp, width_cm, factor, percent):
    result = mass_calibration.published(Acquisition("test", manufacturer=maker, kvp=kvp), width_cm)
    assert result.mg_per_cm3_per_hu == pytest.approx(factor, rel=1e-5)
    assert result.uncertainty_percent == pytest.approx(percent)
    assert (result.source, result.lateral_width_cm) == ("published", width_cm)
    assert not result.of_scanner


@pytest.mark.parametrize(
    ("kvp", "threshold_hu"),
    [(70, 207), (75, 192), (110, 137.5), (120, 130), (135, 119), (140, 119)],
)
def test_calcium_by_tube_voltage_by_hand(kvp, threshold_hu):
    assert mass_calibration.relative_calcium_hu(kvp) == pytest.approx(threshold_hu / 130)


@pytest.mark.parametrize("kvp", [69.9, 140.1])
def test_calcium_at_other_voltages_is_unknown(kvp):
    with pytest.raises(ValueError, match="70 to 140"):
        mass_calibration.relative_calcium_hu(kvp)


@pytest.mark.parametrize(("width_cm", "factor"), [(31.9, 0.74), (32.0, 0.77), (38.0, 0.77), (38.1, 0.81)])
def test_the_scanners_factor_by_width(width_cm, factor):
    assert mass_calibration._of_device([0.74, 0.77, 0.81], width_cm) == MassCalibration(
        "dicom-device", factor, 5.0, width_cm
    )
