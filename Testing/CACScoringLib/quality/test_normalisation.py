"""A scan brought to the reference kernel: sharpness measured in the scan, filters, and when they are used."""

import json
from dataclasses import asdict

import numpy as np
import pytest
import SimpleITK as sitk
from images import image_of
from kernel_scans import BONE, SHARP, SOFT, scan_with, transfer
from whole_records import record_of, whole_record

from CACScoringLib.core.ct import AIR_HU, Acquisition, CTScan
from CACScoringLib.core.errors import CTError
from CACScoringLib.quality.normalisation import (
    averaged,
    filtered,
    measured_sharpness,
    normalisation_of,
    normalisation_warnings,
    normalised,
    slice_weights,
    tissue_noise,
)
from CACScoringLib.scoring.lesions import ScoringRules, find_lesions
from CACScoringLib.scoring.scores import score_of

FREQUENCY, GAIN = np.array([0.0, 0.1, 0.3, 0.6]), np.array([1.0, 0.9, 0.3, 0.05])


def test_the_mass_of_a_lesion_and_the_mean_of_a_slice_stay():
    hu = np.zeros((1, 64, 64), np.float32)
    hu[0, 30:34, 30:34] = 800
    filtered_hu = filtered(hu, (0.7, 0.7, 3.0), FREQUENCY, GAIN)
    assert filtered_hu.sum() == pytest.approx(hu.sum(), rel=1e-4)
    assert filtered_hu.max() < 0.8 * hu.max()


def test_the_type_stays_and_no_voxel_is_below_air():
    hu = np.full((1, 40, 40), AIR_HU, np.int16)
    hu[0, 15:25, 15:25] = 1000
    filtered_hu = filtered(hu, (0.7, 0.7, 3.0), np.array([0.0, 0.2, 0.25]), np.array([1.0, 1.0, 0.0]))
    assert (filtered_hu.dtype, filtered_hu.min()) == (np.int16, AIR_HU)


@pytest.mark.parametrize("kernel", [SOFT, SHARP])
def test_a_scan_with_a_known_kernel_is_unchanged(kernel):
    scan = scan_with(kernel)
    normalisation = normalisation_of(scan)
    assert normalised(scan, normalisation) is scan
    assert not normalisation_warnings(normalisation)


def test_an_edge_enhanced_scan_comes_back_to_its_soft_twin():
    soft, sharp = (scan_with(kernel, calcium=True) for kernel in (SOFT, BONE))
    normalisation = normalisation_of(sharp)
    normal = normalised(sharp, normalisation)
    inside = (slice(None), slice(100, 180), slice(100, 180))
    before, after = ((scan.hu[inside].astype(float) - soft.hu[inside]).std() for scan in (sharp, normal))
    assert after < 0.15 * before
    assert _agatston(normal) == pytest.approx(_agatston(soft), rel=0.1)
    assert _agatston(sharp) > 1.2 * _agatston(soft)
    assert normal.image.GetSpacing() == sharp.image.GetSpacing()
    assert [warning.code for warning in normalisation_warnings(normalisation)] == ["kernel-normalised"]
    unfiltered = normalisation_of(sharp, "off")
    assert normalised(sharp, unfiltered) is sharp
    assert [warning.code for warning in normalisation_warnings(unfiltered)] == ["kernel-sharp"]


def test_an_unmeasurable_scan_is_unchanged_unless_normalisation_is_demanded():
    hu = np.full((3, 40, 40), 40, np.int16)
    hu[0] = -1000
    scan = CTScan(sitk.GetImageFromArray(hu), Acquisition("test"))
    normalisation = normalisation_of(scan)
    assert normalisation.sharpness is None
    assert normalised(scan, normalisation) is scan
    with pytest.raises(CTError, match="measure"):
        normalisation_of(scan, "on")
    with pytest.raises(CTError, match="auto, on, off"):
        normalisation_of(scan, "soft")


def test_thin_slices_are_averaged_and_an_object_keeps_its_mass():
    hu = np.full((30, 40, 40), 40, np.int16)
    hu[:, 0] = -1000
    hu[14:17, 18:22, 18:22] = 640
    image = image_of(hu, (0.7, 0.7, 0.6))
    scan = CTScan(image, Acquisition("test", slice_thickness_mm=0.6))
    normalisation = normalisation_of(scan)
    normal = normalised(scan, normalisation)
    assert [warning.code for warning in normalisation_warnings(normalisation)] == ["slices-averaged"]
    assert (normal.hu - 40.0)[:, 1:].sum() == pytest.approx((hu - 40.0)[:, 1:].sum(), rel=1e-2)
    assert (normal.hu[:, 0] == -1000).all()
    assert normal.acquisition.slice_thickness_mm == 3.0
    record = record_of(whole_record() | {"normalisation": json.loads(json.dumps(asdict(normalisation)))})
    assert (normalised(scan, record.normalisation).hu == normal.hu).all()


def _noisy(sd_hu, thickness_mm):
    """Return soft tissue with white noise."""
    noise = np.random.default_rng(0).normal(40, sd_hu, (8, 140, 140)).round().astype(np.int16)
    return CTScan(image_of(noise, (0.8, 0.8, thickness_mm)), Acquisition("test", slice_thickness_mm=thickness_mm))


@pytest.mark.parametrize(
    ("sd_hu", "thickness_mm", "is_averaged"),
    [(80, 1.5, True), (55, 1.5, False), (80, 3.0, False)],
    ids=["noisy and thin", "thin", "noisy"],
)
def test_thin_slices_are_averaged_if_they_are_noisier_than_known(sd_hu, thickness_mm, is_averaged):
    scan = _noisy(sd_hu, thickness_mm)
    assert tissue_noise(scan) == pytest.approx(sd_hu, rel=0.1)
    normalisation = normalisation_of(scan)
    codes = [warning.code for warning in normalisation_warnings(normalisation)]
    assert ("slices-averaged" in codes) == bool(normalisation.slice_weights) == is_averaged
    assert normalisation.gain or not is_averaged
    assert normalised(scan, normalisation_of(scan, "off")) is scan


def test_noise_of_a_picture_without_tissue_is_unknown():
    assert tissue_noise(CTScan(image_of(np.full((3, 60, 60), 500, np.int16)), Acquisition("test"))) is None


def _agatston(scan):
    sites = np.zeros(scan.hu.shape, np.uint8)
    sites[:, 130:150, 110:130] = 2
    rules = ScoringRules()
    return score_of(find_lesions(scan.image, sites, rules).lesions).agatston


@pytest.mark.parametrize(
    ("thickness_mm", "spacing_mm", "weights"),
    [
        *((0.0, 1.0, (1 / 3, 1 / 3, 1 / 3)), (0.0, 1.5, (0.25, 0.5, 0.25))),
        (1.8, 0.6, (0.125, 0.25, 0.25, 0.25, 0.125)),  # √(3² − 1.8²) = 2.4 mm are four slices
        *((1.8, 2.0, (1 / 12, 10 / 12, 1 / 12)), (1.8, 2.4, ()), (3.0, 1.0, ()), (5.0, 1.0, ())),
    ],
)
def test_weights_of_slices_by_hand(thickness_mm, spacing_mm, weights):
    assert slice_weights(thickness_mm, spacing_mm) == pytest.approx(weights, abs=1e-6)


def test_averaged_slices_by_hand():
    hu = np.array([0.0, 10.0, 40.0, 80.0], np.float32).reshape(4, 1, 1)
    filtered_hu = averaged(hu, (0.25, 0.5, 0.25))
    assert filtered_hu.ravel().tolist() == [2.5, 15.0, 42.5, 70.0]
    assert averaged((hu + 2).astype(np.int16), (0.25, 0.5, 0.25)).ravel().tolist() == [4, 17, 44, 72]


@pytest.mark.parametrize("axis", [1, 2])
@pytest.mark.parametrize(
    ("waves", "expected"),
    [(0, 0.9), (8, 0.8), (40, 0.4)],  # at 0, 0.1 and 0.5 per mm
)
def test_the_gain_of_waves_by_hand(axis, waves, expected):
    """Half waves in 64 pixels, of 0.625 mm along the wave and of 0.8 mm across."""
    wave = 100 * np.cos(np.pi * waves * (np.arange(64) + 0.5) / 64)
    hu = np.broadcast_to(wave if axis == 2 else wave[:, None], (2, 64, 64)).astype(np.float32)
    spacing = (0.625, 0.8, 3.0) if axis == 2 else (0.8, 0.625, 3.0)
    filtered_hu = filtered(hu, spacing, np.array([0.0, 0.2, 0.3, 0.4]), np.array([0.9, 0.7, 0.5, 0.4]))
    np.testing.assert_allclose(filtered_hu, expected * hu, atol=1e-3)


FREQUENCIES = np.array([0.1, 0.2, 0.3, 0.4])


@pytest.mark.parametrize(("kernel", "noise_hu"), [(SHARP, 25.0), (BONE, 4.0)])
def test_the_ratio_of_two_measured_curves_is_that_of_the_kernels_whatever_the_noise(kernel, noise_hu):
    soft, sharp = measured_sharpness(scan_with(SOFT)), measured_sharpness(scan_with(kernel, noise_hu))
    measured = sharp.at(FREQUENCIES) / soft.at(FREQUENCIES)
    assert measured == pytest.approx(transfer(kernel, FREQUENCIES) / transfer(SOFT, FREQUENCIES), rel=0.2)


def test_a_small_or_uniform_picture_gives_no_measure():
    scan = scan_with(SOFT)
    assert measured_sharpness(_with(scan, scan.hu[:, :40, :40])) is None
    assert measured_sharpness(_with(scan, np.full((3, 280, 280), -1000, np.int16))) is None
    assert measured_sharpness(_with(scan, np.full((3, 280, 280), 40, np.int16))) is None


@pytest.mark.parametrize(("pixel_mm", "highest"), [(1.0, 0.45), (0.9, 0.525), (0.6, 0.675)])
def test_measured_curve_ends_below_the_pixels_frequency(pixel_mm, highest):
    scan = scan_with(SOFT)
    measured = measured_sharpness(_with(scan, scan.hu, pixel_mm))
    assert measured.frequency_per_mm[-1] == pytest.approx(highest)


def _with(scan, hu, pixel_mm=None):
    image = image_of(hu, (pixel_mm, pixel_mm, 3.0) if pixel_mm else scan.image.GetSpacing())
    return CTScan(image, Acquisition("test"))
