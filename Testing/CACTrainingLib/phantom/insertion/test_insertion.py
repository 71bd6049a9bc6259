"""Lesions of known mass inserted into a scan."""

import numpy as np
import pytest
import SimpleITK as sitk

from CACScoringLib.core.acquisition import Acquisition
from CACScoringLib.core.ct import scan_from_image
from CACTrainingLib.phantom.anatomy.coronaries import draw_plaque
from CACTrainingLib.phantom.anatomy.distractors import Distractor
from CACTrainingLib.phantom.anatomy.patient import draw_patient
from CACTrainingLib.phantom.anatomy.points import PointCloud
from CACTrainingLib.phantom.cohort.export import as_ct_scan
from CACTrainingLib.phantom.insertion import insertion
from CACTrainingLib.phantom.scanner.motion import ScanPose
from CACTrainingLib.phantom.scanner.response import add_stamps
from CACTrainingLib.phantom.scanner.scanner import Scanner
from CACTrainingLib.phantom.scanner.simulation import scan_grid, scan_patient

pytestmark = pytest.mark.long

PATH = np.array([[10.0, -40.0, -12.0], [20.0, -45.0, 0.0], [22.0, -40.0, 12.0]])


@pytest.fixture(scope="module")
def negative():
    """Scan of a digital patient without calcium."""
    patient = draw_patient(3, "M", prevalence=0.0)
    scanner, pose = Scanner(field_of_view_mm=360, noise_hu=12), ScanPose(motion_scale=0)
    scan = scan_patient(patient, scanner, pose, 1, scan_grid(scanner, (-45.0, 45.0)))
    return as_ct_scan(scan, patient)


def insert(scan, path=PATH, count=3, sigma_mm=0.7, motion=0.0, seed=0, deposits=()):
    """Insert plaques on a path; return HU, map [k, j, i] in mg/cm³ and plaques."""
    grid, scanner, g = insertion.grid_of(scan), insertion.scanner_of(scan, sigma_mm), np.random.default_rng(seed)
    vessel = insertion.vessel_along(path, "LAD", "LAD", 1.7, grid)
    plaques = tuple(draw_plaque(n, vessel, float(g.uniform(0, vessel.length_mm)), 0.0, g) for n in range(count))
    hu, stamps, _ = insertion.add_plaques(
        scan.hu, grid, scanner, (vessel,), plaques, insertion.draw_motion(motion, 68.0, g), False, tuple(deposits)
    )
    calcium = np.zeros(grid.shape, np.float32)
    add_stamps(calcium, stamps["LAD"], 1000.0)
    return hu, calcium, plaques


def test_the_map_weighs_the_plaques_and_is_the_change_of_the_scan(negative):
    hu, calcium, plaques = insert(negative)
    mass_mg = calcium.sum(dtype=np.float64) * negative.voxel_volume_mm3 / 1000
    assert mass_mg == pytest.approx(sum(plaque.mass_mg for plaque in plaques), rel=0.01)
    assert np.abs(hu - negative.hu - 1.385 * calcium).max() <= 0.51


@pytest.mark.parametrize("kvp", [80.0, 140.0, None])
def test_calcium_has_the_hu_of_the_scans_tube_voltage(negative, kvp):
    scan = scan_from_image(negative.image, Acquisition("nifti", kvp=kvp, slice_thickness_mm=3.0))
    cloud = PointCloud(np.random.default_rng(0).normal((0, 0, 0), 2.0, (400, 3)), np.full(400, 0.1))
    hu, _, plaques = insert(scan, deposits=[Distractor("mitral annulus", "body", "valve", cloud)])
    added = (hu - scan.hu).sum(dtype=np.float64) * scan.voxel_volume_mm3 / 1000
    mass_mg = sum(plaque.mass_mg for plaque in plaques) + cloud.total
    assert added == pytest.approx(mass_mg * Scanner(kvp=kvp or 120.0).calcium_hu_per_mg_cm3, rel=0.02)


def test_sharpness_is_measured_at_the_skin(negative):
    scan = negative
    # Kernel, focal spot, and the 1 mm ramp of the painted skin.
    soft = np.sqrt(0.49**2 + 0.47**2 + 1 / 12)
    assert insertion.measure_sigma_mm(scan) == pytest.approx(soft, rel=0.06)
    blurred = sitk.DiscreteGaussian(sitk.Cast(scan.image, sitk.sitkFloat32), [1.0, 1.0, 0.0], 32, 0.01, True)
    wider = insertion.measure_sigma_mm(scan_from_image(sitk.Cast(blurred, sitk.sitkInt16), scan.acquisition))
    assert wider == pytest.approx(np.hypot(soft, 1.0), rel=0.15)
