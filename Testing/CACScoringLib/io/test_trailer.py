"""Trailer of a compressed NIfTI file, which states check sum and length of the content."""

import numpy as np
import pytest
import SimpleITK as sitk
from dicom_files import chest_hu

from CACScoringLib.core.ct import UnreadableError
from CACScoringLib.io.image_files import read_image


@pytest.mark.parametrize("at", [-8, -5, -4, -1])
def test_a_trailer_that_contradicts_sound_voxels(tmp_path, at):
    path = tmp_path / "scan.nii.gz"
    sitk.WriteImage(sitk.GetImageFromArray(chest_hu().astype(np.int16)), str(path))
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)
    with pytest.raises(UnreadableError, match="damaged"):
        read_image(path)
