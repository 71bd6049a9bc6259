"""Reader of the data files in Resources/Phantom: shapes of vessels and bones, devices, protocols.

A file states its units, sources and doubts in `unit` and `note`. Shapes lie where their points' anchors are.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

FOLDER = Path(__file__).resolve().parents[1] / "Resources" / "Phantom"

Point = tuple[str, float, float, float]
"""Name of an anchor, and the point's place from it in mm."""


def read_shapes(name: str) -> dict[str, Any]:
    """Read a data file by its name without ending."""
    return json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))


def place_points(points: list[Point], anchors: Mapping[str, np.ndarray]) -> np.ndarray:
    """Return the places [n, 3] of points from their anchors' places."""
    return np.array([anchors[anchor] + offset for anchor, *offset in points], float)
