"""Lesions of known mass in a scan that is there already."""

import numpy as np
import pytest
import SimpleITK as sitk

from CACScoringLib.core.ct import Acquisition, scan_from_image
from CACTrainingLib.phantom.anatomy.patient import draw_patient
from CACTrainingLib.phantom.anatomy.plaque import draw_plaque
from CACTrainingLib.phantom.anatomy.points import PointCloud
from CACTrainingLib.phantom.cohort.export import as_ct_scan
from CACTrainingLib.phantom.insertion.insertion import (
    Deposit,
    InsertionError,
    add_plaques,
    draw_motion,
    grid_of,
    measured_sigma_mm,
    scanner_of,
    vessel_along,
)
from CACTrainingLib.phantom.scanner.motion import ScanPose
from CACTrainingLib.phantom.scanner.response import add_stamps
from CACTrainingLib.phantom.scanner.scanner import Scanner
from CACTrainingLib.phantom.scanner.simulation import scan_grid, scan_patient

pytestmark = pytest.mark.long

PATH = np.array([[10.0, -40.0, -12.0], [20.0, -45.0, 0.0], [22.0, -40.0, 12.0]])


@pytest.fixture(scope="module")
def negative():
    """A digital patient without calcium."""
    patient = draw_patient(3, "M", prevalence=0.0)
    scanner, pose = Scanner(field_of_view_mm=360, noise_hu=12), ScanPose(motion_scale=0)
    scan = scan_patient(patient, scanner, pose, 1, scan_grid(patient, scanner, pose, (-45.0, 45.0)))
    return as_ct_scan(scan, patient)


def inserted(scan, path=PATH, count=3, sigma_mm=0.7, motion=0.0, seed=0, deposits=()):
    """HU, map [k, j, i] in mg/cm³ and plaques on a path."""
    grid, scanner, g = grid_of(scan), scanner_of(scan, sigma_mm), np.random.default_rng(seed)
    vessel = vessel_along(path, "LAD", "LAD", 1.7, grid)
    plaques = tuple(draw_plaque(n, vessel, float(g.uniform(0, vessel.length_mm)), 0.0, g) for n in range(count))
    hu, stamps = add_plaques(
        scan.hu, grid, scanner, (vessel,), plaques, draw_motion(motion, 68.0, g), False, tuple(deposits)
    )
    calcium = np.zeros(grid.shape, np.float32)
    add_stamps(calcium, stamps["LAD"], 1000.0)
    return hu, calcium, plaques


def test_the_map_weighs_the_plaques_and_is_what_was_added(negative):
    hu, calcium, plaques = inserted(negative)
    mass_mg = calcium.sum(dtype=np.float64) * negative.voxel_volume_mm3 / 1000
    assert mass_mg == pytest.approx(sum(plaque.mass_mg for plaque in plaques), rel=0.01)
    assert np.abs(hu - negative.hu - 1.385 * calcium).max() <= 0.51


@pytest.mark.parametrize("kvp", [80.0, 140.0, None])
def test_calcium_has_the_hu_of_the_scans_tube_voltage(negative, kvp):
    scan = scan_from_image(negative.image, Acquisition("nifti", kvp=kvp, slice_thickness_mm=3.0))
    cloud = PointCloud(np.random.default_rng(0).normal((0, 0, 0), 2.0, (400, 3)), np.full(400, 0.1))
    hu, _, plaques = inserted(scan, deposits=[Deposit("mitral annulus", "valve", cloud)])
    added = (hu - scan.hu).sum(dtype=np.float64) * scan.voxel_volume_mm3 / 1000
    mass_mg = sum(plaque.mass_mg for plaque in plaques) + cloud.total
    assert added == pytest.approx(mass_mg * Scanner(kvp=kvp or 120.0).calcium_hu_per_mg_cm3, rel=0.02)


def test_sharpness_is_measured_at_the_skin(negative):
    scan = negative
    # Kernel and focal spot, and the ramp of 1 mm with which the skin is painted.
    soft = np.sqrt(0.49**2 + 0.47**2 + 1 / 12)
    assert measured_sigma_mm(scan) == pytest.approx(soft, rel=0.06)
    blurred = sitk.DiscreteGaussian(sitk.Cast(scan.image, sitk.sitkFloat32), [1.0, 1.0, 0.0], 32, 0.01, True)
    wider = measured_sigma_mm(scan_from_image(sitk.Cast(blurred, sitk.sitkInt16), scan.acquisition))
    assert wider == pytest.approx(np.hypot(soft, 1.0), rel=0.15)


def test_a_moving_lesion_stays_where_the_scan_shows_its_vessel(negative):
    away, sums, peaks = [], [], []
    for seed in range(5):
        maps = [inserted(negative, count=1, motion=motion, seed=seed)[1].astype(float) for motion in (1.0, 0.0)]
        core = [m * (m > 0.5 * m.max()) for m in maps]
        places = [np.array([np.sum(c * n) / c.sum() for n in np.indices(c.shape, sparse=True)]) for c in core]
        away.append(np.linalg.norm((places[0] - places[1]) * negative.image.GetSpacing()[::-1]))
        sums.append(maps[0].sum() / maps[1].sum())
        peaks.append(maps[0].max() / maps[1].max())
    assert np.median(away) < 1.0
    assert np.median(peaks) < 0.8
    # Slices made at different moments do not see the same whole, so the sum is kept only roughly.
    assert sums == pytest.approx(np.ones(5), abs=0.4)


def test_what_cannot_be_done_says_why(negative):
    with pytest.raises(InsertionError, match="LPS, not RAS"):
        inserted(negative, PATH + np.array([0, 500, 0]))
    with pytest.raises(InsertionError, match=r"\(2, 2\)"):
        inserted(negative, np.zeros((2, 2)))
    tilted = sitk.Image(negative.image)
    tilted.SetDirection((1, 0, 0, 0, 0.94, -0.342, 0, 0.342, 0.94))
    with pytest.raises(InsertionError, match="oblique"):
        inserted(scan_from_image(tilted, negative.acquisition))


def test_real_scans_take_lesions(real_ct):
    image = sitk.ReadImage(real_ct("lung_pet_ct_dx/A0001_philips_B_5mm.nii.gz"))
    scan = scan_from_image(image, Acquisition("nifti", kvp=120.0, slice_thickness_mm=5.0))
    centre = np.array(scan.image.TransformContinuousIndexToPhysicalPoint((270.0, 120.0, 24.0)))
    path = centre + np.array([[-8.0, 0, 0], [0, 2, 4], [8, 0, 10]])
    sigma_mm = measured_sigma_mm(scan)
    assert 0.5 < sigma_mm < 1.4
    _, calcium, plaques = inserted(scan, path, 4, sigma_mm)
    mass_mg = calcium.sum(dtype=np.float64) * scan.voxel_volume_mm3 / 1000
    assert mass_mg == pytest.approx(sum(plaque.mass_mg for plaque in plaques), rel=0.02)
