"""Folders of radiographs projected from CTs, for training.

A folder holds its settings, `radiographs.csv` with a row for each case, and for each case its views, `cases/NAME.npz`,
and a record of what they were made from, so that a command that is run again continues. Views are on the grid of
`CACScoringLib.radiograph.view`, row 0 at the head, as in `CACScoringLib.drr.projection`.
"""

from __future__ import annotations

import json
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk

from CACScoringLib.cohort.workers import run_jobs
from CACScoringLib.core.errors import CTError, OutputError
from CACScoringLib.core.files import atomic_write, read_json, write_text_atomically
from CACScoringLib.core.tables import write_table
from CACScoringLib.core.text import printable
from CACScoringLib.core.voxels import voxels_of
from CACScoringLib.drr.geometry import Geometry
from CACScoringLib.drr.projection import (
    CT_EFFECTIVE_KEV,
    attenuation_per_mm,
    calcium_path,
    cropped,
    path_length_mm,
    water_equivalent_mm,
)
from CACScoringLib.networks.configs import STANDARD_MM
from CACScoringLib.radiograph.view import STANDARD_PIXELS

from ..data.scan_table import RADIOGRAPH_TABLE, VIEWS

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


@dataclass(frozen=True)
class ScanRadiographSettings:
    """Settings of radiographs of CTs.

    Attributes:
        super_resolution: Network whose thin slices of the heart, and interpolated ones, are projected too; None for
            neither.
        views: Views to project.
    """

    super_resolution: str | None = None
    views: tuple[str, ...] = VIEWS


_DAMAGED = (OSError, ValueError, KeyError, EOFError, AttributeError, TypeError, zipfile.BadZipFile, zlib.error)


@dataclass(frozen=True)
class View:
    """One view of a case, float32 [row, column].

    Attributes:
        body: Water-equivalent path of the ray, calcium included, in mm.
        calcium: Part of it due to coronary calcium in mm, 0 if unknown; negative beside moving calcium, where the scan
            undershoots.
        heart: Path in the heart in mm, 0 if unknown.
        knows_calcium: True if the coronary calcium is known.
    """

    body: np.ndarray
    calcium: np.ndarray
    heart: np.ndarray
    knows_calcium: bool = True

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
        parts = [(sign, cropped(sitk.Clamp(sign * calcium, sitk.sitkFloat32, 0.0))) for sign in (1, -1)]
        calcium_mm = sum((sign * calcium_path(part, geometry) for sign, part in parts if voxels_of(part).any()), zeros)
        calcium_mm /= water
    heart_mm = zeros if heart is None else path_length_mm(cropped(heart), geometry)
    return View(water_equivalent_mm(body, geometry), calcium_mm, heart_mm, calcium is not None)


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
            if part == "calcium" and not view.knows_calcium:
                continue
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
    with _opened(path) as file:
        return _views(file, path, super_resolution)


def read_drawings(path: Path) -> list[Drawing]:
    """Read a case's further calcium, often none. Raises CTError for another file."""
    with _opened(path) as file:
        if not any(name.endswith("_drawn_at") for name in file):
            return []
        parts = {name: [file[f"{name}_drawn_{part}"] for part in ("at", "mm", "of")] for name in _views(file, path)}
        return [
            Drawing(score, {name: (at[of == n], mm[of == n]) for name, (at, mm, of) in parts.items()})
            for n, score in enumerate(file["drawn_agatston"].tolist())
        ]


@contextmanager
def _opened(path: Path) -> Iterator[Mapping[str, np.ndarray]]:
    """Open a case. Raises CTError where it, or the content that is read meanwhile, is damaged."""
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
            yield file
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
        paths = {part: file[names[part]] / np.float32(s) for part, s in _STEPS.items() if names[part] in file}
        views[name] = View(**{"calcium": np.zeros_like(paths["body"]), **paths}, knows_calcium="calcium" in paths)
    return views


def _quantized(path_mm: np.ndarray, steps_per_mm: float, kind: type = np.uint16) -> np.ndarray:
    limits = np.iinfo(kind)
    return np.clip(np.rint(path_mm * np.float32(steps_per_mm)), limits.min, limits.max).astype(kind)


def are_digital(table: Path) -> bool:
    """Return True for a table of digital patients, or its folder, which holds their cohort's settings."""
    file = (table if table.is_dir() else table.parent) / SETTINGS
    return file.is_file() and "made_of" not in file.read_text(encoding="utf-8")


SCHEMA = "cac-radiographs/1"
FAILURES = "failures.csv"


@dataclass(frozen=True)
class CaseJob:
    """Case to make.

    Attributes:
        file: Unique name of its files.
        source: Argument of the function that makes it.
        columns: Cells of its row that are known before.
        made_from: JSON values that identify its sources; the case is made again if they change.
    """

    file: str
    source: Any
    columns: dict[str, Any]
    made_from: dict[str, Any]


Make = Callable[[Any, Path], dict[str, Any]]
"""Picklable function that writes a case of a source into a file, and returns further cells of its row."""


def open_folder(folder: Path, settings: dict[str, Any], more: Callable[[], dict[str, Any]] = dict) -> dict[str, Any]:
    """Return the record of a folder's settings, which is written into a new folder.

    more: function that returns what else a new record holds. Raises OutputError for a folder of other settings, or of
    something else.
    """
    path, content = folder / SETTINGS, json.loads(json.dumps({"schema": SCHEMA, **settings}))
    try:
        if path.exists():
            record = read_json(path)
        elif folder.is_dir() and any(not entry.name.startswith(".") for entry in folder.iterdir()):
            raise OutputError(f"{folder} is not empty and holds no radiographs. Choose another --output.")
        else:
            record = content | more()
            (folder / CASES).mkdir(parents=True, exist_ok=True)
            write_text_atomically(path, json.dumps(record, indent=1))
    except (OSError, ValueError) as error:
        raise OutputError(f"{path} cannot be read or written ({error}). Choose another --output.") from error
    if not isinstance(record, dict) or record | content != record:
        raise OutputError(f"{folder} holds radiographs of other settings ({path}). Choose another --output.")
    return record


def write_cases(
    folder: Path,
    jobs: Iterable[CaseJob],
    make: Make,
    columns: Sequence[str],
    workers: int,
    counted: Callable[[int, int], None] | None = None,
) -> tuple[Path, dict[str, str]]:
    """Make the missing cases, and write the table and FAILURES; returns the table, and failures with reasons by name.

    Args:
        columns: Columns of the table; jobs and `make` give the cells, name, patient and a CT's path among them.
        workers: Number of processes.
        counted: Called with the numbers of finished and all cases.
    """
    jobs = list(jobs)
    events = run_jobs(partial(_start_worker, make, folder), jobs, workers, counted)
    rows, failures = [], []
    for job, event in zip(jobs, events, strict=True):
        result = event.reason if event.state == "lost" else event.result
        if isinstance(result, str):
            failures.append({**job.columns, "reason": result})
        else:
            rows.append({**job.columns, "file": f"{CASES}/{job.file}.npz", **result})
    parts = ((RADIOGRAPH_TABLE, columns, rows), (FAILURES, ("name", "ct", "reason"), failures))
    for name, titles, lines in parts:
        cells = ({title: printable(str(line.get(title, ""))) for title in titles} for line in lines)
        write_table(folder / name, list(titles), cells)
    return folder / RADIOGRAPH_TABLE, {failure["name"]: failure["reason"] for failure in failures}


def _start_worker(make: Make, folder: Path) -> Callable[[CaseJob], dict[str, Any] | str]:
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)  # the workers use all cores, one each
    return partial(_make_case, make, folder)


def _make_case(make: Make, folder: Path, job: CaseJob) -> dict[str, Any] | str:
    """Make a case if missing; returns further cells of its row, or the reason of a failure."""
    record = folder / CASES / f"{job.file}.json"
    case = record.with_suffix(".npz")
    try:
        if (cells := _recorded_cells(record, job)) is not None and case.exists():
            return cells
        record.unlink(missing_ok=True)
        cells = make(job.source, case)
        write_text_atomically(record, json.dumps({"made_from": job.made_from, "cells": cells}))
        return cells
    except CTError as error:
        return str(error)
    except OSError as error:
        return f"Reading or writing failed: {error.strerror} ({error.filename})."
    except MemoryError:
        return "Memory ran out. Try it with fewer --workers."


def _recorded_cells(record: Path, job: CaseJob) -> dict[str, Any] | None:
    """Return the recorded cells of a case; None if there are none, or its sources changed."""
    try:
        content = read_json(record)
        return content["cells"] if content["made_from"] == job.made_from else None
    except (OSError, ValueError, KeyError, TypeError):
        return None
