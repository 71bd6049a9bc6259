"""Slices of a supine patient that are not stored with the front of the patient up."""

import numpy as np
import pytest
from dicom_files import chest_hu, write_series

from CACScoringLib.io.reading import read_ct


@pytest.mark.parametrize(
    ("position", "orientation", "is_warned"),
    [
        ("HFS", (1, 0, 0, 0, -1, 0), True),
        ("FFS", (1, 0, 0, 0, -1, 0), True),
        ("FFS", (-1, 0, 0, 0, 1, 0), False),
        ("HFS", (0.8, 0.6, 0, -0.6, 0.8, 0), False),  # turned by 37° in the slice
        ("HFS", (0.28, 0.96, 0, -0.96, 0.28, 0), True),  # by 74°
        ("HFS", (-0.8, 0, 0.6, 0, 1, 0), False),  # not axial
        ("HFS", (1, 0, 0, 0, -0.8, 0.6), False),
        ("HFS", (1, 0, 0, 0, -0.854, 0.52), False),
        ("HFS", (1, 0, 0, 0, -0.88, 0.475), True),
        ("HFS", (-0.88, 0, 0.475, 0, 1, 0), True),
    ],
)
def test_orientation_of_a_supine_patient(tmp_path, position, orientation, is_warned):
    rows, columns = (np.divide(part, np.linalg.norm(part)) for part in (orientation[:3], orientation[3:]))
    write_series(tmp_path, chest_hu(), orientation=(*rows, *columns), tags={"PatientPosition": position})
    codes = {warning.code for warning in read_ct(tmp_path).warnings}
    assert ("patient-position" in codes) == is_warned
