"""Tests of reading scans from a table."""

from dataclasses import replace

import pytest

from CACScoringLib.core.errors import CTError
from CACScoringLib.scans.table import scans_of_table, write_scans


def table(tmp_path, text, name="t.csv", encoding="utf-8"):
    path = tmp_path / name
    path.write_bytes(text.encode(encoding))
    return path


class TestTable:
    def test_all_columns(self, tmp_path):
        columns = "ct,name,series,heart,lesions,pericardium,patient,group"
        path = table(tmp_path, f"{columns}\nd/a,Anna,4,h.nii,l.nrrd,p.nii,7,women\n")
        [scan], warnings = scans_of_table(path)
        assert (scan.name, scan.series, scan.patient, scan.group) == ("Anna", "4", "7", "women")
        assert scan.ct == tmp_path / "d/a"
        assert (scan.heart, scan.lesions) == (tmp_path / "h.nii", tmp_path / "l.nrrd")
        assert scan.pericardium == tmp_path / "p.nii"
        assert not warnings

    def test_names_are_paths_below_the_common_folder(self, tmp_path):
        text = "ct,series\n/data/x/p1/scan_1/ct.nii.gz,\n/data/x/p2/scan_1/ct.nii.gz,\n/data/x/d,5\n"
        assert [scan.name for scan in scans_of_table(table(tmp_path, text))[0]] == ["p1/scan_1", "p2/scan_1", "d-5"]

    def test_the_uid_of_a_series_is_no_part_of_its_scans_name(self, tmp_path):
        scans = scans_of_table(table(tmp_path, "ct,series\n/data/d,1.2.826.99\n/data/d,5\n/data/d,3.2\n"))[0]
        assert [(scan.name, scan.series) for scan in scans] == [("d", "1.2.826.99"), ("d-5", "5"), ("d-3.2", "3.2")]

    def test_a_written_table_has_no_masks(self, tmp_path):
        [scan], _ = scans_of_table(table(tmp_path, "ct,name,series,lesions,patient,group\nx,n,4,l.nrrd,p,g\n"))
        write_scans(tmp_path / "scans.csv", [scan])
        [written], _ = scans_of_table(tmp_path / "scans.csv")
        assert written == replace(scan, lesions=None, key=f"{tmp_path.resolve() / 'x'}#4")

    def test_one_ct_goes_by_its_folder(self, tmp_path):
        assert scans_of_table(table(tmp_path, "ct\n/data/p1/ct.nii.gz\n"))[0][0].name == "p1"

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("path\na.nii\n", "no column ct.*path"),
            ("ct\n", "no rows"),
            ("ct,name\n,x\n", "no ct in line 2"),
            ("ct\na.nii\nb.nii,1\n", "Line 3 .* 2 cells"),
            ("ct\na.nii\nb.nii\na.nii\n", "Lines 2 and 4"),
        ],
    )
    def test_errors_name_the_line(self, tmp_path, text, message):
        with pytest.raises(CTError, match=message):
            scans_of_table(table(tmp_path, text))
