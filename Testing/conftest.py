"""Shared by all tests: folder of the real CTs, and cores divided among pytest's workers."""

import gc
import os
from pathlib import Path

import pytest

from CACScoringLib.core.version import processor_name

if "PYTEST_XDIST_WORKER" in os.environ:
    # There are as many workers as cores, so that more threads would only wait. Torch and ITK read these variables when
    # they are loaded, here and in child processes.
    for _variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(_variable, "1")
    os.environ.setdefault("ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS", "1")

# Key of pseudonyms, so that tests leave the user's own alone.
os.environ["CAC_PATIENT_KEY"] = str(Path(__file__).parent / "support" / "patient.key")

REAL_CT_DIR = Path(os.environ.get("CAC_REAL_CT_DIR", Path(__file__).parents[2] / "shared" / "data"))


@pytest.fixture(scope="session")
def real_ct():
    """Function that returns the path of a real CT by its name below the data folder, or skips the test."""

    def find(name: str) -> Path:
        path = REAL_CT_DIR / name
        if not path.exists():
            pytest.skip(f"real CT {name} is not in {REAL_CT_DIR} (set CAC_REAL_CT_DIR)")
        return path

    return find


@pytest.fixture
def bundled(tmp_path, monkeypatch):
    """Folder of the models that come with CAC, empty at first as is that of the user's, `installed` beside it."""
    monkeypatch.setattr("CACScoringLib.models.cards.bundled_folder", lambda: tmp_path / "bundled")
    monkeypatch.setenv("CAC_MODEL_DIR", str(tmp_path / "installed"))
    return tmp_path / "bundled"


def pytest_report_header():
    """Show where the tests ran: arithmetic differs between processors."""
    return f"processor: {processor_name()}"


@pytest.hookimpl(wrapper=True)
def pytest_collection():
    """Look for no garbage while the tests are loaded, nor later in what was loaded with them."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


def pytest_collection_modifyitems(items):
    """Run files with long tests first, without splitting a file, so that its fixtures are made once."""
    long = {item.path for item in items if item.get_closest_marker("long")}
    items.sort(key=lambda item: item.path not in long)
