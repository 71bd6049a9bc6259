"""Which scans a folder or a table gives."""

import os
import unicodedata

import pytest
from dicom_files import chest_hu, write_series

from CACScoringLib.cohort.scans import scans_of_folder, scans_of_table, search
from CACScoringLib.core.ct import CTError
from CACScoringLib.core.tables import TableError
from CACScoringLib.io.reading import find_series


def touch(root, *names):
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")


def found(root, output="out"):
    search_result = search(root, root / output)
    return scans_of_folder(root, search_result, [find_series(folder) for folder in search_result.folders])


def names(root, output="out"):
    return [scan.name for scan in found(root, output)]


class TestFolder:
    def test_image_files_of_every_kind_in_natural_order(self, tmp_path):
        touch(tmp_path, "p10/a.nii.gz", "p2/b.NRRD", "p2/c.mha", "top.nii", "p2/notes.txt", "p2/d.seg.nrrd", ".h/x.nii")
        assert names(tmp_path) == ["p2/b", "p2/c", "p10/a", "top"]

    def test_a_folder_with_ct_is_one_scan(self, tmp_path):
        """Digital patients, and data sets with masks beside the CT: neither mask nor DICOM copy is a scan."""
        touch(tmp_path, "p1/scan_1/ct.nii.gz", "p1/scan_1/heart.nii.gz", "p1/scan_1/sub/heart.nii.gz", "p1/other.nrrd")
        write_series(tmp_path / "p1" / "scan_1" / "dicom", chest_hu())
        assert names(tmp_path) == ["p1/other", "p1/scan_1"]
        assert names(tmp_path / "p1" / "scan_1") == ["scan_1"]

    def test_results_are_no_scans(self, tmp_path):
        touch(tmp_path, "a.nii.gz", "a-cac/scores.json", "a-cac/healthy.nii.gz", "out/x/healthy.nii.gz")
        assert names(tmp_path) == ["a"]

    def test_a_dicom_folder_is_a_scan(self, tmp_path):
        write_series(tmp_path / "patient" / "study", chest_hu())
        touch(tmp_path, "patient/readme.txt")
        scan = found(tmp_path)[0]
        assert (scan.name, scan.ct, scan.fault) == ("patient/study", tmp_path / "patient" / "study", None)
        assert names(tmp_path / "patient" / "study") == ["study"]

    def test_every_series_of_a_folder_is_a_scan_named_by_its_number(self, tmp_path):
        for number in (3, 12):
            write_series(tmp_path / "p", chest_hu(), tags={"SeriesNumber": number}, name=f"{number}-{{}}".format)
        write_series(tmp_path / "p", chest_hu(), tags={"ImageType": ["ORIGINAL", "LOCALIZER"]}, name="scout{}".format)
        write_series(tmp_path / "p", chest_hu(), tags={"Modality": "PT"}, name="pet{}".format)
        scans = found(tmp_path)
        assert [scan.name for scan in scans] == ["p-3", "p-12"]
        assert len({scan.series for scan in scans}) == 2
        assert all(scan.fault is None for scan in scans)

    def test_a_series_in_several_folders_is_a_fault_with_the_choice(self, tmp_path):
        uid = "1.2.3.4"
        for part in ("a", "b"):
            write_series(tmp_path / part, chest_hu(), tags={"SeriesInstanceUID": uid})
        faults = [scan.fault for scan in found(tmp_path)]
        assert len(faults) == 2
        assert all("2 folders (a, b)" in fault and "table" in fault for fault in faults)

    def test_several_series_without_a_uid_are_a_fault(self, tmp_path):
        write_series(tmp_path / "p", chest_hu(), tags={"SeriesInstanceUID": None}, name="x{}".format)
        write_series(tmp_path / "p", chest_hu(), name="y{}".format)
        assert sorted(bool(scan.fault) for scan in found(tmp_path)) == [False, True]

    def test_broken_dicom_and_unread_folders_are_faults(self, tmp_path):
        (tmp_path / "p").mkdir()
        (tmp_path / "p" / "a.dcm").write_bytes(b"\0" * 128 + b"DICM" + b"\xff" * 50)
        assert "1 DICOM files in the folder are broken" in found(tmp_path)[0].fault
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

    @pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="the superuser may read everything")
    def test_closed_folders_are_told(self, tmp_path):
        touch(tmp_path, "a.nii.gz", "closed/b.nii.gz")
        (tmp_path / "closed").chmod(0)
        assert search(tmp_path, tmp_path / "out").warnings[0].code == "folders-unread"
        (tmp_path / "closed").chmod(0o700)

    @pytest.mark.skipif(os.name == "nt", reason="such names do not exist on Windows")
    def test_hostile_names_are_printable(self, tmp_path):
        for name in ("a\nb.nii.gz", "\x1b[31mred.nii.gz", os.fsdecode(b"\xff\xfe.nii.gz"), "²x.nii.gz", "٣.nii.gz"):
            (tmp_path / name).write_bytes(b"x")
        scans = found(tmp_path)
        assert len(scans) == 5
        assert all(scan.name.isprintable() and scan.name for scan in scans)


def table(tmp_path, text, name="t.csv", encoding="utf-8"):
    path = tmp_path / name
    path.write_bytes(text.encode(encoding))
    return path


class TestTable:
    def test_all_columns(self, tmp_path):
        path = table(tmp_path, "ct,name,series,heart,lesions,patient,group\nd/a,Anna,4,h.nii,l.nrrd,7,women\n")
        [scan], warnings = scans_of_table(path)
        assert (scan.name, scan.series, scan.patient, scan.group) == ("Anna", "4", "7", "women")
        assert scan.ct == tmp_path / "d/a"
        assert (scan.heart, scan.lesions) == (tmp_path / "h.nii", tmp_path / "l.nrrd")
        assert scan.masks == ("h.nii", "l.nrrd")
        assert not warnings

    @pytest.mark.parametrize("separator", [",", ";", "\t"])
    @pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
    def test_as_spreadsheets_write_it(self, tmp_path, separator, encoding):
        text = f" CT {separator}Group{separator}age\r\nä/a.nii.gz{separator}{separator}60\r\n\r\nb.nii.gz\r\n"
        scans, warnings = scans_of_table(table(tmp_path, text, encoding=encoding))
        assert [scan.name for scan in scans] == [unicodedata.normalize("NFC", "ä/a"), "b"]
        assert "age" in warnings[0].message

    def test_names_are_paths_below_what_all_share(self, tmp_path):
        text = "ct,series\n/data/x/p1/scan_1/ct.nii.gz,\n/data/x/p2/scan_1/ct.nii.gz,\n/data/x/d,5\n"
        assert [scan.name for scan in scans_of_table(table(tmp_path, text))[0]] == ["p1/scan_1", "p2/scan_1", "d-5"]

    def test_the_uid_of_a_series_is_no_part_of_its_scans_name(self, tmp_path):
        scans = scans_of_table(table(tmp_path, "ct,series\n/data/d,1.2.826.99\n/data/d,5\n/data/d,3.2\n"))[0]
        assert [(scan.name, scan.series) for scan in scans] == [("d", "1.2.826.99"), ("d-5", "5"), ("d-3.2", "3.2")]

    def test_one_ct_goes_by_its_folder(self, tmp_path):
        assert scans_of_table(table(tmp_path, "ct\n/data/p1/ct.nii.gz\n"))[0][0].name == "p1"

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("path\na.nii\n", "no column ct.*path"),
            ("", "is empty"),
            ("ct\n", "no rows"),
            ("ct,name\n,x\n", "no ct in line 2"),
            ("ct\na.nii\nb.nii,1\n", "Line 3 .* 2 cells"),
            ("ct,ct\na,b\n", "two columns"),
            ("ct\na.nii\nb.nii\na.nii\n", "Lines 2 and 4"),
        ],
    )
    def test_what_is_wrong_is_told_with_its_line(self, tmp_path, text, message):
        with pytest.raises(CTError, match=message):
            scans_of_table(table(tmp_path, text))

    def test_the_same_ct_with_another_series_is_another_scan(self, tmp_path):
        assert len(scans_of_table(table(tmp_path, "ct,series\na,1\na,2\n"))[0]) == 2

    @pytest.mark.parametrize("text", ["ct\nä.nii", 'ct\n"a\n'])
    def test_no_text_no_table(self, tmp_path, text):
        with pytest.raises(TableError, match="CSV UTF-8"):
            scans_of_table(table(tmp_path, text, encoding="latin-1"))
