"""The commands for archives, with a peer in this process."""

import pydicom
import pytest

from CACScoringLib.archive.series import digest
from CACScoringLib.cli import main as cli

pytest.importorskip("dicomweb_client")

from archive_peers import Store, web_peer
from dicom_files import chest_hu, write_series
from in_this_process import InThisProcess


@pytest.fixture
def store():
    return Store()


@pytest.fixture
def address(store, monkeypatch):
    monkeypatch.setenv("CAC_ARCHIVE_TOKEN", "right")
    with web_peer(store, "right") as address:
        yield address


@pytest.fixture
def archived_files(store, tmp_path):
    paths = write_series(tmp_path / "given", chest_hu(4))
    store.add(*paths)
    return paths


def test_what_is_pushed_is_listed_and_pulled(address, store, tmp_path, capsys):
    files = write_series(tmp_path / "given", chest_hu(4))
    uid = pydicom.dcmread(files[0]).SeriesInstanceUID
    assert cli.main(["push", address, str(tmp_path / "given")]) == 0
    assert "4 objects sent, 0 in the archive before" in capsys.readouterr().out
    assert cli.main(["push", address, *map(str, files)]) == 0
    assert "0 objects sent, 4 in the archive before" in capsys.readouterr().out
    assert cli.main(["pull", address, "--patient-id", "P1", "--list"]) == 0
    assert capsys.readouterr().out == f"20240131  --:--:--  no. 3       4 images  {uid}  CaSc 3.0\n"
    for fetched in (1, 0):
        assert cli.main(["pull", address, "--series", uid, "--output", str(tmp_path / "out")]) == 0
        assert f"{fetched} series fetched, {1 - fetched} there before" in capsys.readouterr().out
    assert [folder.name for folder in (tmp_path / "out").iterdir()] == [digest(uid)]


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        ([], cli.BAD_USAGE, "everything in the archive"),
        (["--series", "../x"], cli.BAD_USAGE, "not a UID"),
        (["--settings", '{"series": {"days": 0}}'], cli.BAD_USAGE, "Give 1 or more"),
        (["--settings", '{"series": {"patient_id": "P9"}}'], cli.BAD_INPUT, "no series that matches"),
        (["--date", "yesterday"], cli.BAD_USAGE, "YYYYMMDD"),
        (["--patient-id", "P9"], cli.BAD_INPUT, "no series that matches"),
        (
            ["--patient-id", "P1", "--settings", '{"series": {"thickness_mm": [1, 1]}}'],
            cli.BAD_INPUT,
            "no series that matches",
        ),
    ],
)
def test_failed_pull_is_reported(address, archived_files, tmp_path, capsys, options, code, message):
    assert cli.main(["pull", address, "--output", str(tmp_path / "out"), *options]) == code
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.usefixtures("bundled")
def test_a_series_is_watched_for_and_scored(address, archived_files, tmp_path, capsys, monkeypatch):
    """Scored as a cohort scores: this one is too small, and the others would go on."""
    monkeypatch.setattr("CACScoringLib.archive.watch.Workers", InThisProcess)
    command = ["watch", address, "--output", str(tmp_path / "out"), "--once", "--threshold-only"]
    command += ["--settings", '{"watch": {"settle_seconds": 0}}']
    assert cli.main(command) == 0
    output = capsys.readouterr().out
    assert "Series 1: failed." in output
    assert "1 failed" in output
    assert pydicom.dcmread(archived_files[0]).SeriesInstanceUID not in output
    command[-1] = '{"watch": {"settle_seconds": 0}, "scoring": {"rules": {"minimum_pixels": 3}}}'
    assert cli.main(command) == cli.BAD_USAGE
    assert "other settings" in capsys.readouterr().err


@pytest.mark.parametrize("setting", ['"poll_seconds": 0', '"settle_seconds": -1'])
def test_times_are_checked(setting, tmp_path, capsys):
    command = ["watch", "http://127.0.0.1:9", "--output", str(tmp_path / "out")]
    assert cli.main([*command, "--settings", f'{{"watch": {{{setting}}}}}']) == cli.BAD_USAGE
