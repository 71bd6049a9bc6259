"""The tables of a cohort for SQL, and the page that is made from them."""

from pathlib import Path

import duckdb
import pyarrow.parquet as pq
import pytest
from made_cohorts import cohort

from CACScoringLib.cohort import parquet
from CACScoringLib.cohort.parquet import SCHEMA, TABLES, table_files, without_places, written
from CACScoringLib.cohort.report import PAGE, write_cohort_report
from CACScoringLib.cohort.scans import CohortScan
from CACScoringLib.core.output import OutputError
from CACScoringLib.core.progress import ScanState


def test_tables_have_a_row_per_scan_per_artery_and_per_lesion(tmp_path):
    cohort(tmp_path, 40.0, None, 0.0)
    rows = {name: pq.read_table(tmp_path / f"{name}.parquet").to_pylist() for name in TABLES}
    assert [row["state"] for row in rows["scans"]] == ["done", "failed", "done"]
    first = rows["scans"][0]
    assert (first["columns"], first["slices"], first["pixel_mm"], first["noise_hu"]) == (512, 100, 0.7, 21.5)
    assert (first["seconds"], first["wall_seconds"], first["peak_memory_bytes"]) == (3.5, 4.0, 2 * 10**9)
    assert (first["kvp"], first["warnings"], first["risk_class"]) == (120.0, ["noisy"], "11–100")
    assert len(rows["scores"]) == 2 * 2 * 3
    total = rows["scores"][0]
    assert (total["artery"], total["agatston"], total["interval_low"]) == ("total", 40.0, 20.0)
    assert [(row["method"], row["lesion"], row["agatston"]) for row in rows["lesions"]] == [
        ("threshold", 1, 40.0),
        ("decomposition", 1, 60.0),
    ]
    assert all(pq.read_schema(tmp_path / f"{name}.parquet").metadata[b"schema"] == SCHEMA.encode() for name in TABLES)


def test_nothing_identifies_a_person_unless_asked(tmp_path):
    for identify in (False, True):
        folder = tmp_path / str(identify)
        folder.mkdir()
        cohort(folder, 40.0, None, identify=identify)
        everything = str([pq.read_table(folder / f"{name}.parquet").to_pylist() for name in TABLES])
        assert ("Jane" in everything, "Doe" in everything) == (identify, identify)
        assert "women" in everything


def test_what_stands_in_a_reason_about_files_is_left_out():
    scan = CohortScan("Doe/ct", Path("/x/Doe/ct.nii.gz"), "x")
    assert without_places("C:\\a\\Doe.nii is empty; ct.nii.gz too.", scan) == "C:… is empty; … too."


def test_an_empty_cohort_has_tables_and_many_rows_are_written_in_groups(tmp_path, monkeypatch):
    cohort(tmp_path)
    assert pq.read_table(tmp_path / "scores.parquet").num_rows == 0
    monkeypatch.setattr(parquet, "GROUP_ROWS", 3)
    cohort(tmp_path, *map(float, range(10)))
    file = pq.ParquetFile(tmp_path / "scans.parquet")
    assert (file.metadata.num_rows, file.metadata.num_row_groups) == (10, 4)
    assert not list(tmp_path.glob(".*"))


def test_what_is_known_is_written_also_after_an_error(tmp_path):
    def interrupted():
        with written(tmp_path, False):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert pq.read_table(tmp_path / "scans.parquet").num_rows == 0


def test_sql_over_the_tables(tmp_path):
    cohort(tmp_path, 40.0, 0.0, 500.0)
    query = f"SELECT count(*) FROM '{tmp_path}/scores.parquet' WHERE method = 'threshold' AND artery = 'total' "
    assert duckdb.sql(query + "AND agatston > 100").fetchall() == [(1,)]


def test_page_counts_categories_warnings_and_failures(tmp_path):
    cohort(tmp_path, 40.0, None, 0.0, None, 500.0)
    page = write_cohort_report(tmp_path).read_text(encoding="utf-8")
    assert "5 scans: 3 done, 2 failed." in page
    assert "… is empty (n bytes). … cannot be read." in page, "reasons that differ in numbers are one"
    assert "<td>&gt; 400</td><td>1</td><td>33.3 %</td>" in page
    assert "<code>noisy</code></td><td>3</td><td>100.0 %</td>" in page
    assert "Doe_Jane" not in page.replace('href="Doe_Jane_', "")
    assert "Methods that disagree most" in page


def test_page_escapes_what_comes_from_files(tmp_path):
    with written(tmp_path, False) as tables:
        scan = CohortScan("a", Path("a"), "a", group="<b>")
        state = ScanState(0, "a", tmp_path / "a", scan.ct, state="failed", reason="<script>alert(1)<script>")
        tables.add("0", scan, state, None)
    assert "<script>" not in write_cohort_report(tmp_path).read_text(encoding="utf-8")


def test_page_needs_the_tables_of_its_schema(tmp_path, monkeypatch):
    with pytest.raises(OutputError, match=r"scans\.parquet"):
        write_cohort_report(tmp_path)
    monkeypatch.setattr(parquet, "SCHEMA", "cac-cohort-tables/0")
    cohort(tmp_path, 1.0)
    with pytest.raises(OutputError, match="schema"):
        write_cohort_report(tmp_path)
    assert not (tmp_path / PAGE).exists()


class TestParts:
    @pytest.fixture
    def small(self, monkeypatch):
        monkeypatch.setattr(parquet, "PART_SCANS", 2)
        monkeypatch.setattr(parquet, "GROUP_ROWS", 3)

    @pytest.mark.usefixtures("small")
    def test_many_scans_are_parts_that_read_as_one(self, tmp_path):
        cohort(tmp_path, 40.0, None, 0.0, 5.0, 6.0)
        files = {name: [file.name for file in table_files(tmp_path, name)] for name in TABLES}
        assert files == {name: [f"part-{part:05d}.parquet" for part in (1, 2, 3)] for name in TABLES}
        assert [row["scan"] for row in pq.read_table(tmp_path / "scans.parquet").to_pylist()] == [
            f"{i:032x}" for i in range(5)
        ]
        of_part = pq.read_table(tmp_path / "scores.parquet" / "part-00002.parquet").to_pylist()
        assert {row["scan"] for row in of_part} == {f"{i:032x}" for i in (2, 3)}
        query = f"SELECT count(DISTINCT scan) FROM '{tmp_path}/scores.parquet/*.parquet'"
        assert duckdb.sql(query).fetchall() == [(4,)]
        assert "5 scans: 4 done, 1 failed" in write_cohort_report(tmp_path).read_text()

    def test_parts_and_files_take_each_others_place(self, tmp_path, monkeypatch):
        for part_scans, kind in ((2, Path.is_dir), (9, Path.is_file), (2, Path.is_dir), (2, Path.is_dir)):
            monkeypatch.setattr(parquet, "PART_SCANS", part_scans)
            cohort(tmp_path, 1.0, 2.0, 3.0)
            assert all(kind(tmp_path / f"{name}.parquet") for name in TABLES)
            assert pq.read_table(tmp_path / "scans.parquet").num_rows == 3
            assert {path.name for path in tmp_path.iterdir()} == {"cohort.json", *(f"{t}.parquet" for t in TABLES)}

    @pytest.mark.usefixtures("small")
    def test_a_part_of_another_schema_is_refused(self, tmp_path):
        cohort(tmp_path, 1.0, 2.0, 3.0)
        file = tmp_path / "scores.parquet" / "part-00002.parquet"
        pq.write_table(pq.read_table(file).replace_schema_metadata({"schema": "other/1"}), file)
        with pytest.raises(OutputError, match=r"part-00002\.parquet is not of schema"):
            write_cohort_report(tmp_path)
