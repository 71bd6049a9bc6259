"""The bundled sample data are the patient of `cac sample vessels`: digital patients stay what they were."""

from dataclasses import replace

import numpy as np
import pytest
import SimpleITK as sitk

from CACScoringLib.mrml.sample_data import sample_file
from CACTrainingLib.phantom.anatomy.patient import draw_patient, stream
from CACTrainingLib.phantom.cohort.cohort import SAMPLES
from CACTrainingLib.phantom.scanner.motion import PROTOCOLS, draw_pair
from CACTrainingLib.phantom.scanner.scanner import KERNELS
from CACTrainingLib.phantom.scanner.simulation import scan_grid, scan_patient


@pytest.mark.long
def test_the_bundled_scan_is_made_again():
    patient = draw_patient(SAMPLES["vessels"].number)
    scanner, pose = draw_pair(PROTOCOLS["radiotherapy"], stream(patient.number, 20))[0]
    scanner = replace(
        scanner,
        field_of_view_mm=288.0,
        matrix=240,
        noise_hu=8.0,
        kernel=KERNELS["soft"],
        slice_thickness_mm=3.0,
        slice_spacing_mm=3.0,
    )
    grid = scan_grid(scanner, (-75.0, 87.0))
    scan = scan_patient(patient, scanner, pose, 1, grid, threads=1)
    bundled = sitk.ReadImage(sample_file())
    assert (bundled.GetSpacing(), bundled.GetOrigin()) == (grid.spacing_mm, grid.origin_mm)
    hu = sitk.GetArrayViewFromImage(bundled)
    # The air around the body has no noise in the file.
    body = hu > -950
    difference = np.abs(hu.astype(int) - scan.hu)[body]
    # Other processors and libraries may round a voxel here and there the other way.
    assert difference.max() <= 1
    assert (difference > 0).mean() < 1e-3
