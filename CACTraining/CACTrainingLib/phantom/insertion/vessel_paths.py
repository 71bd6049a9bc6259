"""The user's path of a vessel."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from CACScoringLib.core.ct import CTError
from CACScoringLib.core.tables import TableError, read_cells


class PathError(CTError):
    """The vessel's path cannot be read. The message says what to do."""


def read_path(path: Path) -> np.ndarray:
    """A path [n, 3] in LPS mm from a CSV or a Slicer markups file.

    A `.csv` holds x,y,z in LPS mm per line, with or without a heading. A `.mrk.json` holds a curve or line, whose
    control points are turned to LPS when its coordinateSystem is RAS. Raises PathError.
    """
    try:
        points = _markup_points(path) if path.suffix.lower() == ".json" else _csv_points(path)
    except TableError as error:
        raise PathError(f"{error} A path has x,y,z in LPS mm per line.") from error
    except (OSError, ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
        raise PathError(
            f"{path} is no path ({type(error).__name__}: {error}). Give a CSV with x,y,z in LPS mm per line, or a "
            "curve saved by Slicer as .mrk.json."
        ) from error
    if len(points) < 2 or not np.isfinite(points).all():
        raise PathError(f"{path} holds {len(points)} points; a path needs at least 2, all of them finite numbers.")
    return points


def _csv_points(path: Path) -> np.ndarray:
    rows = [cells for _, cells in read_cells(path)]
    if rows and not _is_number(rows[0][0]):
        heading = [cell.strip().lower() for cell in rows[0]]
        if heading[:3] != ["x", "y", "z"]:
            raise ValueError(f"its heading is {','.join(rows[0])}, not x,y,z")
        rows = rows[1:]
    if bad := next((row for row in rows if len(row) != 3), None):
        raise ValueError(f"the line {','.join(bad)!r} has {len(bad)} numbers, not 3")
    return np.array(rows, float).reshape(-1, 3)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _markup_points(path: Path) -> np.ndarray:
    markup = json.loads(path.read_text(encoding="utf-8-sig"))["markups"][0]
    # Files before Slicer 4.11 held numbers: 0 RAS, 1 LPS.
    system = {"0": "RAS", "1": "LPS"}.get(str(markup["coordinateSystem"]), markup["coordinateSystem"])
    if system not in ("LPS", "RAS"):
        raise ValueError(f"its coordinateSystem is {system!r}, not LPS or RAS")
    if (unit := markup.get("coordinateUnits", "mm")) != "mm":
        raise ValueError(f"its coordinateUnits are {unit!r}, not mm")
    points = markup["controlPoints"]
    placed = [point["position"] for point in points if point.get("positionStatus", "defined") == "defined"]
    return np.array(placed, float).reshape(-1, 3) * ([-1.0, -1.0, 1.0] if system == "RAS" else 1.0)
