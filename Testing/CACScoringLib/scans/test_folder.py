"""Tests of searching a folder for scans."""

import os

import pytest
from dicom_files import chest_hu, write_series

from CACScoringLib.io.series import find_series
from CACScoringLib.scans.folder import scans_of_folder, search


def touch(root, *names):
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")


def find_scans(root, output="out"):
    search_result = search(root, root / output)
    return scans_of_folder(root, search_result, [find_series(folder) for folder in search_result.folders])


def names(root, output="out"):
    return [scan.name for scan in find_scans(root, output)]


class TestFolder:
    def test_image_files_of_every_kind_in_natural_order(self, tmp_path):
        touch(tmp_path, "p10/a.nii.gz", "p2/b.NRRD", "p2/c.mha", "top.nii", "p2/notes.txt", "p2/d.seg.nrrd", ".h/x.nii")
        assert names(tmp_path) == ["p2/b", "p2/c", "p10/a", "top"]

    def test_a_folder_with_ct_is_one_scan(self, tmp_path):
        """Ignore masks and DICOM copies beside a CT, as in digital patients."""
        touch(tmp_path, "p1/scan_1/ct.nii.gz", "p1/scan_1/heart.nii.gz", "p1/scan_1/sub/heart.nii.gz", "p1/other.nrrd")
        write_series(tmp_path / "p1" / "scan_1" / "dicom", chest_hu())
        assert names(tmp_path) == ["p1/other", "p1/scan_1"]
        assert names(tmp_path / "p1" / "scan_1") == ["scan_1"]

    def test_a_dicom_folder_is_a_scan(self, tmp_path):
        write_series(tmp_path / "patient" / "study", chest_hu())
        touch(tmp_path, "patient/readme.txt")
        scan = find_scans(tmp_path)[0]
        assert (scan.name, scan.ct, scan.fault) == ("patient/study", tmp_path / "patient" / "study", None)
        assert names(tmp_path / "patient" / "study") == ["study"]

    def test_every_series_of_a_folder_is_a_scan_named_by_its_number(self, tmp_path):
        for number in (3, 12):
            write_series(tmp_path / "p", chest_hu(), tags={"SeriesNumber": number}, name=f"{number}-{{}}".format)
        write_series(tmp_path / "p", chest_hu(), tags={"ImageType": ["ORIGINAL", "LOCALIZER"]}, name="scout{}".format)
        write_series(tmp_path / "p", chest_hu(), tags={"Modality": "PT"}, name="pet{}".format)
        scans = find_scans(tmp_path)
        assert [scan.name for scan in scans] == ["p-3", "p-12"]
        assert len({scan.series for scan in scans}) == 2
        assert all(scan.fault is None for scan in scans)

    def test_a_series_in_several_folders_is_a_fault_with_the_choice(self, tmp_path):
        uid = "1.2.3.4"
        for part in ("a", "b"):
            write_series(tmp_path / part, chest_hu(), tags={"SeriesInstanceUID": uid})
        faults = [scan.fault for scan in find_scans(tmp_path)]
        assert len(faults) == 2
        assert all("2 folders (a, b)" in fault and "table" in fault for fault in faults)

    def test_several_series_without_a_uid_are_a_fault(self, tmp_path):
        write_series(tmp_path / "p", chest_hu(), tags={"SeriesInstanceUID": None}, name="x{}".format)
        write_series(tmp_path / "p", chest_hu(), name="y{}".format)
        assert sorted(bool(scan.fault) for scan in find_scans(tmp_path)) == [False, True]

    def test_broken_dicom_and_unread_folders_are_faults(self, tmp_path):
        (tmp_path / "p").mkdir()
        (tmp_path / "p" / "a.dcm").write_bytes(b"\0" * 128 + b"DICM" + b"\xff" * 50)
        assert "1 DICOM files in the folder are broken" in find_scans(tmp_path)[0].fault
        search_result = search(tmp_path, tmp_path / "out")
        assert (
            "could not be read"
            in scans_of_folder(tmp_path, search_result, [None] * len(search_result.folders))[-1].fault
        )

    @pytest.mark.skipif(os.name == "nt", reason="links need rights on Windows")
    def test_linked_folders_are_followed_once(self, tmp_path):
        touch(tmp_path, "data/a.nii.gz")
        (tmp_path / "root").mkdir()
        (tmp_path / "root" / "link").symlink_to(tmp_path / "data")
        (tmp_path / "data" / "loop").symlink_to(tmp_path / "data")
        assert names(tmp_path / "root") == ["link/a"]

    @pytest.mark.skipif(os.name == "nt", reason="such names do not exist on Windows")
    def test_hostile_names_are_printable(self, tmp_path):
        for name in ("a\nb.nii.gz", "\x1b[31mred.nii.gz", os.fsdecode(b"\xff\xfe.nii.gz"), "²x.nii.gz", "٣.nii.gz"):
            (tmp_path / name).write_bytes(b"x")
        scans = find_scans(tmp_path)
        assert len(scans) == 5
        assert all(scan.name.isprintable() and scan.name for scan in scans)
