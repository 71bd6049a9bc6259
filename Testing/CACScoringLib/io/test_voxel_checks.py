"""Integrity of image files: a damaged file is refused or read correctly, never as other voxels."""

import gzip
import random
import time
import zlib

import numpy as np
import pytest
import SimpleITK as sitk
from images import image_of

from CACScoringLib.core.errors import CTError, NotHounsfieldError, UnreadableError
from CACScoringLib.io.image_files import read_image

COMPRESSED = {
    "scan.nii.gz": "scan.nii.gz",
    "scan.nrrd": "scan.nrrd",
    "scan.seg.nrrd": "scan.seg.nrrd",
    "scan.nhdr": "scan.raw.gz",
    "scan.mha": "scan.mha",
    "scan.mhd": "scan.zraw",
}
"""Files with compressed voxels, each with the file that holds the voxels."""

NRRD = "NRRD0004\ntype: short\ndimension: 3\nsizes: 6 5 4\nendian: little\nencoding: gzip\n"
META = "ObjectType = Image\nNDims = 3\nBinaryData = True\nCompressedData = True\n{}DimSize = 6 5 4\n{}"
META += "ElementType = MET_SHORT\nElementDataFile = {}\n"


def values():
    """int16 [4, 5, 6], only partly compressible."""
    hu = np.random.default_rng(0).integers(-1000, 1500, (4, 5, 6), np.int16)
    hu[2:] = 40
    return hu


def written(path):
    image = image_of(values(), (0.7, 0.8, 3.0))
    sitk.WriteImage(image, str(path), useCompression=True)
    return path


def read(path):
    return sitk.GetArrayFromImage(read_image(path))


def changes(data, seed=0):
    """Yield damage at each byte of a file: a flipped bit, a lost byte, a missing end, a stretch of zeros."""
    random_ = random.Random(seed)
    for at in range(len(data)):
        yield "flipped", at, data[:at] + bytes([data[at] ^ 1 << random_.randrange(8)]) + data[at + 1 :]
        yield "lost", at, data[:at] + data[at + 1 :]
        yield "cut", at, data[:at]
        yield "zeros", at, data[:at] + bytes(min(20, len(data) - at)) + data[at + 20 :]


@pytest.mark.parametrize(("name", "data"), COMPRESSED.items())
@pytest.mark.long
def test_damage_is_never_read_as_other_voxels(tmp_path, name, data):
    path = written(tmp_path / name)
    content = (tmp_path / data).read_bytes()
    refused = 0
    for kind, at, changed in changes(content):
        (tmp_path / data).write_bytes(changed)
        try:
            voxels = read(path)
        except CTError:
            refused += 1
            continue
        assert np.array_equal(voxels, values()), f"{kind} at {at} of {len(content)}"
    assert refused > len(content)


def test_members_and_padding_are_legal(tmp_path):
    raw = values().tobytes()
    nifti = gzip.decompress(written(tmp_path / "a.nii.gz").read_bytes())
    for name, head, body in (("scan.nii.gz", b"", nifti), ("scan.nrrd", f"{NRRD}\n".encode(), raw)):
        members = gzip.compress(body[:99]) + gzip.compress(b"") + gzip.compress(body[99:])
        for tail in (b"", bytes(1), bytes(70_000)):
            (tmp_path / name).write_bytes(head + members + tail)
            np.testing.assert_array_equal(read(tmp_path / name), values())


def test_a_damaged_later_member_is_refused(tmp_path):
    raw = values().tobytes()
    later = bytearray(gzip.compress(raw[99:]))
    for at in (0, 1, 20, len(later) - 8, len(later) - 4):
        changed = later.copy()
        changed[at] ^= 16
        (tmp_path / "scan.nrrd").write_bytes(f"{NRRD}\n".encode() + gzip.compress(raw[:99]) + changed)
        with pytest.raises(UnreadableError, match="damaged"):
            read(tmp_path / "scan.nrrd")


def test_a_bomb_is_not_looked_through(tmp_path):
    """Decompressing the 20 GB beyond the voxels would take minutes."""
    path = written(tmp_path / "scan.nii.gz")
    path.write_bytes(path.read_bytes() + 20_000 * gzip.compress(bytes(2**20)))
    started = time.monotonic()
    with pytest.raises(UnreadableError, match="holds more, but its header states 592 bytes"):
        read(path)
    assert time.monotonic() - started < 10


@pytest.mark.parametrize("bytes_more", [-1, 1])
@pytest.mark.parametrize("name", ["scan.nii", "scan.nii.gz", "scan.nrrd", "scan.nhdr", "scan.mha", "scan.mhd"])
def test_bytes_too_many_or_too_few_shift_the_image(tmp_path, name, bytes_more):
    """Uncompressed voxels have no check sum, so only the length of the file reveals it."""
    sitk.WriteImage(sitk.GetImageFromArray(values()), str(tmp_path / name))
    data = tmp_path / {"scan.nhdr": "scan.raw", "scan.mhd": "scan.raw"}.get(name, name)
    is_packed = name.endswith(".gz")
    content = gzip.decompress(data.read_bytes()) if is_packed else data.read_bytes()
    start = len(content) - values().nbytes
    changed = content[:start] + bytes(bytes_more) + content[start:] if bytes_more > 0 else content[:bytes_more]
    np.testing.assert_array_equal(read(tmp_path / name), values())
    data.write_bytes(gzip.compress(changed) if is_packed else changed)
    with pytest.raises(UnreadableError, match="scan"):
        read(tmp_path / name)


@pytest.mark.parametrize(
    ("place", "lost", "name_order"),
    [
        *(("LIST", 0, 1), ("LIST 2", 0, -1), ("LIST 3", 0, 1), ("LIST", 2, -1)),
        *(("scan%d.raw 0 {} 1", 0, 1), ("scan%d.raw 0 {} 1", 0, -1), ("%5s 0 {} 1", 0, 1)),
    ],
)
def test_voxels_in_several_files(tmp_path, place, lost, name_order):
    """Slices without a file would hold what lies in memory, which reads as other labels."""
    for k, plane in enumerate(values()[::name_order]):
        (tmp_path / f"scan{k}.raw").write_bytes(plane.tobytes())
    names = [f"scan{k}.raw\n" for k in range(4)][::name_order]
    header = META.format("", "", place).replace("CompressedData = True", "CompressedData = False")

    def write(count):
        files = "".join(names[:count]) if "LIST" in place else ""
        (tmp_path / "scan.mhd").write_text(header.format(count - 1) + files, encoding="utf-8")

    write(4)
    if place.startswith(("LIST 3", "%5s")):
        names = ["scan0.raw\n"]
    elif "LIST" in place or name_order == 1:
        np.testing.assert_array_equal(read(tmp_path / "scan.mhd"), values())
    write(3 - lost)
    with pytest.raises(UnreadableError, match=r"scan\.mhd"):
        read(tmp_path / "scan.mhd")


@pytest.mark.parametrize("skipped", [4, 10**14])
@pytest.mark.parametrize("name", ["scan.mhd", "scan.mha"])
def test_a_header_size_that_shifts_voxels(tmp_path, name, skipped):
    for is_packed in (False, True):
        sitk.WriteImage(sitk.GetImageFromArray(values()), str(tmp_path / name), is_packed)
        content = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(content.replace(b"DimSize", f"HeaderSize = {skipped}\nDimSize".encode()))
        with pytest.raises(UnreadableError, match=name) as error:
            read(tmp_path / name)
        assert "holds -" not in str(error.value)


class TestMetaImage:
    """Files that ITK reads as zeros, or incompletely."""

    @pytest.mark.parametrize("size", ["", "CompressedDataSize = 5\n"])
    def test_size_missing_or_too_small(self, tmp_path, size):
        (tmp_path / "scan.mha").write_bytes(META.format(size, "", "LOCAL").encode() + zlib.compress(values().tobytes()))
        with pytest.raises(UnreadableError, match="end early"):
            read_image(tmp_path / "scan.mha")

    @pytest.mark.parametrize(("suffix", "source"), [(".mha", ".nii"), (".mhd", ".nrrd"), (".mha", None)])
    def test_headers_that_itk_writes_from_other_formats(self, tmp_path, suffix, source):
        """Field names include dim[0], NRRD_kinds[0] and 0008|0060."""
        image = sitk.GetImageFromArray(values())
        if source:
            sitk.WriteImage(image, str(tmp_path / f"scan{source}"))
            image = sitk.ReadImage(str(tmp_path / f"scan{source}"))
        image.SetMetaData("0008|0060", "CT")
        image.SetMetaData("0020|4000", "a = b: c")
        sitk.WriteImage(image, str(tmp_path / f"scan{suffix}"))
        np.testing.assert_array_equal(read(tmp_path / f"scan{suffix}"), values())


class TestNifti:
    """Faulty files that ITK reads without an error."""

    def write(self, path, values=values):
        image = image_of(values(), (0.7, 0.8, 3.0), (-100, -120, 30))
        sitk.WriteImage(image, str(path))
        return path

    @pytest.mark.parametrize(
        ("name", "kind", "value"),
        [("scan.nii", np.float32, np.nan), ("scan.nii.gz", np.float64, np.inf), ("scan.nii", np.float64, -np.inf)],
    )
    def test_nan_and_infinity_are_refused(self, tmp_path, name, kind, value):
        def array(value):
            array = values().astype(kind)
            array[1, 2, 3] = array[-1, -1, -1] = value
            return array

        read(self.write(tmp_path / name, lambda: array(1)))
        with pytest.raises(NotHounsfieldError, match=r"2 voxels of scan\.\S+ are not numbers"):
            read(self.write(tmp_path / name, lambda: array(value)))

    @pytest.mark.parametrize(
        ("at", "value", "message"),
        [
            (280, 0.7, "qform"),  # srow_x is -0.7: left and right
            (320, -3.0, "qform"),  # srow_z: the order of slices
            (324, 40.0, "up to 10 mm apart"),
            (80, 0.9, r"0\.7×0\.8×3 mm by its sform and of 0\.9×0\.8×3 mm by its pixdim"),
            (264, 0.0, "qform"),
            (280, np.nan, "contradicts"),
        ],
    )
    def test_geometry_that_contradicts_itself(self, tmp_path, at, value, message):
        path = self.write(tmp_path / "scan.nii")
        data = bytearray(path.read_bytes())
        data[at : at + 4] = np.float32(value).tobytes()
        path = tmp_path / "scan.nii.gz"
        path.write_bytes(gzip.compress(data))
        with pytest.raises(CTError, match=message):
            read(path)

    @pytest.mark.parametrize(
        ("quaternion", "qfac"), [((0, 0, 1), 1), ((1, 0, 0), -1), ((0.6, 0, 0.8), 1), ((0.5, 0.5, 0.5), -1)]
    )
    def test_geometry_that_agrees(self, tmp_path, quaternion, qfac):
        path = self.write(tmp_path / "scan.nii")
        image = read_image(path)
        real = max(0, 1 - np.dot(quaternion, quaternion)) ** 0.5
        rotation = np.reshape(sitk.VersorTransform((*quaternion, real)).GetMatrix(), (3, 3))
        image.SetDirection((rotation * (1, 1, qfac)).ravel())
        sitk.WriteImage(image, str(path))
        assert read_image(path).GetDirection() == pytest.approx(image.GetDirection(), abs=1e-5)
