"""Archives to test with, one per protocol."""

import pytest

from CACScoringLib.archive.address import Access, connect

pytest.importorskip("pynetdicom")
pytest.importorskip("dicomweb_client")

from archive_peers import Store, dimse_peer, web_peer
from dicom_files import chest_hu, write_series


@pytest.fixture(autouse=True)
def no_token(monkeypatch):
    monkeypatch.delenv("CAC_ARCHIVE_TOKEN", raising=False)


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch):
    """Waits between attempts are counted and not waited for."""
    waits = []
    monkeypatch.setattr("CACScoringLib.archive.transfer.sleep", waits.append)
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
