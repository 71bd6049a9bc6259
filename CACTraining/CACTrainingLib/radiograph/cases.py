"""Radiographs projected from CTs, as files that training reads: what is in each, and a case read back.

A folder holds `radiographs.csv`, one row a case, and `cases/NAME.npz`. Every view is a picture on the
grid of `CACScoringLib.radiograph.view`, row 0 at the head, as `CACScoringLib.drr.projection` gives it.
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from CACScoringLib.core.ct import CTError
from CACScoringLib.core.files import whole
from CACScoringLib.drr.geometry import Geometry
from CACScoringLib.radiograph.view import STANDARD_MM, STANDARD_PIXELS

VIEWS = ("PA", "lateral")
TABLE, CASES = "radiographs.csv", "cases"

_STEPS = {"body": 64.0, "calcium": 1024.0, "heart": 64.0}
"""Steps per mm in which paths are stored, in 16 bits; calcium with a sign."""

SUPER_RESOLUTIONS = ("none", "interpolated", "learned")
"""What the slices about the heart were made into before they were projected: see `thin_slice_views`."""

_DAMAGED = (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error)


@dataclass(frozen=True)
class View:
    """One view of a case, float32 [row, column].

    body: length of water that attenuates as all that the ray meets does, calcium included, mm. calcium: of the
    coronary calcium alone, in the same unit (0 where it is not known); where it moved a scan undershoots beside it, and
    this is negative. heart: length within the heart, mm.
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
        detector_mm=(STANDARD_PIXELS * STANDARD_MM,) * 2,
        pixels=(STANDARD_PIXELS,) * 2,
        isocentre_mm=isocentre_mm,
    )


def write_case(path: Path, views: dict[str, View], box: HeartBox | None = None) -> None:
    """Write a case under a temporary name, then rename it."""
    arrays: dict[str, np.ndarray] = {}
    for name, view in views.items():
        for part, steps in _STEPS.items():
            kind = np.int16 if part == "calcium" else np.uint16
            arrays[f"{name}_{part}"] = _stored(getattr(view, part), steps, kind)
    if box is not None:
        arrays["box_hu"] = box.hu
        arrays["box_place"] = np.array([box.spacing_mm, box.origin_mm])
        for name, geometry in box.geometries.items():
            arrays[f"{name}_pose"] = np.array([geometry.angle_degrees, geometry.tilt_degrees, *geometry.isocentre_mm])
    _write(path, arrays)


def read_case(path: Path, super_resolution: str = "none") -> dict[str, View]:
    """The views of a case by name. super_resolution: one of SHARPENINGS, of the bodies.

    Raises CTError when it is no such file, or its slices were not sharpened.
    """
    if super_resolution not in SUPER_RESOLUTIONS:
        raise CTError(
            f"There is no super-resolution {super_resolution!r}; choose one of {', '.join(SUPER_RESOLUTIONS)}."
        )
    found = {}
    with _opened(path) as file:
        for name in VIEWS:
            if f"{name}_body" not in file:
                continue
            names = {part: f"{name}_{part}" for part in _STEPS}
            if super_resolution != "none":
                names["body"] = f"{name}_body_{super_resolution}"
                if names["body"] not in file:
                    message = (
                        f"The slices of {path} were projected without super-resolution ({super_resolution} was "
                        "asked for). Run cac radiographs super-resolution on its folder; its cases need the box "
                        "around the heart."
                    )
                    raise CTError(message)
            found[name] = View(*(file[names[part]].astype(np.float32) / np.float32(s) for part, s in _STEPS.items()))
    return found


def has_thin_slices(path: Path) -> bool:
    """Whether a case has its bodies in all of SHARPENINGS."""
    with _opened(path) as file:
        wanted = [
            f"{name}_body_{method}" for name in VIEWS if f"{name}_body" in file for method in SUPER_RESOLUTIONS[1:]
        ]
        return all(name in file for name in wanted)


def add_thin_slices(path: Path, bodies: dict[tuple[str, str], np.ndarray]) -> None:
    """Write a case anew with further bodies, mm, by view and way of sharpening."""
    with _opened(path) as file:
        arrays = dict(file)
    for (view, method), body in bodies.items():
        arrays[f"{view}_body_{method}"] = _stored(body, _STEPS["body"])
    _write(path, arrays)


def read_box(path: Path) -> HeartBox | None:
    """The CT about the heart, where it was kept."""
    with _opened(path) as file:
        if "box_hu" not in file:
            return None
        spacing, origin = file["box_place"]
        poses = {name: tuple(map(float, file[f"{name}_pose"])) for name in VIEWS if f"{name}_pose" in file}
        stands = {name: view_geometry(angle, tilt, tuple(at)) for name, (angle, tilt, *at) in poses.items()}
        return HeartBox(file["box_hu"], tuple(map(float, spacing)), tuple(map(float, origin)), stands)


@contextmanager
def _opened(path: Path) -> Iterator[np.lib.npyio.NpzFile]:
    """A case's arrays. Raises CTError when it is no such file, also while they are read."""
    try:
        file = np.load(path, allow_pickle=False)
        if not isinstance(file, np.lib.npyio.NpzFile):
            raise ValueError("a single array")
        with file:
            yield file
    except _DAMAGED as error:
        raise CTError(f"The radiographs in {path} cannot be read ({error}). Make them again.") from error


def _stored(path_mm: np.ndarray, steps_per_mm: float, kind: type = np.uint16) -> np.ndarray:
    room = np.iinfo(kind)
    return np.clip(np.rint(path_mm * np.float32(steps_per_mm)), room.min, room.max).astype(kind)


def _write(path: Path, arrays: dict[str, np.ndarray]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole(path) as half:
        np.savez_compressed(half, **arrays)
