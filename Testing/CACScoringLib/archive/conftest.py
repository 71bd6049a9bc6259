"""Fixtures of archives, one per protocol."""

import pytest

from CACScoringLib.archive.address import Access
from CACScoringLib.archive.transfer import connect

pytest.importorskip("pynetdicom")
pytest.importorskip("dicomweb_client")

from archive_peers import Store, dimse_peer, web_peer
from dicom_files import chest_hu, write_series


@pytest.fixture(autouse=True)
def no_token(monkeypatch):
    monkeypatch.delenv("CAC_ARCHIVE_TOKEN", raising=False)


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch):
    """Record waits between attempts instead of waiting."""
    waits = []
    monkeypatch.setattr("CACScoringLib.archive.transfer.sleep", waits.append)
    return waits


@pytest.fixture
def store():
    return Store()


@pytest.fixture(params=["dicomweb", pytest.param("dimse", marks=pytest.mark.long)])
def address(request, store):
    with (web_peer if request.param == "dicomweb" else dimse_peer)(store) as address:
        yield address


@pytest.fixture
def archive(address):
    return connect(address, Access())


@pytest.fixture
def series(tmp_path):
    """Function that writes a series of 4 slices with given tags into a new folder."""
    numbers = iter(range(100))

    def write(**tags):
        return write_series(tmp_path / f"given-{next(numbers)}", chest_hu(4), tags=tags)

    return write
