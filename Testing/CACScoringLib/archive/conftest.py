"""Archives to test with, one per protocol."""

import json

import pytest

from CACScoringLib.archive.address import Access
from CACScoringLib.archive.connection import connect

pytest.importorskip("pynetdicom")
pytest.importorskip("dicomweb_client")

from archive_peers import Store, dimse_peer, web_peer
from dicom_files import chest_hu, write_series
from in_this_process import InThisProcess
from whole_records import whole_record

from CACScoringLib.cohort import cohort, remote, scoring
from CACScoringLib.io.reading import read_ct


@pytest.fixture(autouse=True)
def no_token(monkeypatch):
    monkeypatch.delenv("CAC_ARCHIVE_TOKEN", raising=False)


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch):
    """Waits between attempts are counted and not waited for."""
    waits = []
    monkeypatch.setattr("CACScoringLib.archive.retry.sleep", waits.append)
    return waits


@pytest.fixture
def store():
    return Store()


@pytest.fixture(params=["dicomweb", "dimse"])
def address(request, store):
    with (web_peer if request.param == "dicomweb" else dimse_peer)(store) as address:
        yield address


@pytest.fixture
def archive(address):
    return connect(address, Access())


@pytest.fixture
def series(tmp_path):
    """Writes a series of 4 slices into a folder of its own; its tags are changed by keyword."""
    count = iter(range(100))

    def write(**tags):
        return write_series(tmp_path / f"given-{next(count)}", chest_hu(4), tags=tags)

    return write


@pytest.fixture
def scored(monkeypatch, tmp_path):
    """Scores a scan as the number of its slices, in this process; gives the folders that were read."""
    places = []

    def run_scan(given, settings, models, output):
        places.append(given.ct)
        content = whole_record()
        content["methods"]["threshold"]["total"]["agatston"] = read_ct(given.ct).image.GetSize()[2]
        with output.being_written() as folder:
            (folder / "scores.json").write_text(json.dumps(content))

    monkeypatch.setattr(cohort, "Workers", InThisProcess)
    monkeypatch.setattr(scoring, "run_scan", run_scan)
    monkeypatch.setattr(remote, "own_folder", lambda: str(tmp_path))
    return places
