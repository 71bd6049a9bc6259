"""Bundled sample data of the patient of `cac sample vessels`, which hold digital patients unchanged.

After a deliberate change of patients, hearts or scanner, this writes CACDigitalPatient.nrrd and .png and records the
CT's checksum in sample_data.py; from the repository's root with PYTHONPATH=CACScoring:CACTraining:

    python Testing/CACTrainingLib/phantom/cohort/test_samples.py
"""

import hashlib
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from PIL import Image
from scipy import ndimage

from CACScoringLib.mrml import sample_data
from CACTrainingLib.phantom.anatomy.patient import draw_patient, stream
from CACTrainingLib.phantom.cohort.cohort import SAMPLES
from CACTrainingLib.phantom.scanner.motion import PROTOCOLS, draw_pair
from CACTrainingLib.phantom.scanner.scanner import KERNELS
from CACTrainingLib.phantom.scanner.simulation import scan_grid, scan_patient


def make_bundled_scan():
    patient = draw_patient(SAMPLES["vessels"][0])
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
    return scan_patient(patient, scanner, pose, 1, scan_grid(scanner, (-75.0, 87.0)))


@pytest.mark.long
def test_the_bundled_scan_is_made_again():
    scan = make_bundled_scan()
    bundled = sitk.ReadImage(sample_data.sample_file())
    assert (bundled.GetSpacing(), bundled.GetOrigin()) == (scan.grid.spacing_mm, scan.grid.origin_mm)
    hu = sitk.GetArrayViewFromImage(bundled)
    # The air around the body has no noise in the file.
    body = hu > -950
    difference = np.abs(hu.astype(int) - scan.hu)[body]
    # Other processors and libraries may round single voxels differently.
    assert difference.max() <= 1
    assert (difference > 0).mean() < 1e-3


def write_bundled_scan():
    scan, file = make_bundled_scan(), sample_data.sample_file()
    image = scan.grid.image(np.where(outside(scan.hu), np.int16(-1000), scan.hu))
    image.SetMetaData("description", "CAC digital patient: computed, not scanned; shows no person. Apache-2.0.")
    sitk.WriteImage(image, file, useCompression=True, compressionLevel=9)
    thumbnail(scan).save(file.with_suffix(".png"), optimize=True)
    code = Path(sample_data.__file__)
    line = f'CHECKSUM = "SHA256:{hashlib.sha256(file.read_bytes()).hexdigest()}"'
    code.write_text(re.sub('CHECKSUM = ".*"', line, code.read_text(encoding="utf-8")), encoding="utf-8")


def outside(hu):
    """Return air before and behind the body, without lung cut by the field of view's sides: bool [k, j, i]."""
    body = ndimage.uniform_filter(hu.astype(np.float32), (0, 5, 5)) > -500
    air_around = np.empty(hu.shape, bool)
    for k, plane in enumerate(body):
        air, _ = ndimage.label(np.pad(~plane, ((1, 1), (0, 0)), constant_values=True))
        air_around[k] = np.isin(air, (air[0, 0], air[-1, 0]))[1:-1]
    return air_around


def thumbnail(scan):
    """Return the maximum of the five slices with most calcium, cropped to the heart."""
    middle = int(np.convolve(scan.calcium_mg_cm3.sum((1, 2)), np.ones(5), "same").argmax())
    slab = scan.hu[max(0, middle - 2) : middle + 3].max(0)
    grey = np.rint(np.clip((slab + 160.0) / 460.0, 0, 1) * 255).astype(np.uint8)
    rows, columns = np.nonzero(scan.heart.any(0))
    column, row = round(columns.mean() - 100), round(rows.mean() - 92.5)
    part = Image.fromarray(grey).crop((column, row, column + 200, row + 185))
    return part.resize((280, 260), Image.Resampling.LANCZOS)


if __name__ == "__main__":
    write_bundled_scan()
