"""NIfTI-2 files and pairs of .hdr and .img: the same voxels at the same places as of a NIfTI-1 file, or an error."""

import gzip
import struct

import numpy as np
import pytest
import SimpleITK as sitk
from images import image_of
from reading_checks import refuses

from CACScoringLib.core.ct import CTError, UnreadableError
from CACScoringLib.io.image_files import read_header
from CACScoringLib.io.reading import read_ct, read_mask

BRIGHT_MM = (-48.0, -57.0, 36.0)
"""Place of the one bright voxel, LPS."""


def ct_image():
    """An oblique CT whose voxel (7, 3, 2) alone is bright."""
    hu = 2 * np.random.default_rng(0).integers(0, 40, (10, 30, 40), np.int16)
    hu[:, :, :2] -= 1000
    hu[2, 3, 7] = 900
    image = image_of(hu, (0.7, 0.8, 3.0), BRIGHT_MM, direction=(0.8, -0.6, 0, 0.6, 0.8, 0, 0, 0, 1))
    image.SetOrigin(2 * np.array(BRIGHT_MM) - image.TransformIndexToPhysicalPoint((7, 3, 2)))
    return image


def nifti_parts(folder, order, bits):
    """Header and voxels of the CT by ITK, with a slope of 2 and an intercept of -24, as NIfTI-1 or NIfTI-2."""
    sitk.WriteImage(ct_image(), str(folder / "itk.nii"))
    content = (folder / "itk.nii").read_bytes()
    voxels = ((np.frombuffer(content[352:], "<i2") + 24) // 2).astype(f"{order}i2").tobytes()

    def field(at, kind):
        return struct.unpack_from(f"<{kind}", content, at)

    dim, pixdim, codes, geometry = field(40, "8h"), field(76, "8f"), field(252, "2h"), field(256, "18f")
    header = bytearray(348 if bits == 1 else 540)
    if bits == 1:
        layout = [(0, "i", [348]), (40, "8h", dim), (70, "2h", (4, 16)), (76, "8f", pixdim), (112, "2f", (2, -24))]
        layout += [(123, "B", [10]), (252, "2h", codes), (256, "18f", geometry)]
    else:
        layout = [(0, "i", [540]), (12, "2h", (4, 16)), (16, "8q", dim), (104, "8d", pixdim), (176, "2d", (2, -24))]
        layout += [(344, "2i", codes), (352, "18d", geometry), (500, "i", [10])]
    for at, kind, numbers in layout:
        struct.pack_into(f"{order}{kind}", header, at, *numbers)
    return header, voxels


def write(folder, name, order="<", bits=2):
    """Write the CT in the format of a name: in one file (.nii) or two; return the path."""
    header, voxels = nifti_parts(folder, order, bits)
    is_pair = ".nii" not in name
    magic = (b"ni" if is_pair else b"n+") + (b"1\0" if bits == 1 else b"2\0\r\n\x1a\n")
    at = 344 if bits == 1 else 4
    header[at : at + len(magic)] = magic
    offset_at, kind = (108, "f") if bits == 1 else (168, "q")
    struct.pack_into(f"{order}{kind}", header, offset_at, 0 if is_pair else len(header) + 4)
    path = folder / name
    pack = gzip.compress if name.endswith(".gz") else bytes
    if is_pair:
        path.with_name(name.replace("img", "hdr")).write_bytes(pack(header))
        path.with_name(name.replace("hdr", "img")).write_bytes(pack(voxels))
    else:
        path.write_bytes(pack(header + bytes(4) + voxels))
    return path


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(
    ("name", "bits"),
    [("a.nii", 2), ("a.nii.gz", 2), ("a.hdr", 1), ("a.img", 1), ("a.img", 2), ("a.hdr.gz", 2), ("a.img.gz", 1)],
)
def test_values_and_places(tmp_path, name, bits, order):
    path = write(tmp_path, name, order, bits)
    scan = read_ct(path)
    assert (scan.hu == 900).sum() == 1
    k, j, i = map(int, np.argwhere(scan.hu == 900)[0])
    assert scan.image.TransformIndexToPhysicalPoint((i, j, k)) == pytest.approx(BRIGHT_MM, abs=1e-3)
    assert scan.image.GetSpacing() == pytest.approx((0.7, 0.8, 3.0))
    np.testing.assert_array_equal(scan.hu, sitk.GetArrayFromImage(ct_image()))
    assert scan.source == path
    assert [warning.code for warning in scan.warnings] == ["coarse-values"]  # steps of 2 HU
    np.testing.assert_array_equal(sitk.GetArrayFromImage(read_mask(path)), scan.hu)
    assert read_header(path).GetSize() == (40, 30, 10)


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz", "a.img", "a.img.gz"])
class TestDamage:
    @pytest.mark.parametrize("change", [lambda data: data[:-10], lambda data: data + bytes(10)])
    def test_bytes_too_few_or_too_many(self, tmp_path, name, change):
        path = write(tmp_path, name)
        content = path.read_bytes()
        is_packed = name.endswith(".gz")
        path.write_bytes(gzip.compress(change(gzip.decompress(content))) if is_packed else change(content))
        refuses(path, UnreadableError, "a")

    def test_any_byte_of_the_header(self, tmp_path, name):
        """Changed headers are read or refused; none ends in another error."""
        header = write(tmp_path, name).with_name(name.replace("img", "hdr"))
        unpack, pack = (gzip.decompress, gzip.compress) if name.endswith(".gz") else (bytes, bytes)
        content = unpack(header.read_bytes())
        refusals = 0
        for at in [*range(32), *range(104, 200, 3), *range(344, 400, 3)]:
            changed = bytearray(content)
            changed[at] ^= 0xFF
            header.write_bytes(pack(changed))
            try:
                read_ct(tmp_path / name)
            except CTError:
                refusals += 1
        assert refusals > 20


def test_a_damaged_packed_file(tmp_path):
    path = write(tmp_path, "a.nii.gz")
    content = bytearray(path.read_bytes())
    content[-6] ^= 1
    path.write_bytes(content)
    refuses(path, UnreadableError, r"a\.nii\.gz is damaged")


@pytest.mark.parametrize("missing", ["a.hdr", "a.img"])
def test_a_pair_needs_both_files(tmp_path, missing):
    write(tmp_path, "a.img")
    (tmp_path / missing).unlink()
    refuses(tmp_path / {"a.hdr": "a.img", "a.img": "a.hdr"}[missing], UnreadableError, r"two files, \.hdr and \.img")


@pytest.mark.parametrize("name", ["a.hdr", "a.img"])
def test_analyze_states_no_orientation(tmp_path, name):
    header = write(tmp_path, name, bits=1).with_suffix(".hdr")
    header.write_bytes(header.read_bytes()[:344] + bytes(4))
    refuses(tmp_path / name, UnreadableError, r"Analyze.*Convert the DICOM series to NIfTI")
