"""Scans behind addresses: fetched, removed, and never named by a server; a table of the Imaging Data Commons."""

import functools
import http.server
import threading
from pathlib import Path

import fsspec
import pytest

from CACScoringLib.cohort import remote
from CACScoringLib.cohort.remote import RemoteError, checked, fetched, is_address, shown
from CACScoringLib.cohort.scans import CohortScan, scans_of_table
from CACScoringLib.cohort.scoring import ScanJob, files_key, score_job
from CACScoringLib.cohort.table import columns, line
from CACScoringLib.core.progress import ScanState
from CACScoringLib.core.tables import TableError
from CACScoringLib.run import LoadedModels, RunSettings

SERIES = "s3://idc-open-data/0a1b/*"


@pytest.fixture
def server(tmp_path):
    """A server of files on loopback; gives its address and the folder."""
    pytest.importorskip("aiohttp")
    folder = tmp_path / "served"
    folder.mkdir()

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    served = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=folder))
    thread = threading.Thread(target=served.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{served.server_port}", folder
    served.shutdown()
    served.server_close()


@pytest.fixture
def bucket(monkeypatch):
    """A bucket whose objects have bad names; it stands for that of s3fs."""
    names = ["b.dcm", "../../outside.dcm", "sub/a.dcm"]
    stored = {f"/idc-open-data/0a1b/{name}": name.encode() for name in names}

    class Bucket:
        def invalidate_cache(self):
            pass

        def find(self, root, detail):
            assert (root, detail) == ("/idc-open-data/0a1b", True)
            return {name: {"size": len(content)} for name, content in stored.items()}

        def get(self, sources, targets):
            for source, target in zip(sources, targets, strict=True):
                with open(target, "wb") as stream:  # noqa: PTH123
                    stream.write(stored[source])

    asked = []
    monkeypatch.setattr(
        fsspec.core, "url_to_fs", lambda address, **how: asked.append((address, how)) or (Bucket(), address[4:])
    )
    return asked, stored


def test_a_file_is_fetched_and_removed(server):
    address, folder = server
    (folder / "a.nii.gz").write_bytes(b"12345")
    with fetched(f"{address}/a.nii.gz?signature=secret") as place:
        assert place.read_bytes() == b"12345"
        assert place.name == "scan.nii.gz"
    assert not place.parent.exists()


def test_what_is_not_there_is_told_without_signature(server, monkeypatch):
    address, _ = server
    with pytest.raises(RemoteError, match="nothing at") as told, fetched(f"{address}/b.nii?signature=secret"):
        pass
    assert "secret" not in str(told.value)
    monkeypatch.setattr(remote, "PAUSE_SECONDS", 0.0)
    with pytest.raises(RemoteError, match="could not be fetched"), fetched("http://127.0.0.1:9/b.nii"):
        pass


def test_a_series_is_fetched_under_names_of_our_own(bucket):
    asked, stored = bucket
    with fetched(SERIES) as place:
        assert sorted(file.name for file in place.iterdir()) == ["000000.dcm", "000001.dcm", "000002.dcm"]
        assert {file.read_bytes() for file in place.iterdir()} == set(stored.values())
    assert asked == [("s3://idc-open-data/0a1b/", {"anon": True})], "the public bucket needs no account"
    assert not place.exists()


def test_a_disk_that_is_too_small_is_told_before(bucket, monkeypatch):
    monkeypatch.setattr(remote.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 3}))
    with pytest.raises(RemoteError, match="TMPDIR"), fetched(SERIES):
        pass


@pytest.mark.usefixtures("bucket")
def test_a_part_of_a_file_is_not_taken_for_it(monkeypatch):
    monkeypatch.setattr(remote, "PAUSE_SECONDS", 0.0)
    monkeypatch.setattr(remote, "_get", functools.partial(cut, remote._get))
    with pytest.raises(RemoteError, match="OSError"), fetched(SERIES):
        pass


def cut(get, files, sizes, targets, address):
    get(files, {name: size + 1 for name, size in sizes.items()}, targets, address)


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("http://example.org/a.nii", "https"),
        ("https://me:secret@example.org/a.nii", "password"),
        ("https://example.org/", "names no file"),
        ("https://[x/a.nii", "names no file"),
        ("https://example.org/series/", "one file"),
        ("s3://bucket", "names no file"),
    ],
)
def test_addresses_that_are_refused(address, words):
    with pytest.raises(RemoteError, match=words) as told:
        checked(address)
    assert "secret" not in str(told.value)


def test_what_an_address_is():
    assert all(map(is_address, (SERIES, "gs://a/b", "https://a/b.nii")))
    assert not any(map(is_address, ("a.nii", "C://x", "file:///etc/passwd", "memory://a", "/data/s3://x")))
    assert shown("https://u:p@h/a.nii?x=1") == "https://h/a.nii"


class TestTables:
    def test_a_query_of_idc_index(self, tmp_path):
        text = (
            "PatientID,StudyInstanceUID,SeriesInstanceUID,collection_id,StudyDate,SeriesNumber,series_aws_url\n"
            "100012,1.2,1.2.3,nlst,1999-01-02,2,s3://idc-open-data/0a1b/*\n"
            "100012,1.2,1.2.4,nlst,1999-01-02,3,s3://idc-open-data/0a1c/*\n"
        )
        (tmp_path / "t.csv").write_text(text)
        scans, warnings = scans_of_table(tmp_path / "t.csv")
        assert [(s.name, s.patient, s.group, s.address) for s in scans] == [
            ("100012-1999-01-02-2", "100012", "nlst", "s3://idc-open-data/0a1b/*"),
            ("100012-1999-01-02-3", "100012", "nlst", "s3://idc-open-data/0a1c/*"),
        ]
        assert not warnings
        assert not any(scan.fault for scan in scans)

    def test_the_same_as_parquet(self, tmp_path):
        pa = pytest.importorskip("pyarrow")
        import pyarrow.parquet as pq

        rows = {"PatientID": ["1", "2"], "SeriesNumber": [2, None], "series_aws_url": ["s3://b/1/*", "s3://b/2/*"]}
        pq.write_table(pa.table(rows), tmp_path / "t.parquet")
        scans, _ = scans_of_table(tmp_path / "t.parquet")
        assert [scan.name for scan in scans] == ["1-2", "2"]
        (tmp_path / "x.parquet").write_bytes(b"no table")
        with pytest.raises(TableError, match="Write it again"):
            scans_of_table(tmp_path / "x.parquet")

    def test_addresses_beside_paths_and_one_that_is_refused(self, tmp_path):
        (tmp_path / "t.csv").write_text(
            "ct,name,patient\na/b.nii,,\nhttps://h/x/c.nii.gz?sig=secret,,P\nhttp://h/d.nii,d,\n"
        )
        path, one, refused = scans_of_table(tmp_path / "t.csv")[0]
        assert (path.address, path.ct) == (None, tmp_path / "a" / "b.nii")
        assert (one.name, one.place, one.given, one.patient) == ("c", *2 * ("https://h/x/c.nii.gz",), "P")
        assert "encrypted" in refused.fault
        state = ScanState(0, "c", tmp_path / "c", one.ct)
        assert "secret" not in line(one, state, {}, columns(["threshold"], identify=True))

    def test_two_lines_that_differ_in_their_signature_only_are_one_scan(self, tmp_path):
        (tmp_path / "t.csv").write_text("ct\nhttps://h/c.nii?a\nhttps://h/c.nii?b\n")
        with pytest.raises(TableError, match="same scan"):
            scans_of_table(tmp_path / "t.csv")


def test_a_scan_is_fetched_by_the_job_and_its_fault_is_its_reason(server, tmp_path):
    address, folder = server
    (folder / "a.nii").write_bytes(b"no image")
    scan = CohortScan("a", tmp_path / "a", "a", address=f"{address}/a.nii?signature=secret")
    outcome = score_job(RunSettings(), LoadedModels(), ScanJob(scan, tmp_path / "out", "key"))
    assert outcome.reason is not None
    assert "secret" not in outcome.reason
    missing = CohortScan("b", tmp_path / "b", "b", address=f"{address}/b.nii")
    assert "nothing at" in score_job(RunSettings(), LoadedModels(), ScanJob(missing, tmp_path / "o", "key")).reason


def test_what_lies_behind_an_address_is_not_asked_for_again():
    one, same, other = (
        CohortScan("a", Path("a.nii"), "a", address=f"https://h/{name}")
        for name in ("a.nii", "a.nii?signature", "b.nii")
    )
    assert files_key(one) == files_key(same) != files_key(other)
