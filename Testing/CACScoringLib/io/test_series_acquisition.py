"""Acquisition of a series from its headers."""

import pytest
from dicom_files import chest_hu, write_series

from CACScoringLib.core.errors import SliceGeometryError
from CACScoringLib.io.reading import read_ct
from CACScoringLib.io.series_acquisition import clock


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
        assert {name for name, value in vars(facts).items() if value not in (None, {})} == {"file_format"}
        empty = self.read(tmp_path / "empty", ContrastBolusAgent="", KVP="", PatientName="", ConvolutionKernel=" ")
        assert (empty.contrast_agent, empty.kvp, empty.patient_name, empty.kernel) == (None, None, None, None)

    def test_free_texts_do_not_identify_the_patient(self, tmp_path):
        """Whatever an operator types: results show these texts of everybody. What says "no contrast" is kept."""
        person = {"PatientName": "MÜLLER^Eva", "PatientID": "ID-4711", "PatientBirthDate": "19500102"}
        texts = {"SeriesDescription": "CaSc Mueller,Eva 3.0 (id4711) 19500102", "ContrastBolusAgent": "Iopamidol Eva"}
        facts = self.read(tmp_path / "named", **person, **texts)
        assert (facts.series_description, facts.contrast_agent) == ("CaSc scan,scan 3.0 scan scan", "Iopamidol scan")
        facts = self.read(tmp_path / "none", PatientName="None^One", ContrastBolusAgent="none")
        assert facts.contrast_agent == "none"

    def test_texts_of_the_scanner_state_no_patient_either(self, tmp_path):
        """What anonymisers and archives wrote there goes; letters of a name within a code stay."""
        person = {"PatientName": "ROE^Jane^B", "PatientID": "ID-4711", "PatientBirthDate": "19500817"}
        device = {"CardiacSynchronizationTechnique": "GATED", "FilterMaterial": "id4711"}
        names = {
            "ConvolutionKernel": "B35f 17.8.50",
            "Manufacturer": "Roe 1950-08-17",
            "ManufacturerModelName": "Janeway",
        }
        facts = self.read(tmp_path, **person, **device, **names)
        assert (facts.kernel, facts.manufacturer, facts.scanner_model) == ("B35f scan", "scan scan", "Janeway")
        assert (facts.gating, facts.filter_material) == ("GATED", "scan")

    def test_mass_factors(self, tmp_path):
        """DICOM 0018,9351 and 0018,9352, in single precision."""
        tags = {"CalciumScoringMassFactorPatient": 0.76, "CalciumScoringMassFactorDevice": [0.74, 0.77, 0.81]}
        facts = self.read(tmp_path / "stated", **tags)
        device = (facts.mass_factor_small, facts.mass_factor_medium, facts.mass_factor_large)
        assert (facts.mass_factor_patient, *device) == pytest.approx((0.76, 0.74, 0.77, 0.81), abs=1e-6)
        tags = {"CalciumScoringMassFactorPatient": 0.0, "CalciumScoringMassFactorDevice": [0.74, 1000.0, 0.81]}
        facts = self.read(tmp_path / "wrong", **tags)
        assert (facts.mass_factor_patient, facts.mass_factor_small) == (None, None)

    @pytest.mark.parametrize(("size", "weight"), [(1.75, 80.0), (175.0, 800.0), (0.0, 0.0)])
    def test_height_and_weight(self, tmp_path, size, weight):
        """DICOM 0010,1020 in m and 0010,1030 in kg; other units are left out."""
        facts = self.read(tmp_path, PatientSize=size, PatientWeight=weight)
        expected = (1.75, 80.0) if size == 1.75 else (None, None)
        assert (facts.patient_height_m, facts.patient_weight_kg) == expected

    @pytest.mark.parametrize(("age", "years"), [("018M", 1), ("105W", 2), ("010D", 0), ("58", None)])
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
        ],
    )
    def test_gating(self, tmp_path, tags, gating):
        assert self.read(tmp_path, **tags).gating == gating

    def test_exposure_is_the_median_and_knows_micro(self, tmp_path):
        write_series(tmp_path / "modulated", chest_hu(3), edit=lambda ds, k: setattr(ds, "Exposure", [90, 20, 40][k]))
        assert read_ct(tmp_path / "modulated").acquisition.exposure_mas == 40
        assert self.read(tmp_path / "micro", Exposure=None, ExposureInuAs=12500).exposure_mas == 12.5

    @pytest.mark.parametrize(
        ("tags", "tin"),
        [
            *(({"FilterMaterial": "TIN"}, True), ({"FilterMaterial": ["ALUMINUM", "TIN"]}, True)),
            ({"FilterMaterial": "COPPER", "SeriesDescription": "CaSc Sn100"}, False),
            ({"SeriesDescription": "CaSc Sn100kV 3.0 Qr36"}, True),
            *(({"ProtocolName": "Ca_Scoring_Sn 150"}, True), ({"FilterType": "SN FILTER"}, True)),
            *(({"ImageComments": "SPC\r\nFiltre Sn"}, True), ({"ProtocolName": "Herz Zinnfilter"}, True)),
            *(({"SeriesDescription": "Patient Sn 1004"}, False), ({"SeriesDescription": "Fasn100"}, False)),
            *(({"FilterType": "FLAT"}, False), ({}, False)),
        ],
    )
    def test_tin_filters(self, tmp_path, tags, tin):
        acquisition = self.read(tmp_path, KVP=100, **tags)
        assert acquisition.has_tin_filter == tin
        assert acquisition.calcium_kvp == (120 if tin else 100)


@pytest.mark.parametrize(("time", "shown"), [("101530.25", "10:15:30"), ("1015", "10:15"), ("noon", "")])
def test_times_of_headers_are_formatted(time, shown):
    assert clock(time) == shown


@pytest.mark.parametrize(
    ("tags", "names"),
    [
        ({"SliceThickness": 0}, ["slice thickness"]),
        ({"SliceThickness": -3}, ["slice thickness"]),
        ({"KVP": 0}, ["tube voltage"]),
        ({"KVP": 120_000, "SliceThickness": 1e9}, ["slice thickness", "tube voltage"]),
        ({"KVP": 120, "SliceThickness": 3}, []),
    ],
)
def test_numbers_that_no_ct_has_are_unknown_and_named(tmp_path, tags, names):
    write_series(tmp_path, chest_hu(), tags=tags)
    scan = read_ct(tmp_path)
    assert (scan.acquisition.kvp is None) == ("tube voltage" in names)
    assert (scan.acquisition.slice_thickness_mm is None) == ("slice thickness" in names)
    messages = [warning.message for warning in scan.warnings if warning.code == "header-implausible"]
    assert len(messages) == bool(names)
    assert all(name in message for message in messages for name in names)


@pytest.mark.parametrize("spacing", [[0, 0], [0.7, 0], [-0.7, 0.7], [1e9, 1e9]])
def test_pixels_without_a_size_are_refused(tmp_path, spacing):
    write_series(tmp_path, chest_hu(), tags={"PixelSpacing": spacing})
    with pytest.raises(SliceGeometryError, match="no valid pixel spacing"):
        read_ct(tmp_path)
