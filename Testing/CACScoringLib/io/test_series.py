"""Choice of the series of a folder."""

import shutil

import numpy as np
import pydicom
import pytest
from dicom_files import chest_hu, only, save, set_tags, write_series
from reading_checks import reads, refuses

from CACScoringLib.core.errors import CTError, NotCTError, NotVolumeError, SeriesChoiceError
from CACScoringLib.io.reading import read_ct


@pytest.mark.parametrize("keyword", ["PatientID", "PatientName", "PatientBirthDate", "StudyInstanceUID"])
def test_patients_or_studies_mixed_in_a_series(tmp_path, keyword):
    write_series(tmp_path, chest_hu(), tags={keyword: "19500101"}, edit=only(3, **{keyword: "19500102"}))
    refuses(tmp_path, CTError, r"slice000\.dcm and slice003\.dcm have one series UID")


def test_a_patient_written_in_several_ways(tmp_path):
    names = ["Doe^Jane", "DOE^JANE", "Doe^Jane^^", "", "Doe^Jane ", "doe^jane"]
    write_series(tmp_path, chest_hu(), edit=lambda ds, k: setattr(ds, "PatientName", names[k]))
    reads(tmp_path, chest_hu())


class TestSeriesChoice:
    def two_series(self, folder, second_number=4):
        write_series(folder / "a", chest_hu())
        tags = {"SeriesNumber": second_number, "SeriesDescription": "Lung", "ConvolutionKernel": "B70f"}
        paths = write_series(folder / "b", chest_hu(5, seed=1), tags=tags)
        return pydicom.dcmread(paths[0]).SeriesInstanceUID

    def test_ambiguous_number(self, tmp_path):
        """Series of one number are chosen by rank, in the order of UIDs, or by UID."""
        uid = self.two_series(tmp_path, second_number=3)
        with pytest.raises(SeriesChoiceError, match="2 CT series have the number 3") as caught:
            read_ct(tmp_path, "3")
        lines = [line.strip() for line in str(caught.value).splitlines()[1:]]
        assert [line.split(":")[0] for line in lines] == ["3.1", "3.2"]
        (lung,) = (line for line in lines if "Lung" in line)
        assert f"kernel B70f, 3 mm thick, unknown time, 5 slices, UID {uid}" in lung
        for name in (uid, lung.split(":")[0]):
            assert read_ct(tmp_path, name).acquisition.series_uid == uid
        refuses(tmp_path, SeriesChoiceError, r"no CT series '3\.3'", "3.3")

    @pytest.mark.parametrize(
        ("keyword", "values", "stated", "number"),
        [
            ("NominalPercentageOfCardiacPhase", (65, 75), "% of the cycle", 3),
            ("TriggerTime", (300, 700), "ms after the R wave", None),
        ],
    )
    def test_cardiac_phases_of_a_series(self, tmp_path, keyword, values, stated, number):
        for n, value in enumerate(values):
            tags = {"SeriesInstanceUID": "1.2.3", "StudyInstanceUID": "1.2", keyword: value, "SeriesNumber": number}
            write_series(tmp_path / str(n), chest_hu(seed=n), tags=tags)
        for choice in (None, "1.2.3"):
            with pytest.raises(SeriesChoiceError, match=r"2 .*cardiac phases") as caught:
                read_ct(tmp_path, choice)
            lines = str(caught.value).splitlines()[1:]
            assert [f"{value} {stated}" in line for value, line in zip(values, lines, strict=True)] == [True, True]
        for n, line in enumerate(lines):
            reads(tmp_path, chest_hu(seed=n), [], series=line.split(":")[0])

    def parted(self, folder, **tags):
        """Write a scan whose upper three slices are a second series."""
        shared = {"StudyInstanceUID": "1.2", "FrameOfReferenceUID": "1.3"}
        paths = write_series(folder, chest_hu(), tags=shared)
        for path in paths[3:]:
            ds = pydicom.dcmread(path)
            set_tags(ds, {"SeriesInstanceUID": "1.2.4", "SeriesNumber": 4, **tags})
            save(ds, path)
        return paths

    def test_series_of_an_acquisition_are_joined(self, tmp_path):
        self.parted(tmp_path)
        refuses(tmp_path, SeriesChoiceError, "make one stack, which 'all' in place of a number joins")
        assert len(reads(tmp_path, chest_hu(), series="all").dicom_files) == 6
        reads(tmp_path, chest_hu()[:3], series="3")
        assert len(read_ct(tmp_path, 3).hu) == 3  # as users of Python write a number

    def two_acquisitions(self, folder, shift_mm, second_slices=28, numbers=(1, 2)):
        for seed, (number, count, shift) in enumerate(
            zip(numbers, (28, second_slices), (0.0, shift_mm), strict=True), 1
        ):
            tags = {"SeriesInstanceUID": "1.2.3", "StudyInstanceUID": "1.2", "AcquisitionNumber": number}
            origin = (-100.0, -120.0, 30.0 + shift)
            write_series(folder / str(seed), chest_hu(count, seed=seed), tags=tags, origin_mm=origin)

    @pytest.mark.parametrize("shift_mm", [0.0, 4.0, 40.5])
    def test_repeated_and_overlapping_acquisitions_of_a_series(self, tmp_path, shift_mm):
        self.two_acquisitions(tmp_path, shift_mm)
        with pytest.raises(SeriesChoiceError, match=r"2 .*acquisitions") as caught:
            read_ct(tmp_path)
        lines = [line.strip() for line in str(caught.value).splitlines()[1:]]
        assert [line.split(":")[0] for line in lines] == ["3.1", "3.2"]
        for n, line in enumerate(lines, 1):
            assert f"acquisition {n}, " in line
            assert np.array_equal(read_ct(tmp_path, f"3.{n}").hu, chest_hu(28, seed=n))

    def test_acquisitions_stand_in_the_order_of_their_numbers(self, tmp_path):
        self.two_acquisitions(tmp_path, 4.0, numbers=(9, 10))
        for n in (1, 2):
            assert np.array_equal(read_ct(tmp_path, f"3.{n}").hu, chest_hu(28, seed=n))

    def test_a_short_second_acquisition_is_not_chosen(self, tmp_path):
        self.two_acquisitions(tmp_path, 10.0, 8)
        scan = read_ct(tmp_path)
        assert np.array_equal(scan.hu, chest_hu(28, seed=1))
        assert "series-chosen" in [warning.code for warning in scan.warnings]

    def test_acquisitions_of_one_stack_stay_one_series(self, tmp_path):
        self.two_acquisitions(tmp_path, 28 * 3.0)
        assert len(read_ct(tmp_path).hu) == 56

    @pytest.mark.parametrize(
        ("keyword", "value"),
        [("ConvolutionKernel", "B36f"), ("FrameOfReferenceUID", "1.4"), ("StudyInstanceUID", "1.5"), ("KVP", 100)],
    )
    def test_series_of_several_stacks_are_not_joined(self, tmp_path, keyword, value):
        self.parted(tmp_path, **{keyword: value})
        with pytest.raises(SeriesChoiceError) as caught:
            read_ct(tmp_path)
        assert "'all'" not in str(caught.value)
        refuses(tmp_path, SeriesChoiceError, "do not make one stack", "all")

    def test_localizers_are_no_candidates(self, tmp_path):
        write_series(tmp_path / "ct", chest_hu())
        scout = {"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"], "SeriesNumber": 1}
        write_series(tmp_path / "scout", chest_hu(2), tags=scout)
        assert read_ct(tmp_path).acquisition.series_number == 3
        shutil.rmtree(tmp_path / "ct")
        refuses(tmp_path, NotVolumeError, "localizer")

    def test_other_modalities(self, tmp_path):
        write_series(tmp_path / "mr", chest_hu(2), tags={"Modality": "MR"})
        write_series(tmp_path / "seg", chest_hu(3), tags={"Modality": "SEG"})
        refuses(tmp_path, NotCTError, "2 of modality MR, 3 of modality SEG")
        write_series(tmp_path / "ct", chest_hu())
        reads(tmp_path, chest_hu())

    def test_description_cannot_write_to_the_terminal(self, tmp_path):
        for name in "ab":
            write_series(tmp_path / name, chest_hu(2), tags={"SeriesDescription": "\x1b[2J../../etc\npasswd"})
        with pytest.raises(SeriesChoiceError) as caught:
            read_ct(tmp_path)
        assert "\x1b" not in str(caught.value)
        assert len(str(caught.value).splitlines()) == 3
