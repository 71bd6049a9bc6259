"""What all tests share: where the real CTs are, and cores divided among pytest's workers."""

import os
from pathlib import Path

import pytest

if "PYTEST_XDIST_WORKER" in os.environ:
    # There are as many workers as cores; threads beyond that wait for one another. Read when torch and ITK are loaded,
    # here and in the processes that tests start.
    for _variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(_variable, "1")
    os.environ.setdefault("ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS", "1")

REAL_CT_DIR = Path(os.environ.get("CAC_REAL_CT_DIR", Path(__file__).parents[2] / "shared" / "data"))


@pytest.fixture(scope="session")
def real_ct():
    """Path of a real CT by its name below the data folder; skips the test where it is absent."""

    def find(name: str) -> Path:
        path = REAL_CT_DIR / name
        if not path.exists():
            pytest.skip(f"real CT {name} is not in {REAL_CT_DIR} (set CAC_REAL_CT_DIR)")
        return path

    return find


def pytest_collection_modifyitems(items):
    """The files with long tests first, each whole, so that what its tests share is made once."""
    long = {item.path for item in items if item.get_closest_marker("long")}
    items.sort(key=lambda item: item.path not in long)
