"""Epicardial fat of objects whose volume is known."""

import numpy as np
import pytest
import SimpleITK as sitk
from scipy import ndimage

from CACScoringLib.anatomy.heart_region import body_surface_m2, measure_epicardial_fat
from CACScoringLib.core.acquisition import Acquisition
from CACScoringLib.core.ct import scan_from_image
from CACScoringLib.core.grid import Grid
from CACScoringLib.pipeline import score_scan
from CACScoringLib.record.findings import EpicardialFat

INNER_MM, OUTER_MM = 40.0, 45.0
SHELL_CM3 = 4 / 3 * np.pi * (OUTER_MM**3 - INNER_MM**3) / 1000
MEMORY = Acquisition("memory")


def heart_in_fat(spacing_mm=(1.0, 1.0, 1.0), fat_hu=-90, acquisition=MEMORY):
    """Return the scan of a muscle of INNER_MM in fat, and all within OUTER_MM."""
    grid = Grid(tuple(round(110 / mm) for mm in spacing_mm), spacing_mm, (-50.0, -40.0, 10.0))
    middle = [first + 55 - mm / 2 for first, mm in zip(grid.origin_mm, spacing_mm, strict=True)]
    x, y, z = (axis - mm for axis, mm in zip(grid.axes_mm(), middle, strict=True))
    radius = np.sqrt(z[:, None, None] ** 2 + y[:, None] ** 2 + x**2)
    hu = np.where(radius < INNER_MM, 45, fat_hu).astype(np.int16)
    hu[:, -1] = np.where(np.arange(hu.shape[2]) % 2, -1000, 1000)  # a CT has a wide range
    return scan_from_image(grid.image(hu), acquisition), radius < OUTER_MM


def measure(scan, pericardium):
    fat, warnings = measure_epicardial_fat(scan, pericardium, "given")
    assert warnings == ()
    return fat


@pytest.mark.parametrize("spacing_mm", [(0.7, 0.7, 3.0), (0.5, 1.3, 2.0)])
def test_volume_and_attenuation_of_a_shell(spacing_mm):
    fat = measure(*heart_in_fat(spacing_mm))
    assert (fat.volume_cm3, fat.mean_hu) == (pytest.approx(SHELL_CM3, rel=0.02), pytest.approx(-90, abs=0.2))
    assert (fat.indexed_cm3_per_m2, fat.source) == (None, "given")


def test_median_is_that_of_each_slice():
    scan, pericardium = heart_in_fat((2.0, 2.0, 2.0))
    hu = np.random.default_rng(1).integers(-250, 1100, (55, 55, 55)).astype(np.int16)
    noise = scan_from_image(Grid.of(scan.image).image(hu), scan.acquisition)
    smooth = ndimage.median_filter(hu, (1, 3, 3), mode="nearest")
    is_fat = (smooth >= -190) & (smooth <= -30) & pericardium
    fat = measure(noise, pericardium)
    assert (fat.volume_cm3, fat.mean_hu) == (pytest.approx(is_fat.sum() * 0.008), pytest.approx(hu[is_fat].mean()))


@pytest.mark.parametrize(
    ("part", "ends"),
    [
        (np.s_[20:, :, :], "bottom"),
        (np.s_[:90, :, 20:], "top and sides"),
    ],
)
def test_cut_pericardium_is_refused(part, ends):
    scan, pericardium = heart_in_fat()
    scan = scan_from_image(scan.image[part[::-1]], scan.acquisition)
    fat, (warning,) = measure_epicardial_fat(scan, pericardium[part], "given")
    assert fat is None
    assert (warning.code, warning.severe) == ("epicardial-fat-cut", False)
    assert ends in warning.message


def test_unknown_and_fatless_pericardium():
    scan, pericardium = heart_in_fat(fat_hu=45)
    assert measure_epicardial_fat(scan, None, "network") == (None, ())
    assert measure(scan, pericardium) == EpicardialFat(0.0, None, None, "given")


def test_index_by_body_surface():
    patient = Acquisition("DICOM", patient_height_m=1.8, patient_weight_kg=80.0)
    assert body_surface_m2(patient) == pytest.approx(2.0)
    fat = measure(*heart_in_fat(acquisition=patient))
    assert fat.indexed_cm3_per_m2 == pytest.approx(fat.volume_cm3 / 2)
    assert body_surface_m2(Acquisition("DICOM", patient_height_m=1.8)) is None


def test_given_pericardium_is_scored_on_any_grid():
    scan, pericardium = heart_in_fat()
    pericardium = scan.grid.image(pericardium)
    finer = sitk.Expand(pericardium, [2, 2, 2], sitk.sitkNearestNeighbor)
    result = score_scan(scan, heart=pericardium, pericardium=finer)
    assert result.record.epicardial_fat.volume_cm3 == pytest.approx(SHELL_CM3, rel=0.05)
    assert "mask-resampled" in [warning.code for warning in result.warnings]
    assert score_scan(scan, heart=pericardium).record.epicardial_fat is None


def test_fat_of_a_mask_that_does_not_belong_is_withheld():
    scan, pericardium = heart_in_fat()
    shifted = scan.grid.image(np.roll(pericardium, 48, 2))
    result = score_scan(scan, heart=scan.grid.image(pericardium), pericardium=shifted)
    assert result.record.epicardial_fat is None
    assert "mask-doubtful" in [warning.code for warning in result.warnings if warning.severe]
