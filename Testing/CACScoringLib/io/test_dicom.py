"""DICOM files whose headers cannot be trusted, and the facts of an acquisition."""

import struct
import tracemalloc

import pydicom
import pytest
from dicom_files import chest_hu, save, write_series
from pydicom.uid import DeflatedExplicitVRLittleEndian, RLELossless

from CACScoringLib.core.ct import NotCTError, NotVolumeError, SeriesChoiceError, SliceGeometryError, UnreadableError
from CACScoringLib.io import stack
from CACScoringLib.io.dicom import MOST_INFLATED_BYTES, read_bounded, read_slice
from CACScoringLib.io.reading import read_ct

ENHANCED_CT = "1.2.840.10008.5.1.4.1.1.2.1"


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


class TestDicomFiles:
    @pytest.mark.parametrize("syntax", [None, RLELossless])
    @pytest.mark.parametrize("missing", [8, 300, 5000])
    def test_truncated_slice(self, tmp_path, syntax, missing):
        path = write_series(tmp_path, chest_hu(rows=60, columns=60))[3]
        if syntax:
            ds = pydicom.dcmread(path)
            ds.compress(syntax, generate_instance_uid=False)
            ds.save_as(path)
        path.write_bytes(path.read_bytes()[:-missing])
        with pytest.raises(UnreadableError, match=r"slice003\.dcm"):
            read_ct(tmp_path)

    @pytest.mark.parametrize("claimed", [2**30, 2**31 - 256, 2**32 - 16])
    @pytest.mark.parametrize("form", ["explicit", "implicit"])
    def test_lengths_are_checked_before_they_are_believed(self, tmp_path, monkeypatch, form, claimed):
        """GDCM would set aside what an element behind the pixels claims to hold, gigabytes, and fill it."""
        header = struct.pack("<HH2sHI", 0x7FE1, 0x10, b"OB", 0, claimed)
        if form == "implicit":
            header = struct.pack("<HHI", 0x7FE1, 0x10, claimed)
        for path in write_series(tmp_path, chest_hu()):
            path.write_bytes(path.read_bytes() + header + b"appended")
        monkeypatch.setattr(stack.sitk, "ImageFileReader", lambda: pytest.fail("GDCM was asked"))
        with pytest.raises(UnreadableError, match=r"slice000\.dcm is truncated, or other bytes were written into it"):
            read_ct(tmp_path)

    def test_no_more_is_set_aside_for_a_header_than_it_holds(self, tmp_path):
        """An element that is looked at claims 2 GB."""
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

    def test_broken_headers_are_named_in_a_warning(self, tmp_path):
        write_series(tmp_path, chest_hu())
        (tmp_path / "torn.dcm").write_bytes(bytes(128) + b"DICM" + bytes(range(256)))
        scan = read_ct(tmp_path)
        assert [warning.code for warning in scan.warnings] == ["unread-files"]
        assert "torn.dcm" in scan.warnings[0].message

    @pytest.mark.parametrize("tags", [{"SOPClassUID": ENHANCED_CT}, {"NumberOfFrames": 40}])
    def test_multi_frame(self, tmp_path, tags):
        path = write_series(tmp_path, chest_hu(1), tags={**tags, "ImagePositionPatient": None})[0]
        for given_path in (path, tmp_path):
            with pytest.raises(UnreadableError, match="multi-frame CT without functional groups"):
                read_ct(given_path)

    def test_nothing_to_read(self, tmp_path):
        path = write_series(tmp_path / "ct", chest_hu())[0]
        (tmp_path / "empty").mkdir()
        for source, series, error, match in (
            (tmp_path / "absent", None, UnreadableError, "does not exist"),
            (tmp_path / "empty", None, UnreadableError, "no readable DICOM file"),
            (path, None, NotVolumeError, "Give the folder"),
            (path, "3", SeriesChoiceError, "has no series"),
            (path.parent, "7", SeriesChoiceError, "no CT series '7'"),
            (write_series(tmp_path / "one", chest_hu(1))[0].parent, None, NotVolumeError, "1 slice"),
            (write_series(tmp_path / "mr", chest_hu(1), tags={"Modality": "MR"})[0], None, NotCTError, "modality MR"),
        ):
            with pytest.raises(error, match=match):
                read_ct(source, series)


class TestAcquisition:
    def read(self, folder, **tags):
        write_series(folder, chest_hu(2), tags=tags)
        return read_ct(folder).acquisition

    def test_facts(self, tmp_path):
        facts = self.read(tmp_path, ConvolutionKernel=["I31f", "2"], ContrastBolusAgent="Iopamidol", SliceThickness=5)
        assert facts.file_format == "DICOM"
        assert (facts.kvp, facts.kernel, facts.slice_thickness_mm, facts.exposure_mas) == (120, "I31f 2", 5, 80)
        assert (facts.manufacturer, facts.scanner_model, facts.contrast_agent) == ("Maker", "Model X", "Iopamidol")
        assert (facts.series_number, facts.series_description, facts.study_date) == (3, "CaSc 3.0", "2024-01-31")
        assert (facts.patient_sex, facts.patient_age_years, facts.patient_id) == ("F", 58, "P1")
        assert facts.patient_name == "Doe^Jane"
        assert facts.gating is None

    def test_missing_facts_are_none(self, tmp_path):
        names = """KVP ConvolutionKernel Manufacturer ManufacturerModelName SliceThickness Exposure SeriesNumber
            SeriesDescription StudyDate PatientSex PatientAge PatientID PatientName SeriesInstanceUID"""
        facts = self.read(tmp_path / "without", **dict.fromkeys(names.split()))
        assert {name for name, value in vars(facts).items() if value is not None} == {"file_format"}
        empty = self.read(tmp_path / "empty", ContrastBolusAgent="", KVP="", PatientName="", ConvolutionKernel=" ")
        assert (empty.contrast_agent, empty.kvp, empty.patient_name, empty.kernel) == (None, None, None, None)

    def test_mass_factors(self, tmp_path):
        """DICOM 0018,9351 and 0018,9352, in single precision."""
        tags = {"CalciumScoringMassFactorPatient": 0.76, "CalciumScoringMassFactorDevice": [0.74, 0.77, 0.81]}
        facts = self.read(tmp_path / "stated", **tags)
        device = (facts.mass_factor_small, facts.mass_factor_medium, facts.mass_factor_large)
        assert (facts.mass_factor_patient, *device) == pytest.approx((0.76, 0.74, 0.77, 0.81), abs=1e-6)
        tags = {"CalciumScoringMassFactorPatient": 0.0, "CalciumScoringMassFactorDevice": [0.74, 1000.0, 0.81]}
        facts = self.read(tmp_path / "wrong", **tags)
        assert (facts.mass_factor_patient, facts.mass_factor_small) == (None, None)

    @pytest.mark.parametrize(
        ("age", "years"),
        [("058Y", 58), ("018M", 1), ("105W", 2), ("010D", 0), ("58", None), ("", None)],
    )
    @pytest.mark.filterwarnings("ignore:Invalid value for VR AS")
    def test_ages(self, tmp_path, age, years):
        assert self.read(tmp_path, PatientAge=age).patient_age_years == years

    @pytest.mark.parametrize(
        ("tags", "gating"),
        [
            ({"CardiacSynchronizationTechnique": "PROSPECTIVE"}, "PROSPECTIVE"),
            ({"CardiacSynchronizationTechnique": "NONE"}, None),
            ({"ScanOptions": ["HELICAL", "CG"]}, "ECG"),
            ({"ScanOptions": "ECG_GATED"}, "ECG"),
            ({"ScanOptions": "NON ECG GATED"}, None),
            ({"ScanOptions": "HELICAL MODE"}, None),
            ({"AcquisitionType": "SEQUENCED"}, None),
        ],
    )
    def test_gating(self, tmp_path, tags, gating):
        assert self.read(tmp_path, **tags).gating == gating

    def test_exposure_is_the_median_and_knows_micro(self, tmp_path):
        write_series(tmp_path / "modulated", chest_hu(3), edit=lambda ds, k: setattr(ds, "Exposure", [90, 20, 40][k]))
        assert read_ct(tmp_path / "modulated").acquisition.exposure_mas == 40
        assert self.read(tmp_path / "micro", Exposure=None, ExposureInuAs=12500).exposure_mas == 12.5
