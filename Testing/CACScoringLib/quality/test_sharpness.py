"""The sharpness of a scan, measured in the scan itself."""

import numpy as np
import pytest
from images import image_of
from kernel_scans import BONE, SHARP, SOFT, scan_with, transfer

from CACScoringLib.core.ct import Acquisition, CTScan
from CACScoringLib.quality.normalisation import measured_sharpness

FREQUENCIES = np.array([0.1, 0.2, 0.3, 0.4])


@pytest.mark.parametrize("noise_hu", [4.0, 25.0])
@pytest.mark.parametrize("kernel", [SHARP, BONE])
def test_the_ratio_of_two_measured_curves_is_that_of_the_kernels_whatever_the_noise(kernel, noise_hu):
    soft, sharp = measured_sharpness(scan_with(SOFT)), measured_sharpness(scan_with(kernel, noise_hu))
    measured = sharp.at(FREQUENCIES) / soft.at(FREQUENCIES)
    assert measured == pytest.approx(transfer(kernel, FREQUENCIES) / transfer(SOFT, FREQUENCIES), rel=0.2)


def test_noise_alone_does_not_make_a_scan_look_sharp():
    quiet, loud = (measured_sharpness(scan_with(SOFT, noise_hu)) for noise_hu in (5.0, 100.0))
    assert loud.at(FREQUENCIES) == pytest.approx(quiet.at(FREQUENCIES), rel=0.2)


def test_a_small_or_uniform_picture_gives_no_measure():
    scan = scan_with(SOFT)
    assert measured_sharpness(_with(scan, scan.hu[:, :40, :40])) is None
    assert measured_sharpness(_with(scan, np.full((3, 280, 280), -1000, np.int16))) is None
    assert measured_sharpness(_with(scan, np.full((3, 280, 280), 40, np.int16))) is None


def _with(scan, hu, pixel_mm=None):
    image = image_of(hu, (pixel_mm, pixel_mm, 3.0) if pixel_mm else scan.image.GetSpacing())
    return CTScan(image, Acquisition("test"))
