"""A cohort of three scored scans, and servers of its review."""

import automatic_score
import pytest
from review_server import ReviewServer, write_cohort

SCANS = ("one", "two", "three")


@pytest.fixture(scope="module")
def result():
    return automatic_score.scored()


@pytest.fixture
def results(result, tmp_path):
    return write_cohort(tmp_path / "cohort", SCANS, result)


@pytest.fixture
def start(results, tmp_path):
    """Starts `cac review` with these options; what it wrote to standard error has no traceback."""
    servers = []

    def started(*options, of=results):
        servers.append(ReviewServer.start(of, *options, data=tmp_path / "data"))
        return servers[-1]

    yield started
    for server in servers:
        if server.process.poll() is None:
            assert "Traceback" not in server.stop()
