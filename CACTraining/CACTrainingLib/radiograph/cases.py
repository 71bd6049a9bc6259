"""Files of radiographs projected from CTs, for training.

A folder holds `radiographs.csv`, one row a case, and `cases/NAME.npz`. Views are on the grid of
`CACScoringLib.radiograph.view`, row 0 at the head, as in `CACScoringLib.drr.projection`.
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk

from CACScoringLib.core.errors import CTError
from CACScoringLib.core.files import atomic_write
from CACScoringLib.drr.geometry import Geometry
from CACScoringLib.drr.projection import (
    CT_EFFECTIVE_KEV,
    attenuation_per_mm,
    calcium_path,
    path_length_mm,
    water_equivalent_mm,
)
from CACScoringLib.networks.configs import STANDARD_MM
from CACScoringLib.radiograph.view import STANDARD_PIXELS

from ..data.scan_table import VIEWS

SETTINGS, CASES = "radiographs.json", "cases"
"""File with the settings of a folder of radiographs, and folder of its cases."""

MATRIX, FIELD_OF_VIEW_MM = 432, 432.0
BOX_MARGIN_MM = 12.0
"""Margin in mm of stored slices around the heart."""

_STEPS = {"body": 64.0, "calcium": 1024.0, "heart": 64.0}
"""Steps per mm of stored paths in 16 bits; calcium is signed."""

MAP_STEPS = 1024
"""Steps per mm of stored paths of drawn calcium."""

SUPER_RESOLUTIONS = ("none", "interpolated", "learned")
"""Ways of making thin slices around the heart before projection, see `super_resolution`."""

_DAMAGED = (OSError, ValueError, KeyError, EOFError, AttributeError, TypeError, zipfile.BadZipFile, zlib.error)


@dataclass(frozen=True)
class View:
    """One view of a case, float32 [row, column].

    Attributes:
        body: Water-equivalent path of the ray, calcium included, in mm.
        calcium: Part of it due to coronary calcium in mm, 0 if unknown; negative beside moving calcium, where the scan
            undershoots.
        heart: Path in the heart in mm, 0 if unknown.
    """

    body: np.ndarray
    calcium: np.ndarray
    heart: np.ndarray

    @property
    def heart_centre(self) -> tuple[float, float] | None:
        """Middle of the heart's shadow (row, column) in pixels; None if the heart is unknown."""
        rows, columns = np.nonzero(self.heart > 0)
        if not rows.size:
            return None
        return (rows.min() + rows.max()) / 2, (columns.min() + columns.max()) / 2


@dataclass(frozen=True)
class Drawing:
    """Further calcium drawn on a patient's arteries, for training.

    Attributes:
        agatston: Its score.
        paths: By view, flat indices in the view, and the path of the calcium there in steps of 1 / MAP_STEPS mm.
    """

    agatston: float
    paths: dict[str, tuple[np.ndarray, np.ndarray]]


def sparse(path_mm: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the path of calcium through a view as `Drawing` holds it."""
    steps = np.clip(np.rint(path_mm * MAP_STEPS), -32768, 32767).astype(np.int16).ravel()
    at = np.flatnonzero(steps).astype(np.int32)
    return at, steps[at]


def view_geometry(angle_degrees: float, tilt_degrees: float, isocentre_mm: tuple[float, float, float]) -> Geometry:
    """Return the geometry of the chest stand of all views. isocentre_mm: LPS."""
    return Geometry(
        angle_degrees=angle_degrees,
        tilt_degrees=tilt_degrees,
        detector_mm=(STANDARD_PIXELS * STANDARD_MM,) * 2,
        pixels=(STANDARD_PIXELS,) * 2,
        isocentre_mm=isocentre_mm,
    )


def project_view(geometry: Geometry, body: sitk.Image, calcium: sitk.Image | None, heart: sitk.Image | None) -> View:
    """Project a CT in HU. calcium: HU that calcium adds. heart: mask. Unknown parts of the view are 0."""
    zeros = np.zeros(geometry.pixels[::-1], np.float32)
    calcium_mm = zeros
    if calcium is not None:
        water = np.float32(attenuation_per_mm("water", CT_EFFECTIVE_KEV))
        # `calcium_path` ignores values below 0, the undershoot beside moving calcium, so they are projected apart.
        calcium_mm = (calcium_path(calcium, geometry) - calcium_path(-calcium, geometry)) / water
    heart_mm = zeros if heart is None else path_length_mm(heart, geometry)
    return View(water_equivalent_mm(body, geometry), calcium_mm, heart_mm)


def write_case(
    path: Path,
    views: dict[str, View],
    thin: dict[tuple[str, str], np.ndarray] | None = None,
    drawings: Sequence[Drawing] = (),
) -> None:
    """Write a case under a temporary name, then rename it.

    thin: further bodies in mm, by view and way of super-resolution.
    """
    arrays: dict[str, Any] = {}
    for name, view in views.items():
        for part, steps in _STEPS.items():
            kind = np.int16 if part == "calcium" else np.uint16
            arrays[f"{name}_{part}"] = _quantized(getattr(view, part), steps, kind)
    for (name, method), body in (thin or {}).items():
        arrays[f"{name}_body_{method}"] = _quantized(body, _STEPS["body"])
    if drawings:
        arrays["drawn_agatston"] = np.array([drawing.agatston for drawing in drawings])
        for name in views:
            at, steps = zip(*(drawing.paths[name] for drawing in drawings), strict=True)
            arrays[f"{name}_drawn_at"], arrays[f"{name}_drawn_mm"] = map(np.concatenate, (at, steps))
            arrays[f"{name}_drawn_of"] = np.repeat(np.arange(len(at)), [len(part) for part in at]).astype(np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as unfinished:
        np.savez_compressed(unfinished, **arrays)


def read_case(path: Path, super_resolution: str = "none") -> dict[str, View]:
    """Read the views of a case by name. super_resolution: way of SUPER_RESOLUTIONS for the bodies.

    Raises CTError for another file, or one without this super-resolution.
    """
    if super_resolution not in SUPER_RESOLUTIONS:
        raise CTError(f"There is no super-resolution {super_resolution!r}; choose of {', '.join(SUPER_RESOLUTIONS)}.")
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
            return _views(file, path, super_resolution)
    except _DAMAGED as error:
        raise CTError(f"The radiographs in {path} cannot be read ({error}). Make them again.") from error


def read_drawings(path: Path) -> list[Drawing]:
    """Read a case's further calcium, often none. Raises CTError for another file."""
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
            if not any(name.endswith("_drawn_at") for name in file):
                return []
            parts = {name: [file[f"{name}_drawn_{part}"] for part in ("at", "mm", "of")] for name in _views(file, path)}
            return [
                Drawing(score, {name: (at[of == n], mm[of == n]) for name, (at, mm, of) in parts.items()})
                for n, score in enumerate(file["drawn_agatston"].tolist())
            ]
    except _DAMAGED as error:
        raise CTError(f"The radiographs in {path} cannot be read ({error}). Make them again.") from error


def _views(file: Mapping[str, np.ndarray], path: Path, super_resolution: str = "none") -> dict[str, View]:
    views = {}
    for name in VIEWS:
        if f"{name}_body" not in file:
            continue
        names = {part: f"{name}_{part}" for part in _STEPS}
        if super_resolution != "none":
            names["body"] = f"{name}_body_{super_resolution}"
            if names["body"] not in file:
                raise CTError(f"{path} has no super-resolution ({super_resolution}). Use --super-resolution.")
        views[name] = View(*(file[names[part]].astype(np.float32) / np.float32(s) for part, s in _STEPS.items()))
    return views


def _quantized(path_mm: np.ndarray, steps_per_mm: float, kind: type = np.uint16) -> np.ndarray:
    limits = np.iinfo(kind)
    return np.clip(np.rint(path_mm * np.float32(steps_per_mm)), limits.min, limits.max).astype(kind)


def are_digital(table: Path) -> bool:
    """Return True for a table of digital patients, or its folder, which holds their cohort's settings."""
    file = (table if table.is_dir() else table.parent) / SETTINGS
    return file.is_file() and "made_of" not in file.read_text(encoding="utf-8")
