"""Lesions of known mass in a scan that is there already."""

import numpy as np
import pytest
import SimpleITK as sitk

from CACScoringLib.core.ct import Acquisition, scan_from_image
from CACTrainingLib.phantom.anatomy.patient import draw_patient
from CACTrainingLib.phantom.cohort.export import as_ct_scan, image_on
from CACTrainingLib.phantom.insertion.insertion import (
    InsertionError,
    InsertionSettings,
    insert_plaques,
    measured_sigma_mm,
)
from CACTrainingLib.phantom.insertion.vessel_paths import PathError
from CACTrainingLib.phantom.scanner.motion import ScanPose
from CACTrainingLib.phantom.scanner.scanner import Scanner
from CACTrainingLib.phantom.scanner.simulation import scan_grid, scan_patient

pytestmark = pytest.mark.long

STILL = InsertionSettings(plaques=3, motion_scale=0.0, sigma_mm=0.7)
PATH = np.array([[10.0, -40.0, -12.0], [20.0, -45.0, 0.0], [22.0, -40.0, 12.0]])


@pytest.fixture(scope="module")
def negative():
    """A digital patient without calcium, with its heart mask."""
    patient = draw_patient(3, "M", prevalence=0.0)
    scanner, pose = Scanner(field_of_view_mm=360, noise_hu=12), ScanPose(motion_scale=0)
    scan = scan_patient(patient, scanner, pose, 1, scan_grid(patient, scanner, pose, (-45.0, 45.0)))
    return as_ct_scan(scan, patient), image_on(scan.grid, scan.heart.astype(np.uint8))


def test_the_map_weighs_the_plaques_and_is_what_was_added(negative):
    scan, _ = negative
    result = insert_plaques(scan, PATH, settings=STILL)
    calcium = sitk.GetArrayFromImage(result.calcium_map)
    assert calcium.sum(dtype=np.float64) * scan.voxel_volume_mm3 / 1000 == pytest.approx(result.mass_mg, rel=0.01)
    added = sitk.GetArrayFromImage(result.image).astype(float) - scan.hu
    assert np.abs(added - 1.385 * calcium).max() <= 0.51
    assert result.image.GetOrigin() == scan.image.GetOrigin()


def test_the_same_seed_is_the_same_lesion(negative):
    scan, heart = negative
    one, two = (insert_plaques(scan, heart=heart, settings=InsertionSettings(seed=5)) for _ in range(2))
    assert one.plaques == two.plaques
    assert np.array_equal(sitk.GetArrayViewFromImage(one.image), sitk.GetArrayViewFromImage(two.image))
    assert insert_plaques(scan, heart=heart, settings=InsertionSettings(seed=6)).plaques != one.plaques


@pytest.mark.parametrize("seed", range(4))
def test_a_path_of_its_own_runs_in_the_hearts_fat(negative, seed):
    scan, heart = negative
    result = insert_plaques(scan, heart=heart, settings=InsertionSettings(seed=seed, length_mm=20))
    index = np.array([scan.image.TransformPhysicalPointToIndex(tuple(p)) for p in result.vessels[0].path_mm])
    hu = sitk.GetArrayFromImage(sitk.SmoothingRecursiveGaussian(scan.image, 1.0))[tuple(index.T[::-1])]
    assert np.mean((hu > -160) & (hu < -20)) > 0.8
    assert sitk.GetArrayFromImage(heart)[tuple(index.T[::-1])].mean() > 0.9


def test_sharpness_is_measured_at_the_skin(negative):
    scan, _ = negative
    # Kernel and focal spot, and the ramp of 1 mm with which the skin is painted.
    soft = np.sqrt(0.49**2 + 0.47**2 + 1 / 12)
    assert measured_sigma_mm(scan) == pytest.approx(soft, rel=0.06)
    blurred = sitk.DiscreteGaussian(sitk.Cast(scan.image, sitk.sitkFloat32), [1.0, 1.0, 0.0], 32, 0.01, True)
    wider = measured_sigma_mm(scan_from_image(sitk.Cast(blurred, sitk.sitkInt16), scan.acquisition))
    assert wider == pytest.approx(np.hypot(soft, 1.0), rel=0.15)


def test_a_moving_lesion_stays_where_the_scan_shows_its_vessel(negative):
    scan, _ = negative
    away, sums, peaks = [], [], []
    for seed in range(5):
        maps = []
        for motion in (1.0, 0.0):
            settings = InsertionSettings(sigma_mm=0.7, seed=seed, motion_scale=motion)
            maps.append(sitk.GetArrayFromImage(insert_plaques(scan, PATH, settings=settings).calcium_map).astype(float))
        core = [m * (m > 0.5 * m.max()) for m in maps]
        places = [np.array([np.sum(c * n) / c.sum() for n in np.indices(c.shape, sparse=True)]) for c in core]
        away.append(np.linalg.norm((places[0] - places[1]) * scan.image.GetSpacing()[::-1]))
        sums.append(maps[0].sum() / maps[1].sum())
        peaks.append(maps[0].max() / maps[1].max())
    assert np.median(away) < 1.0
    assert np.median(peaks) < 0.8
    # Slices made at different moments do not see the same whole, so the sum is kept only roughly.
    assert sums == pytest.approx(np.ones(5), abs=0.4)


def test_a_blunter_scan_blunts_the_lesion(negative):
    scan, _ = negative
    peaks = []
    for sigma in (0.5, 1.2):
        settings = InsertionSettings(plaques=1, motion_scale=0.0, sigma_mm=sigma)
        peaks.append(sitk.GetArrayFromImage(insert_plaques(scan, PATH, settings=settings).calcium_map).max())
    assert peaks[1] < 0.7 * peaks[0]


def test_what_cannot_be_done_says_why(negative):
    scan, _ = negative
    with pytest.raises(InsertionError, match="path, or a heart mask"):
        insert_plaques(scan)
    with pytest.raises(InsertionError, match="LPS, not RAS"):
        insert_plaques(scan, PATH + np.array([0, 500, 0]))
    with pytest.raises(InsertionError, match=r"\(2, 2\)"):
        insert_plaques(scan, np.zeros((2, 2)))
    muscle = sitk.Image(scan.image.GetSize(), sitk.sitkUInt8)
    muscle.CopyInformation(scan.image)
    i, j, k = scan.image.TransformPhysicalPointToIndex((10.0, 0.0, 0.0))
    muscle[i - 15 : i + 15, j - 15 : j + 15, k - 5 : k + 5] = 1
    with pytest.raises(PathError, match="no fat in which the LAD"):
        insert_plaques(scan, heart=muscle, settings=STILL)
    with pytest.raises(PathError, match="no muscle"):
        insert_plaques(
            scan,
            heart=sitk.BinaryThreshold(scan.image, 2000, 4000) + sitk.BinaryThreshold(scan.image, -110, -90),
            settings=STILL,
        )
    tilted = sitk.Image(scan.image)
    tilted.SetDirection((1, 0, 0, 0, 0.94, -0.342, 0, 0.342, 0.94))
    with pytest.raises(InsertionError, match="oblique"):
        insert_plaques(scan_from_image(tilted, scan.acquisition), PATH)


def test_real_scans_take_lesions(real_ct):
    image = sitk.ReadImage(real_ct("lung_pet_ct_dx/A0001_philips_B_5mm.nii.gz"))
    scan = scan_from_image(image, Acquisition("nifti", kvp=120.0, slice_thickness_mm=5.0))
    centre = np.array(scan.image.TransformContinuousIndexToPhysicalPoint((270.0, 120.0, 24.0)))
    path = centre + np.array([[-8.0, 0, 0], [0, 2, 4], [8, 0, 10]])
    result = insert_plaques(scan, path, settings=InsertionSettings(plaques=4, motion_scale=0.0))
    assert 0.5 < result.scanner.kernel.sigma_mm < 1.4
    calcium = sitk.GetArrayViewFromImage(result.calcium_map)
    assert calcium.sum(dtype=np.float64) * scan.voxel_volume_mm3 / 1000 == pytest.approx(result.mass_mg, rel=0.02)
