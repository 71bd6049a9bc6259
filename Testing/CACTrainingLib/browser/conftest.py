"""Fixtures with a cohort of three scored scans, and servers of its review."""

import shutil

import automatic_patient
import pytest
from review_server import ReviewServer, ThreadedServer, write_cohort

SCANS = ("one", "two", "three")


@pytest.fixture(scope="module")
def result():
    return automatic_patient.scored()


@pytest.fixture(scope="module")
def written(result, tmp_path_factory):
    return write_cohort(tmp_path_factory.mktemp("written") / "cohort", SCANS, result)


@pytest.fixture
def results(written, tmp_path):
    folder = shutil.copytree(written.parent, tmp_path / "cohort")
    table = folder / written.name / "cohort.csv"
    table.write_text(table.read_text(encoding="utf-8").replace(str(written.parent), str(folder)), encoding="utf-8")
    return table.parent


@pytest.fixture
def start(results, tmp_path, monkeypatch, caplog):
    """Function that starts a server of results with options of `cac review`; no request may raise an exception."""
    for name in ("XDG_DATA_HOME", "LOCALAPPDATA"):
        monkeypatch.setenv(name, str(tmp_path / "data"))
    servers = []

    def started(*options, of=results):
        servers.append(ThreadedServer(of, *options))
        return servers[-1]

    yield started
    for server in servers:
        server.stop()
    assert "A request failed" not in caplog.text


@pytest.fixture
def start_process(results, tmp_path):
    """Function that starts a server in a separate process, which must not print a traceback."""
    servers = []

    def started(*options):
        servers.append(ReviewServer.start(results, *options, data=tmp_path / "data"))
        return servers[-1]

    yield started
    for server in servers:
        if server.process.poll() is None:
            assert "Traceback" not in server.stop()
