"""Radiographs projected from CTs, as files that training reads: what is in each, and a case read back.

A folder holds `radiographs.csv`, one row a case, and `cases/NAME.npz`. Every view is a picture of VIEW_PIXELS rows and
columns of PIXEL_MM on the detector, row 0 at the head, as `CACScoringLib.projection` gives it.
"""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from CACScoringLib.ct import CTError
from CACScoringLib.projection_geometry import Geometry

VIEWS = ("PA", "lateral")
VIEW_PIXELS = 432
PIXEL_MM = 1.0
TABLE, CASES = "radiographs.csv", "cases"

_STEPS = {"body": 64.0, "calcium": 1024.0, "heart": 64.0}
"""Steps per mm in which paths are stored, in 16 bits."""


@dataclass(frozen=True)
class View:
    """One view of a case, float32 [row, column].

    body: length of water that attenuates as all that the ray meets does, calcium included, mm. calcium: of the
    coronary calcium alone, in the same unit (0 where it is not known). heart: length within the heart, mm.
    """

    body: np.ndarray
    calcium: np.ndarray
    heart: np.ndarray

    @property
    def heart_centre(self) -> tuple[float, float] | None:
        """Middle of the heart's shadow, (row, column) in pixels; None where the heart is not known."""
        rows, columns = np.nonzero(self.heart > 0)
        if not rows.size:
            return None
        return (rows.min() + rows.max()) / 2, (columns.min() + columns.max()) / 2


@dataclass(frozen=True)
class HeartBox:
    """The CT about the heart, kept so that its slices can be sharpened later.

    hu: int16 [k, j, i]. spacing_mm, origin_mm: of its axes, which run along x, y, z (LPS), and of its first voxel.
    geometries: of each view, by name.
    """

    hu: np.ndarray
    spacing_mm: tuple[float, float, float]
    origin_mm: tuple[float, float, float]
    geometries: dict[str, Geometry]


def view_geometry(angle_degrees: float, tilt_degrees: float, isocentre_mm: tuple[float, float, float]) -> Geometry:
    """The chest stand that all views are made with. isocentre_mm: LPS."""
    return Geometry(
        angle_degrees=angle_degrees,
        tilt_degrees=tilt_degrees,
        detector_mm=(VIEW_PIXELS * PIXEL_MM,) * 2,
        pixels=(VIEW_PIXELS,) * 2,
        isocentre_mm=isocentre_mm,
    )


def write_case(path: Path, views: dict[str, View], box: HeartBox | None = None) -> None:
    """Write a case under a temporary name, then rename it."""
    arrays: dict[str, np.ndarray] = {}
    for name, view in views.items():
        for part, steps in _STEPS.items():
            values = np.rint(getattr(view, part) * steps)
            arrays[f"{name}_{part}"] = np.clip(values, 0, 65535).astype(np.uint16)
    if box is not None:
        arrays["box_hu"] = box.hu
        arrays["box_place"] = np.array([box.spacing_mm, box.origin_mm])
        for name, geometry in box.geometries.items():
            arrays[f"{name}_pose"] = np.array([geometry.angle_degrees, geometry.tilt_degrees, *geometry.isocentre_mm])
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(prefix=f".{path.stem}-", suffix=".npz", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            np.savez_compressed(file, **arrays)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def read_case(path: Path) -> dict[str, View]:
    """The views of a case by name. Raises CTError when it is no such file."""
    try:
        with np.load(path, allow_pickle=False) as file:
            return {
                name: View(*(file[f"{name}_{part}"].astype(np.float32) / np.float32(s) for part, s in _STEPS.items()))
                for name in VIEWS
                if f"{name}_body" in file
            }
    except (OSError, ValueError, KeyError, EOFError) as error:
        raise CTError(f"The radiographs in {path} cannot be read ({error}). Make them again.") from error


def read_box(path: Path) -> HeartBox | None:
    """The CT about the heart, where it was kept."""
    try:
        with np.load(path, allow_pickle=False) as file:
            if "box_hu" not in file:
                return None
            spacing, origin = file["box_place"]
            poses = {name: tuple(map(float, file[f"{name}_pose"])) for name in VIEWS if f"{name}_pose" in file}
            stands = {name: view_geometry(angle, tilt, tuple(at)) for name, (angle, tilt, *at) in poses.items()}
            return HeartBox(file["box_hu"], tuple(map(float, spacing)), tuple(map(float, origin)), stands)
    except (OSError, ValueError, KeyError, EOFError) as error:
        raise CTError(f"The radiographs in {path} cannot be read ({error}). Make them again.") from error
