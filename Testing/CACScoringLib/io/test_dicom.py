"""DICOM files whose headers cannot be trusted."""

import gzip
import struct
import tracemalloc

import pydicom
import pytest
from dicom_files import chest_hu, save, write_series
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian, RLELossless
from reading_checks import reads, refuses

from CACScoringLib.core.errors import NotCTError, NotVolumeError, SeriesChoiceError, SliceGeometryError, UnreadableError
from CACScoringLib.io import stack
from CACScoringLib.io.dicom import MAX_INFLATED_BYTES, is_dicom, read_bounded, read_slice
from CACScoringLib.io.reading import read_ct

ENHANCED_CT = "1.2.840.10008.5.1.4.1.1.2.1"
TORN = bytes(128) + b"DICM" + b"\xff" * 300


def deflated(path, private_bytes=0):
    """Rewrite a slice, deflated, with a private element of zeros."""
    dataset = pydicom.dcmread(path)
    dataset.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    if private_bytes:
        dataset.add_new((0x0009, 0x0010), "LO", "MAKER")
        dataset.add_new((0x0009, 0x1010), "OB", bytes(private_bytes))
    return save(dataset, path)


@pytest.mark.long
def test_a_bomb_is_refused_before_memory_is_full(tmp_path):
    path = deflated(write_series(tmp_path, chest_hu())[2], MAX_INFLATED_BYTES + 1)
    assert path.stat().st_size < 2**17
    tracemalloc.start()
    try:
        with pytest.raises(UnreadableError, match="inflates to more than"):
            read_bounded(path)
        assert tracemalloc.get_traced_memory()[1] < 2**24
    finally:
        tracemalloc.stop()
    refuses(tmp_path, SliceGeometryError, rf"missing.*could not be read: {path.name}\. {path.name} has .* inflates")


@pytest.mark.parametrize(
    ("start", "expected"),
    [
        (struct.pack("<HHI", 0x0008, 0x0005, 10), True),  # implicit: group, element, length
        (struct.pack("<HHI", 0x0008, 0x0018, 256), True),
        (struct.pack("<HHI", 0x0008, 0x0018, 258), False),
        (struct.pack("<HHI", 0x0008, 0x0018, 0), False),
        (struct.pack("<HHI", 0x0008, 0x0020, 8), False),
        (struct.pack("<HH2sH", 0x0002, 0x0000, b"UL", 4), True),  # explicit: with a value representation
        (struct.pack("<HH2sH", 0x0008, 0x0018, b"UI", 40), True),
        (struct.pack("<HH2sH", 0x0008, 0x0018, b"ZZ", 40), False),
    ],
)
def test_a_file_without_preamble_begins_with_an_early_element(tmp_path, start, expected):
    path = tmp_path / "image"
    path.write_bytes(start.ljust(132, b"1"))
    assert is_dicom(path) == expected
    path.write_bytes(start.ljust(131, b"1"))
    assert not is_dicom(path)


def test_a_torn_stream_is_broken(tmp_path):
    path = deflated(write_series(tmp_path, chest_hu())[0])
    path.write_bytes(path.read_bytes()[:400] + b"\xff" * 200)
    with pytest.raises(UnreadableError, match="broken DICOM file"):
        read_bounded(path)


def test_file_meta_information_of_an_unknown_kind_is_broken(tmp_path):
    """ITK's reader took 739 MB of memory for it."""
    path = write_series(tmp_path, chest_hu())[1]
    content = path.read_bytes()
    at = content.index(b"\x02\x00\x12\x00UI")
    path.write_bytes(content[: at + 4] + b"QY" + content[at + 6 :])
    with pytest.raises(UnreadableError, match="broken DICOM file"):
        read_bounded(path)
    refuses(tmp_path, SliceGeometryError, rf"could not be read: {path.name}")


class TestDicomFiles:
    @pytest.mark.parametrize(("syntax", "missing"), [(None, 5000), (RLELossless, 8), (RLELossless, 300)])
    def test_truncated_slice(self, tmp_path, syntax, missing):
        path = write_series(tmp_path, chest_hu(rows=60, columns=60))[3]
        if syntax:
            ds = pydicom.dcmread(path)
            ds.compress(syntax, generate_instance_uid=False)
            ds.save_as(path)
        path.write_bytes(path.read_bytes()[:-missing])
        refuses(tmp_path, UnreadableError, r"slice003\.dcm")

    @pytest.mark.parametrize(
        "header",
        [struct.pack("<HH2sHI", 0x7FE1, 0x10, b"OB", 0, 2**32 - 16), struct.pack("<HHI", 0x7FE1, 0x10, 2**30)],
        ids=["explicit", "implicit"],
    )
    def test_lengths_are_checked_before_they_are_believed(self, tmp_path, monkeypatch, header):
        """GDCM allocates the gigabytes that an element after the pixels claims."""
        for path in write_series(tmp_path, chest_hu()):
            path.write_bytes(path.read_bytes() + header + b"appended")
        monkeypatch.setattr(stack.sitk, "ImageFileReader", lambda: pytest.fail("GDCM was asked"))
        refuses(tmp_path, UnreadableError, r"slice000\.dcm holds bytes after its pixels")

    def test_a_header_takes_no_more_memory_than_its_content(self, tmp_path):
        """An element that is read claims 2 GB."""
        path = write_series(tmp_path, chest_hu())[3]
        content = path.read_bytes()
        at = content.index(b"CaSc 3.0") - 4
        path.write_bytes(content[:at] + b"UT\0\0" + struct.pack("<I", 2**31 - 256) + content[at + 4 :])
        tracemalloc.start()
        try:
            with pytest.raises(UnreadableError, match="truncated, or other bytes"):
                read_slice(path)
            assert tracemalloc.get_traced_memory()[1] < 2**24
        finally:
            tracemalloc.stop()

    @pytest.mark.parametrize(
        ("name", "content", "code"),
        [
            *(("torn", TORN, "slices-unread"), ("IMG6.IMA", b"", "slices-unread")),
            *((name, bytes(2000), "slices-unread") for name in ("slice006.dcm", "slice006")),
            *(("other/torn", TORN, "unread-files"), ("DICOMDIR", TORN, "unread-files")),
            ("README.dcm", b"read me", "unread-files"),
            ("other.dcm", bytes(1000), "slices-unread"),  # as large as most of a slice
        ],
    )
    def test_files_that_may_be_slices_are_named_in_a_warning(self, tmp_path, name, content, code):
        """A slice of the scan may be among files beside its slices, but not in another folder; one at the end leaves no
        gap."""
        write_series(
            tmp_path, chest_hu(), name="slice{:03d}".format if name == "slice006" else "slice{:03d}.dcm".format
        )
        (tmp_path / "other").mkdir()
        (tmp_path / name).write_bytes(content)
        (tmp_path / "README.txt").write_bytes(bytes(2000))
        (warning,) = read_ct(tmp_path).warnings
        assert (warning.code, name.rpartition("/")[2] in warning.message) == (code, True)

    @pytest.mark.parametrize("without", [[5], range(6)])
    def test_slices_without_preamble(self, tmp_path, without):
        paths = write_series(tmp_path, chest_hu())
        for k in without:
            paths[k].write_bytes(paths[k].read_bytes()[132:])
        reads(tmp_path, chest_hu())

    @pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRLittleEndian])
    def test_slices_without_meta_information(self, tmp_path, syntax):
        for path in write_series(tmp_path, chest_hu()):
            ds = pydicom.dcmread(path)
            del ds.file_meta
            ds.save_as(path, implicit_vr=syntax.is_implicit_VR, little_endian=True, enforce_file_format=False)
        reads(tmp_path, chest_hu())

    def test_slices_compressed_by_gzip(self, tmp_path):
        for path in write_series(tmp_path, chest_hu()):
            path.with_suffix(".dcm.gz").write_bytes(gzip.compress(path.read_bytes()))
            path.unlink()
        reads(tmp_path, chest_hu())
        torn = tmp_path / "slice005.dcm.gz"
        torn.write_bytes(torn.read_bytes()[:-20])
        assert [warning.code for warning in read_ct(tmp_path).warnings] == ["slices-unread"]

    def test_decimal_commas(self, tmp_path):
        """Writers in a German locale produce them against PS3.5 6.2."""
        for path in write_series(tmp_path, chest_hu() + 0.5, intercept=-1024.5):
            content = path.read_bytes()
            for point, comma in ((b"-1024.5", b"-1024,5"), (b"0.8\\0.7", b"0,8\\0,7"), (b"-100.0\\", b"-100,0\\")):
                assert content.count(point) == 1
                content = content.replace(point, comma)
            path.write_bytes(content)
        scan = reads(tmp_path, chest_hu() + 0.5)
        assert scan.image.GetSpacing() == pytest.approx((0.7, 0.8, 3.0))
        assert scan.image.GetOrigin() == pytest.approx((-100, -120, 30))

    @pytest.mark.parametrize("tags", [{"SOPClassUID": ENHANCED_CT}, {"NumberOfFrames": 40}])
    def test_multi_frame(self, tmp_path, tags):
        path = write_series(tmp_path, chest_hu(1), tags={**tags, "ImagePositionPatient": None})[0]
        for given_path in (path, tmp_path):
            refuses(given_path, UnreadableError, "multi-frame CT without functional groups")

    def test_nothing_to_read(self, tmp_path):
        path = write_series(tmp_path / "ct", chest_hu())[0]
        (tmp_path / "empty").mkdir()
        for source, series, error, match in (
            (tmp_path / "absent", None, UnreadableError, "does not exist"),
            (tmp_path / "empty", None, UnreadableError, "no readable DICOM file"),
            (path, None, NotVolumeError, "Give the folder"),
            (path, "3", NotVolumeError, "Give the folder"),
            (path.parent, "7", SeriesChoiceError, "no CT series '7'"),
            (write_series(tmp_path / "one", chest_hu(1))[0].parent, None, NotVolumeError, "1 slice"),
            (write_series(tmp_path / "mr", chest_hu(1), tags={"Modality": "MR"})[0], None, NotCTError, "modality MR"),
        ):
            refuses(source, error, match, series)
