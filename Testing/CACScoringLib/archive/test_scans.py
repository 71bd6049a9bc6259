"""Cohorts of an archive: found by a query or listed in a table, each series fetched by the job that scores it."""

import csv

import pydicom
import pytest
from archive_peers import web_peer

from CACScoringLib.archive.address import Access, ArchiveError, NoSuchSeriesError
from CACScoringLib.archive.connection import connect
from CACScoringLib.archive.scans import fetched, scans_of_archive
from CACScoringLib.archive.series import SeriesFilter
from CACScoringLib.cli import main as cli
from CACScoringLib.cohort import remote
from CACScoringLib.cohort.remote import RemoteError, checked, series_of, shown
from CACScoringLib.cohort.scans import scans_of_table
from CACScoringLib.core.ct import NotCTError
from CACScoringLib.core.uids import digest

PATIENT = "MRN 4711"


def uids(paths):
    header = pydicom.dcmread(paths[0])
    return header.StudyInstanceUID, header.SeriesInstanceUID


def of_series(address, paths):
    study, series = uids(paths)
    return f"{address}/studies/{study}/series/{series}"


def rows(folder, name="cohort.csv"):
    with (folder / name).open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def run(source, output, *options):
    return cli.main(["cohort", *source, "--output", str(output), "--threshold-only", *options])


def test_series_that_match_are_scored_and_named_without_uids(address, store, series, scored, tmp_path, capsys):
    first, second, other = series(PatientID=PATIENT), series(PatientID=PATIENT), series(PatientID="else")
    store.add(*first, *second[:3], *other)
    out, wanted = tmp_path / "out", ("--patient-id", PATIENT)
    assert run(["--archive", address], out, *wanted) == 0
    names = {digest(uids(paths)[1]): paths for paths in (first, second)}
    assert {row["name"]: row["threshold_agatston"] for row in rows(out)} == dict(zip(names, ("4", "3"), strict=True))
    assert len(scored) == 2
    assert not any(place.exists() for place in scored)
    written = "".join(file.read_text(errors="replace") for file in out.rglob("*") if file.is_file())
    printed = capsys.readouterr()
    for secret in (PATIENT, *uids(first), *uids(second)):
        assert secret not in written + printed.out + printed.err + str(list(out.iterdir()))

    assert run(["--archive", address], out, *wanted) == 0
    assert "0 scored, 2 scored before" in capsys.readouterr().out
    assert len(scored) == 2
    store.add(*second[3:])
    assert run(["--archive", address], out, *wanted) == 0
    assert "1 scored, 1 scored before" in capsys.readouterr().out
    assert sorted(row["threshold_agatston"] for row in rows(out)) == ["4", "4"]


@pytest.mark.usefixtures("scored")
def test_with_identify_patients_are_named(address, store, series, tmp_path):
    store.add(*series(PatientID=PATIENT, StudyDate="20250102", SeriesNumber=3))
    assert run(["--archive", address], tmp_path / "out", "--patient-id", PATIENT, "--identify") == 0
    [row] = rows(tmp_path / "out")
    assert (row["name"], row["patient"]) == (f"{PATIENT}-20250102-3", PATIENT)


@pytest.mark.usefixtures("scored")
def test_a_table_lists_series_by_their_addresses(address, store, series, tmp_path):
    given = series()
    store.add(*given)
    missing = f"{address}/studies/1.2/series/1.2.3"
    (tmp_path / "t.csv").write_text(f"ct,patient\n{of_series(address, given)},A\n{missing},B\n")
    assert run([str(tmp_path / "t.csv")], tmp_path / "out") == 0
    done, failed = rows(tmp_path / "out")
    assert (done["name"], done["patient"], done["threshold_agatston"]) == (digest(uids(given)[1]), "A", "4")
    assert "no series that matches" in failed["reason"]
    assert done["ct"].endswith(f"series {done['name']}")


def test_a_series_is_fetched_and_removed(address, store, series, scored):
    given = series()
    store.add(*given)
    with fetched(Access(), of_series(address, given)) as folder:
        assert len(list(folder.iterdir())) == 4
    assert not folder.parent.exists()


def test_a_localizer_is_not_fetched(address, store, series, monkeypatch):
    given = series(ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    store.add(*given)
    monkeypatch.setattr("CACScoringLib.archive.scans.pull", None)
    with pytest.raises(NotCTError, match="localizer"), fetched(Access(), of_series(address, given)):
        pass


def test_what_is_not_there_or_does_not_answer(address, store, no_waiting):
    with pytest.raises(NoSuchSeriesError), fetched(Access(), f"{address}/studies/1.2/series/1.2.3"):
        pass
    assert not no_waiting
    away = "http://127.0.0.1:9/studies/1.2/series/1.2.3"
    with pytest.raises(ArchiveError, match="does not answer"), fetched(Access(), away):
        pass
    assert len(no_waiting) == 4


def test_other_addresses_are_fetched_as_before(tmp_path):
    with pytest.raises(RemoteError, match="not encrypted"), fetched(Access(), "http://example.org/a.nii"):
        pass


def test_scans_know_their_size_and_order(store, series, archive):
    store.add(*series(StudyDate="20250101"), *series(StudyDate="20240101"))
    found = archive.find_series(SeriesFilter())
    scans = scans_of_archive("https://h/dicom-web/", found, identify=False)
    assert [scan.voxels for scan in scans] == [4 * 512 * 512] * 2
    assert scans[0].address == f"https://h/dicom-web/studies/{found[0].study_uid}/series/{found[0].series_uid}"
    assert scans[0].given == scans[0].place == f"https://h/dicom-web series {digest(found[0].series_uid)}"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--archive", "https://h/d"], "everything"),
        (["x", "--archive", "https://h/d", "--days", "2"], "Give one folder or table, or --archive"),
        (["x", "--days", "2"], "in an archive only"),
        ([], "Give one folder"),
        (["--archive", "ftp://h", "--days", "2"], "not the address of an archive"),
    ],
)
def test_what_is_refused(options, words, tmp_path, capsys):
    assert cli.main(["cohort", *options, "--output", str(tmp_path / "out")]) == cli.BAD_USAGE
    assert words in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


class TestAddresses:
    def test_of_series(self):
        for archive in ("https://h:8/dicom-web", "dimse://PACS@h:11112", "dimses://A B@h:1", "http://127.0.0.1:8042/d"):
            found = series_of(f"{archive}/studies/1.2.3/series/1.2.4")
            assert (found.archive, found.study_uid, found.series_uid) == (archive, "1.2.3", "1.2.4")
            assert checked(f"{archive}/studies/1.2.3/series/1.2.4")
        for other in (
            "https://h/studies/1.2/series/1.02",
            "https://h/studies/1.2/series/x.nii",
            "s3://b/studies/1/series/2",
        ):
            assert series_of(other) is None

    @pytest.mark.parametrize(
        ("address", "words"),
        [
            ("dimse://PACS@h:11112", "names no series"),
            ("https://u:p@h/d/studies/1.2/series/1.3", "password"),
            ("https://u@h/d/studies/1.2/series/1.3", "password"),
            ("https://h/d/studies/1.2/series/1.02", "neither one file"),
        ],
    )
    def test_what_is_refused(self, address, words):
        with pytest.raises(RemoteError, match=words) as told:
            checked(address)
        assert "u:p" not in str(told.value)

    def test_uids_are_not_shown(self):
        assert shown("https://u:p@h/d/studies/1.2/series/1.3") == f"https://h/d series {digest('1.3')}"

    def test_without_the_command_nothing_is_fetched(self, tmp_path):
        (tmp_path / "t.csv").write_text("ct\nhttps://h/d/studies/1.2/series/1.3\n")
        [scan], _ = scans_of_table(tmp_path / "t.csv")
        assert scan.fault is None
        with pytest.raises(RemoteError, match="in an archive"), remote.fetched(scan.address):
            pass


def test_connecting_asks_nothing():
    assert connect("https://h/d", Access())


@pytest.mark.long
def test_workers_fetch_what_they_score(store, series, tmp_path):
    """In processes of their own; the scan has no lungs, which is found out when it was read."""
    store.add(*series(PatientID=PATIENT))
    with web_peer(store) as address:
        assert run(["--archive", address], tmp_path / "out", "--patient-id", PATIENT, "--workers", "1") == cli.BAD_INPUT
    [row] = rows(tmp_path / "out")
    assert "lung" in row["reason"]
