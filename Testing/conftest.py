"""What all tests share: where the real CTs are."""

import os
from pathlib import Path

import pytest

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
    """The long tests first."""
    items.sort(key=lambda item: item.get_closest_marker("long") is None)
