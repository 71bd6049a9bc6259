"""Deflated DICOM files: small ones that would fill the memory are refused, sound ones are read."""

import tracemalloc

import pydicom
import pytest
from dicom_files import chest_hu, save, write_series
from pydicom.uid import DeflatedExplicitVRLittleEndian

from CACScoringLib.core.ct import SliceGeometryError, UnreadableError
from CACScoringLib.io.dicom import MOST_INFLATED_BYTES, read_bounded
from CACScoringLib.io.reading import read_ct


def deflated(path, private_bytes=0):
    """Write a slice anew, deflated, with a private element of zeros."""
    dataset = pydicom.dcmread(path)
    dataset.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    if private_bytes:
        dataset.add_new((0x0009, 0x0010), "LO", "MAKER")
        dataset.add_new((0x0009, 0x1010), "OB", bytes(private_bytes))
    return save(dataset, path)


@pytest.mark.long
def test_a_bomb_is_refused_before_it_fills_the_memory(tmp_path):
    path = deflated(write_series(tmp_path, chest_hu())[2], MOST_INFLATED_BYTES + 1)
    assert path.stat().st_size < 2**17
    tracemalloc.start()
    try:
        with pytest.raises(UnreadableError, match="inflates to more than"):
            read_bounded(path)
        assert tracemalloc.get_traced_memory()[1] < 2**24
    finally:
        tracemalloc.stop()
    with pytest.raises(SliceGeometryError, match=rf"missing.*not read: {path.name}\. {path.name} has .* inflates"):
        read_ct(tmp_path)


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
    with pytest.raises(SliceGeometryError, match=rf"not read: {path.name}"):
        read_ct(tmp_path)
