"""Checks that a CT is read with its HU and warnings, or refused."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from CACScoringLib.core.ct import CTScan
from CACScoringLib.io.reading import read_ct


def codes(scan: CTScan) -> list[str]:
    return [warning.code for warning in scan.warnings]


def reads(path: Path | str, hu: np.ndarray, warned: Sequence[str] = (), series: str | None = None) -> CTScan:
    """Read a CT, assert its HU [k, j, i] and the codes of its warnings, and return it."""
    scan = read_ct(path, series)
    np.testing.assert_array_equal(scan.hu, hu)
    assert codes(scan) == list(warned)
    return scan


def refuses(path: Path | str, error: type[Exception], match: str | None = None, series: str | None = None) -> None:
    """Assert that reading a CT raises an error, with a message that matches."""
    with pytest.raises(error, match=match):
        read_ct(path, series)
