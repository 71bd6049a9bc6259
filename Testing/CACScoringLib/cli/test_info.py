"""`cac info`: contents of folders, archives and files, and what would be scored."""

import gzip
import json
import shutil

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from dicom_files import chest_hu, write_series
from images import image_of

from CACScoringLib.cli import main as cli
from CACScoringLib.core.errors import CTError
from CACScoringLib.io.reading import read_ct
from CACScoringLib.scans.table import scans_of_table

STUDY = {"StudyInstanceUID": "1.2"}


@pytest.fixture
def info(capsys):
    """Function that runs the command and returns its output."""

    def run(path, *options, code=0):
        assert cli.main(["info", str(path), *options]) == code
        streams = capsys.readouterr()
        return streams.err if code else streams.out

    return run


@pytest.fixture
def study(tmp_path):
    folder = tmp_path / "study"
    write_series(folder / "soft", chest_hu(), tags={**STUDY, "SeriesNumber": 3})
    write_series(folder / "sharp", chest_hu(), tags={**STUDY, "SeriesNumber": 4, "ConvolutionKernel": "B70f"})
    write_series(folder / "scout", chest_hu(2), tags={**STUDY, "ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]})
    write_series(folder / "report", chest_hu(1), tags={**STUDY, "Modality": "SR"})
    for path in write_series(folder / "gap", chest_hu(), tags={**STUDY, "SeriesNumber": 5})[2:4]:
        path.unlink()
    (folder / "broken.dcm").write_bytes(b"no image")
    return folder


def test_several_patients_are_named_with_their_folders_and_acquisitions(info, tmp_path, capsys):
    for number, patient in enumerate("ABCD"):
        tags = {"PatientID": patient, "AcquisitionDate": f"2026010{number + 1}", "AcquisitionTime": "101500.5"}
        write_series(tmp_path / patient, chest_hu(), tags=tags)
    lines = info(tmp_path).splitlines()
    assert "  4 patients" in lines
    assert f"patient C, acquired 20260103 101500, in {tmp_path / 'C'}" in "\n".join(lines[:4])
    assert "4 patients. Score them all with cac cohort" in lines[-1]
    places = [(facts["patient"], facts["folder"]) for facts in json.loads(info(tmp_path, "--json"))["series"]]
    assert sorted(places) == [(patient, str(tmp_path / patient)) for patient in "ABCD"]
    assert cli.main(["score", str(tmp_path), "--threshold-only", "--output", str(tmp_path / "out")]) == cli.BAD_INPUT
    error = capsys.readouterr().err
    assert "cac cohort" in error
    assert str(tmp_path / "D") in error
    assert json.loads(info(tmp_path, "--json"))["patients"] == 4
    assert "patients" not in info(tmp_path / "A")


def test_a_study(info, study):
    lines = info(study).splitlines()
    assert lines[0].startswith("* series 3 (CaSc 3.0, soft kernel B35f, 3 mm thick")
    assert lines[1].startswith("  series 4 (CaSc 3.0, sharp kernel B70f")
    assert lines[2].startswith("  series 5 (CaSc 3.0")
    assert "slices" in lines[2].partition("): ")[2], "the fault of its stack"
    assert lines[3] == "  not considered: 2 localizer, 1 SR, 1 unreadable"
    assert lines[4].startswith("Scored (*): 3. The folder holds 3 CT series")
    facts = json.loads(info(study, "--json"))
    assert (facts["schema"], facts["scored"], facts["localizers"], facts["unread_files"]) == ("cac-info/1", "3", 2, 1)
    assert facts["other_images"] == {"SR": 1}
    soft, sharp, gap = facts["series"]
    assert (soft["kernel"], soft["thickness_mm"], soft["slices"], soft["fault"]) == ("B35f", 3.0, 6, "")
    assert (sharp["label"], gap["spacing_mm"]) == ("4", None)


def test_equal_series_of_two_studies_differ_in_the_list(info, tmp_path):
    for study in "AB":
        write_series(tmp_path / study, chest_hu())
    first, second, outcome = info(tmp_path).splitlines()
    assert first.partition("UID")[2] != second.partition("UID")[2]
    assert "2 studies" in outcome
    assert outcome.endswith(".")


def test_archives_of_a_folder_without_ct_are_named(info, tmp_path):
    series = write_series(tmp_path / "ct", chest_hu())[0].parent
    (tmp_path / "packed").mkdir()
    for part in "12":
        shutil.make_archive(str(tmp_path / "packed" / f"part{part}"), "zip", series)
    assert "archives (part1.zip, part2.zip)" in info(tmp_path / "packed")


def test_a_series_that_cannot_be_scored_is_not_marked(info, tmp_path):
    write_series(tmp_path, chest_hu())[2].unlink()
    assert info(tmp_path).startswith("  series 3")
    assert json.loads(info(tmp_path, "--json"))["scored"] is None


def test_a_table_scores_all_series_and_phases(info, study, tmp_path):
    """Write a table whose rows `cac cohort` reads as the series of `cac score --series`."""

    def phase(dataset, k):
        dataset.NominalPercentageOfCardiacPhase = 40 if k < 6 else 75
        dataset.ImagePositionPatient = [-100, -120, 30 + 3 * (k % 6)]

    write_series(study / "gated", np.concatenate([chest_hu()] * 2), tags={**STUDY, "SeriesNumber": 7}, edit=phase)
    table = tmp_path / "scans.csv"
    info(study, "--table", str(table))
    scans, _ = scans_of_table(table)
    names = [
        "3 CaSc 3.0 B35f 3 mm",
        "4 CaSc 3.0 B70f 3 mm",
        "7.1 CaSc 3.0 B35f 3 mm 40 %",
        "7.2 CaSc 3.0 B35f 3 mm 75 %",
    ]
    assert [scan.name for scan in scans] == names
    scan = read_ct(scans[3].ct, scans[3].series)
    assert [warning.code for warning in scan.warnings if warning.code == "series-chosen"] == []
    assert pydicom.dcmread(scan.dicom_files[0]).NominalPercentageOfCardiacPhase == 75
    assert "exists. Give --table a new file." in info(study, "--table", str(table), code=2)


def test_an_archive_and_series_between_which_a_user_has_to_choose(info, tmp_path):
    for number in (3, 4):
        write_series(tmp_path / "scan" / str(number), chest_hu(), tags={**STUDY, "SeriesNumber": number})
    archive = shutil.make_archive(str(tmp_path / "scan"), "zip", tmp_path / "scan")
    assert "Nothing would be scored. The folder holds 2 CT series. Choose one" in info(archive)


def test_image_files(info, tmp_path):
    image = image_of(chest_hu().astype(np.int16), (0.7, 0.8, 3.0))
    sitk.WriteImage(image, str(tmp_path / "a.nii.gz"))
    line = "* file a.nii.gz (14×12×6 voxels of 0.7 × 0.8 × 3 mm)"
    for path in (tmp_path, tmp_path / "a.nii.gz"):
        assert info(path).splitlines() == [line, "Scored (*): a.nii.gz. It is the only image file."]
    (tmp_path / "torn.nrrd").write_bytes(b"NRRD0004")
    assert info(tmp_path).splitlines()[1] == "  not considered: 1 unreadable"
    sitk.WriteImage(image, str(tmp_path / "b.mha"))
    assert "Nothing would be scored. There are image files" in info(tmp_path)


def test_nothing_there(info, tmp_path):
    assert "does not exist" in info(tmp_path / "absent", code=3)
    assert "holds no readable DICOM file" in info(tmp_path)


def damaged(folder, damage):
    """Return an image file whose header is broken, or does not fit its voxels, in one way."""
    image = image_of(chest_hu().astype(np.int16), (0.7, 0.8, 3.0))
    path = folder / f"{damage}.nii.gz"
    if damage == "offset":
        path = folder / "offset.mha"
    elif damage == "spacing":
        image.SetSpacing((0.7, 0.8, 300.0))
    sitk.WriteImage(image, str(path), damage != "offset")
    if damage == "offset":
        path.write_bytes(path.read_bytes().replace(b"ElementDataFile", b"HeaderSize = 99999999999999\nElementDataFile"))
    elif damage == "bomb":
        path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes()) + bytes(2**26)))
    elif damage == "qform":
        content = bytearray(gzip.decompress(path.read_bytes()))
        content[268:272] = np.float32(500).tobytes()  # qoffset_x, nifti1.h
        path.write_bytes(gzip.compress(bytes(content)))
    return path


@pytest.mark.parametrize("damage", ["offset", "spacing", "bomb", "qform"])
def test_an_image_file_that_score_refuses_is_not_listed_as_scored(info, tmp_path, damage):
    path = damaged(tmp_path, damage)
    with pytest.raises(CTError) as refusal:
        read_ct(path)
    lines = info(tmp_path).splitlines()
    assert lines[0].startswith("  file")
    assert lines[0].endswith(str(refusal.value))
    assert lines[-1] == "Nothing would be scored. Its only image file cannot be scored."
