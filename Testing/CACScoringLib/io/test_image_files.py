"""Complete writing of image files, names that are not UTF-8, and formats that are refused."""

import gzip
import os
import signal
import struct

import numpy as np
import pytest
import SimpleITK as sitk
from dicom_files import chest_hu
from images import image_of

from CACScoringLib.core.acquisition import Acquisition
from CACScoringLib.core.ct import same_grid, scan_from_image
from CACScoringLib.core.errors import SliceGeometryError, UnreadableError
from CACScoringLib.core.voxels import voxels_of
from CACScoringLib.io.image_files import read_ct_image, read_image, write_image
from CACScoringLib.io.reading import read_ct


@pytest.mark.skipif(os.name == "nt", reason="limits of files are POSIX")
def test_an_image_that_was_written_in_part_is_an_error(tmp_path):
    """A file-size limit stands in for a full disk; ITK reports neither."""
    import resource

    image = sitk.GetImageFromArray(np.random.default_rng(0).integers(0, 2000, (9, 60, 60)).astype(np.int16))
    before, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))
        with pytest.raises(OSError, match="space"):
            write_image(image, tmp_path / "a.nii.gz")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    with pytest.raises(OSError, match=r"a\.nii"):
        write_image(image, tmp_path / "missing" / "a.nii.gz")


@pytest.mark.skipif(os.name == "nt", reason="names are bytes on POSIX")
class TestNames:
    """Names in a legacy encoding, on which ITK aborts the process."""

    BAD = os.fsdecode(b"Herz-\xfc")

    @pytest.mark.parametrize("name", ["a.mhd", f"{BAD}.nii.gz", f"{BAD}.mha"])
    def test_a_name_that_is_no_utf_8(self, tmp_path, name):
        array = np.arange(24, dtype=np.int16).reshape(2, 3, 4)
        sitk.WriteImage(sitk.GetImageFromArray(array), str(tmp_path / f"a{name[name.index('.') :]}"))
        folder = tmp_path / self.BAD
        folder.mkdir()
        for file in tmp_path.glob("a.*"):
            file.rename(folder / (name if file.suffix != ".raw" else file.name))
        if name.endswith(".gz"):
            write_image(sitk.GetImageFromArray(array), folder / name)
        np.testing.assert_array_equal(sitk.GetArrayFromImage(read_image(folder / name)), array)

    def test_voxels_beside_such_a_header_are_refused(self, tmp_path):
        sitk.WriteImage(sitk.GetImageFromArray(np.zeros((2, 3, 4), np.int16)), str(tmp_path / "a.mhd"))
        (tmp_path / "a.mhd").rename(tmp_path / f"{self.BAD}.mhd")
        with pytest.raises(UnreadableError, match="cannot be read"):
            read_image(tmp_path / f"{self.BAD}.mhd")


@pytest.mark.parametrize("changed", [-8, -1])
def test_a_file_with_a_wrong_check_sum_or_length_is_refused(tmp_path, changed):
    path = tmp_path / "ct.nii.gz"
    write_image(sitk.GetImageFromArray(np.arange(60, dtype=np.int16).reshape(3, 4, 5)), path)
    assert read_image(path).GetSize() == (5, 4, 3)
    content = bytearray(path.read_bytes())
    content[changed] ^= 1
    path.write_bytes(content)
    with pytest.raises(UnreadableError, match="damaged"):
        read_image(path)


@pytest.mark.parametrize(("name", "order"), [("a.nii", "little"), ("a.nii.gz", "big")])
def test_nifti_2_is_refused_with_the_command_that_converts_it(tmp_path, name, order):
    content = (540).to_bytes(4, order) + b"n+2\0\r\n\x1a\n" + bytes(1000)
    (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    with pytest.raises(UnreadableError, match=rf"NIfTI-2.*nib-convert --image-type Nifti1Image {name} a-1\.nii\.gz"):
        read_image(tmp_path / name)


@pytest.mark.parametrize("name", ["a.hdr", "a.img.gz"])
def test_a_pair_of_files_is_refused_with_the_command_that_converts_it(tmp_path, name):
    sitk.WriteImage(sitk.GetImageFromArray(np.zeros((2, 3, 4), np.int16)), str(tmp_path / name))
    with pytest.raises(UnreadableError, match=rf"pair.*nib-convert --image-type Nifti1Image {name} .*Analyze"):
        read_image(tmp_path / name)


@pytest.mark.parametrize(("name", "neighbour"), [("a.NII.GZ", "a.NII"), ("a.nii", "a.nii.gz")])
def test_the_voxels_are_those_of_the_named_file(tmp_path, name, neighbour):
    image = image_of(np.random.default_rng(0).integers(-1000, 1000, (4, 5, 6), np.int16))
    for file, voxels in ((name, image), (neighbour, image * 0)):
        write = gzip.open if file.lower().endswith("gz") else open
        sitk.WriteImage(voxels, tmp_path / "plain.nii")
        with write(tmp_path / file, "wb") as content:
            content.write((tmp_path / "plain.nii").read_bytes())
    assert (voxels_of(read_image(tmp_path / name)) == voxels_of(image)).all()


def _with_rescale(path, stored, slope, intercept):
    sitk.WriteImage(image_of(stored.astype(np.int16)), path)
    content = bytearray(path.read_bytes())
    content[112:120] = struct.pack("<ff", slope, intercept)  # scl_slope and scl_inter of nifti1.h
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(("slope", "intercept"), [(0, 24), (float("nan"), 24)])
def test_an_intercept_without_a_slope_is_not_applied(tmp_path, slope, intercept):
    hu = np.random.default_rng(0).integers(-1000, 1000, (4, 5, 6), np.int16)
    assert (voxels_of(read_image(_with_rescale(tmp_path / "a.nii", hu, slope, intercept))) == hu).all()


@pytest.mark.parametrize(("slope", "intercept"), [(1.1, -1000.4), (0.7, -1024), (0.0306, 0)])
def test_whole_hu_are_restored_from_other_steps(tmp_path, slope, intercept):
    hu = np.arange(-1000, 1000).reshape(20, 10, 10)
    file = _with_rescale(tmp_path / "a.nii", np.rint((hu - intercept) / slope), slope, intercept)
    restored = voxels_of(read_ct_image(file)[0])
    assert (restored == np.rint(restored)).all()
    assert np.abs(restored - hu).max() <= (slope > 1)
    assert ((restored < 130) == (hu < 130)).all()


TEMPLATE = [[-0.9, 0.05, 0, 5], [0.02, -0.8, 0.1, 7], [0, 0.1, 2.7, -20]]


@pytest.mark.parametrize(("sform_code", "is_refused"), [(1, True), (2, True), (3, False), (4, False), (5, False)])
def test_a_templates_sform_beside_the_scanners_qform_is_left_aside(tmp_path, sform_code, is_refused):
    image = image_of(chest_hu())
    sitk.WriteImage(image, tmp_path / "ct.nii")
    content = bytearray((tmp_path / "ct.nii").read_bytes())
    content[252:256] = struct.pack("<hh", 1, sform_code)  # qform_code, sform_code of nifti1.h
    content[280:328] = np.array(TEMPLATE, "<f4").tobytes()
    (tmp_path / "ct.nii").write_bytes(content)
    if is_refused:
        with pytest.raises(SliceGeometryError, match="contradicts itself"):
            read_ct(tmp_path / "ct.nii")
    else:
        assert same_grid(read_ct(tmp_path / "ct.nii").image, scan_from_image(image, Acquisition("test")).image)
