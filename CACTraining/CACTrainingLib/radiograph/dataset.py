"""Radiographs in memory for training: squares around the heart with a margin, and reduced views.

Projection is linear, so a digital case is kept as the paths through the body without coronary calcium, and those
through its calcium, which are exposed together anew for each picture: with the patient's own calcium, with other
calcium drawn on the same arteries, scaled, or with none. Own pictures, and those of one exposure, which is the same
for every enhancement, are kept as they are.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from CACScoringLib.core.errors import CTError, TableError
from CACScoringLib.core.progress import Progress
from CACScoringLib.core.warning_codes import ScanWarning
from CACScoringLib.networks.radiograph import REDUCTION, RadiographNet
from CACScoringLib.radiograph.view import STANDARD_PIXELS, enhance

from ..data.scan_table import VIEWS, TableScan, table_hash
from .cases import MAP_STEPS, Drawing, View, read_case, read_drawings, sparse
from .exposure import (
    COARSE,
    automatic_photons,
    draw_exposure,
    expose,
    fine_scatter,
    scattered,
    usual_logarithms,
    window,
)

MARGIN_PIXELS = 368
"""Side of stored squares in pixels, with a margin for augmentation."""

PATIENTS, NONE = -1, -2
"""In place of the number of drawn calcium: the patient's own, and none."""

_WHITE = 65535
_PATH_STEPS = 64.0
"""Steps per mm of stored paths through the body."""


@dataclass(frozen=True)
class RadiographSet:
    """Radiographs of n cases, of V views each.

    Attributes:
        names: Names of the cases [n].
        patients: Patients of the cases [n]; a split keeps a patient's cases together.
        views: Names of the V views.
        enhancement: Enhancement of the views' contrast.
        composed: True if squares hold paths, False if brightness.
        squares: Squares around the heart, uint16 [n, V, side, side]: paths without coronary calcium in mm / 64, or 0 to
            65535 for 0 to 1.
        scatter: Scatter on the squares, coarse (`exposure.scattered`) [n, V, side / 8, side / 8].
        windows: Logarithms of the signal shown as 0 and 1 [n, V, 2].
        photons: Usual photons per pixel without a patient (`exposure.automatic_photons`) [n, V]; 1 for pictures.
        corners: First pixel (row, column) of the squares in the view [n, V, 2].
        reduced: Complete views, reduced, uint16 [n, V, 108, 108].
        centres: Centre (row, column) of the squares [n, V, 2].
        has_heart: True if the centres are those of a known heart [n].
        calcium: By case, paths of its own calcium as `drawn` holds them.
        drawn: By case, further calcium, with indices in the squares.
        has_map: True if the coronary calcium is known [n].
        scores: Scores by label [n], NaN if unknown.
        factors: Age in years, sex (1 for men) and BMI [n, 3], NaN if unknown.
        sha256: Hash of the table.
    """

    names: tuple[str, ...]
    patients: np.ndarray
    views: tuple[str, ...]
    enhancement: str
    composed: bool
    squares: np.ndarray
    scatter: np.ndarray
    windows: np.ndarray
    photons: np.ndarray
    corners: np.ndarray
    reduced: np.ndarray
    centres: np.ndarray
    has_heart: np.ndarray
    calcium: tuple[Drawing, ...]
    drawn: tuple[list[Drawing], ...]
    has_map: np.ndarray
    scores: dict[str, np.ndarray]
    factors: np.ndarray
    sha256: str

    def __len__(self) -> int:
        return len(self.names)

    def calcium_path(self, case: int, view: int, number: int) -> np.ndarray:
        """Return the path of calcium through a square in mm. number: that of drawn calcium, PATIENTS or NONE."""
        path = np.zeros(MARGIN_PIXELS**2, np.float32)
        if number != NONE:
            drawing = self.calcium[case] if number == PATIENTS else self.drawn[case][number]
            at, steps = drawing.paths[self.views[view]]
            path[at] = steps / np.float32(MAP_STEPS)
        return path.reshape(MARGIN_PIXELS, MARGIN_PIXELS)

    def path(self, case: int, view: int) -> np.ndarray:
        """Return the path through a square without coronary calcium in mm of water."""
        return self.squares[case, view] / np.float32(_PATH_STEPS)

    def picture(self, case: int, view: int, number: int = PATIENTS) -> np.ndarray:
        """Return a square of a case's radiograph, 0 to 1, with the same exposure at each call.

        number: As of `calcium_path`; only PATIENTS if the pictures are not composed.
        """
        if not self.composed:
            return self.squares[case, view] / np.float32(_WHITE)
        generator = np.random.default_rng([zlib.crc32(self.names[case].encode()), view])
        exposure = draw_exposure(self.photons[case, view], generator)
        path = self.path(case, view) + self.calcium_path(case, view, number)
        return self.brightness(expose(path, fine_scatter(self.scatter[case, view]), exposure, generator), case, view)

    def brightness(self, dark: np.ndarray, case: int, view: int) -> np.ndarray:
        """Return logarithms of the signal as brightness, 0 to 1."""
        low, high = self.windows[case, view]
        return np.clip((dark - low) / (high - low), 0, 1)

    def channels(self, views: Sequence[str]) -> list[int]:
        """Return indices of views. Raises TableError for a missing view."""
        if missing := [view for view in views if view not in self.views]:
            raise TableError(f"The radiographs have no {' or '.join(missing)} view; they have {', '.join(self.views)}.")
        return [self.views.index(view) for view in views]


def load_radiographs(
    rows: Sequence[TableScan],
    views: Sequence[str] = VIEWS,
    enhancement: str = "none",
    super_resolution: str = "none",
    finder: RadiographNet | None = None,
    progress: Progress | None = None,
    one_exposure: bool = False,
) -> RadiographSet:
    """Read the radiographs of a table's rows, see `data.scan_table.read_radiographs`.

    Args:
        rows: Rows of the table.
        super_resolution: Way for digital cases, as in `cases.read_case`.
        finder: Network that locates unknown hearts; without one, squares are at the view's middle, with a warning.
        progress: Progress, which is warned of unknown hearts.
        one_exposure: True to expose a case once, as enhancement does, instead of anew for each picture.

    Raises:
        TableError: A row lacks a view.
        CTError: A file is unreadable.
    """
    views, progress = tuple(views), progress or Progress()
    composed = enhancement == "none" and not one_exposure and all(row.files["PA"].suffix == ".npz" for row in rows)
    parts = []
    for number, row in enumerate(rows):
        parts.append(_case(row, views, enhancement, super_resolution, finder, composed))
        progress.counted(number + 1, len(rows))
    lists: dict[str, Any] = {name: tuple(part.pop(name) for part in parts) for name in ("calcium", "drawn")}
    stacked: dict[str, Any] = {name: np.stack([part[name] for part in parts]) for name in parts[0]}
    if finder is None and (count := int((~stacked["has_heart"]).sum())):
        message = f"On {count} radiographs the heart is unknown: their centre is used. Use a model that finds it."
        progress.warning(ScanWarning("heart-not-known", message))
    labels = sorted({name for row in rows for name in row.scores})
    return RadiographSet(
        names=tuple(row.name for row in rows),
        patients=np.array([row.patient for row in rows]),
        views=views,
        enhancement=enhancement,
        composed=composed,
        scores={name: np.array([row.scores.get(name, np.nan) for row in rows]) for name in labels},
        factors=np.array([row.factors for row in rows]),
        sha256=table_hash(rows),
        **lists,
        **stacked,
    )


def _case(
    row: TableScan,
    views: tuple[str, ...],
    enhancement: str,
    super_resolution: str,
    finder: RadiographNet | None,
    composed: bool,
) -> dict[str, Any]:
    """Return the arrays of a row's case; see `RadiographSet`. Raises TableError, CTError."""
    file = row.files["PA"]
    paths: list[View] = []
    drawings: list[Drawing] = []
    pictures: list[np.ndarray] = []
    if file.suffix == ".npz":
        case, drawings = read_case(file, super_resolution), read_drawings(file)
        if missing := [view for view in views if view not in case]:
            raise TableError(f"{file} has no {' or '.join(missing)} view.")
        paths = [case[view] for view in views]
        scatter = [scattered(path.body) for path in paths]
        usual = [usual_logarithms(path.body, field) for path, field in zip(paths, scatter, strict=True)]
        windows = [window(path.body, dark) for path, dark in zip(paths, usual, strict=True)]
        photons = [automatic_photons(name, dark) for name, dark in zip(views, usual, strict=True)]
        for path, field, (low, high), count in zip(paths, scatter, windows, photons, strict=True):
            generator = np.random.default_rng([zlib.crc32(row.name.encode()), len(pictures)])
            dark = expose(path.body, fine_scatter(field), draw_exposure(count, generator), generator)
            pictures.append(enhance(np.clip((dark - low) / (high - low), 0, 1), enhancement))
    else:
        pictures = _own_pictures(row, views, enhancement, super_resolution)
        scatter = [np.zeros((STANDARD_PIXELS // COARSE,) * 2, np.float32)] * len(views)
        windows, photons = [(0.0, 1.0)] * len(views), [1.0] * len(views)
    hearts = [path.heart_centre for path in paths]
    has_heart = bool(hearts) and None not in hearts
    centres = np.array(hearts, np.float32) if has_heart else _locate(pictures, finder)
    corners = np.clip(np.rint(centres - (MARGIN_PIXELS - 1) / 2), 0, STANDARD_PIXELS - MARGIN_PIXELS)
    corners = (corners // COARSE * COARSE).astype(np.int32)
    windowed = [_window(corner) for corner in corners]
    contents = [path.body - path.calcium for path in paths] if composed else pictures
    steps = _PATH_STEPS if composed else _WHITE
    calcium = Drawing(0.0, {name: sparse(path.calcium) for name, path in zip(views, paths, strict=False)})
    places = dict(zip(views, corners, strict=True))
    return {
        "squares": np.stack([np.rint(c[w] * steps) for c, w in zip(contents, windowed, strict=True)]).astype(np.uint16),
        "scatter": np.stack([f[_window(c // COARSE, COARSE)] for f, c in zip(scatter, corners, strict=True)]),
        "windows": np.array(windows, np.float32),
        "photons": np.array(photons),
        "corners": corners,
        "reduced": np.rint(np.stack([reduced_view(view) for view in pictures]) * _WHITE).astype(np.uint16),
        "centres": centres,
        "has_heart": np.array(has_heart),
        "has_map": np.array(bool(paths) and all(path.knows_calcium for path in paths)),
        "calcium": _in_squares(calcium, places),
        "drawn": [_in_squares(drawing, places) for drawing in drawings],
    }


def _own_pictures(row: TableScan, views: tuple[str, ...], enhancement: str, super_resolution: str) -> list[np.ndarray]:
    """Read the views of a row of pictures."""
    if super_resolution != "none":
        raise TableError(f"{row.name} is a picture; only radiographs projected from CTs have super-resolution.")
    if missing := [view for view in views if view not in row.files]:
        raise TableError(f"{row.name} has no {' or '.join(missing)} picture; give one, or leave that view out.")
    from CACScoringLib.radiograph.reading import read_radiograph

    return [enhance(read_radiograph(row.files[view]).standard(), enhancement) for view in views]


def _in_squares(drawing: Drawing, corners: dict[str, np.ndarray]) -> Drawing:
    """Return calcium with indices in squares of these corners, and without what lies outside."""
    paths = {}
    for name, corner in corners.items():
        if name not in drawing.paths:
            continue
        at, steps = drawing.paths[name]
        row, column = (np.stack(np.divmod(at, STANDARD_PIXELS)) - corner[:, None]).astype(np.int64)
        inside = (np.minimum(row, column) >= 0) & (np.maximum(row, column) < MARGIN_PIXELS)
        paths[name] = (row * MARGIN_PIXELS + column)[inside].astype(np.int32), steps[inside]
    return Drawing(drawing.agatston, paths)


def reduced_view(view: np.ndarray) -> np.ndarray:
    """Reduce a view by means over REDUCTION pixels, as input of the network's finder."""
    rows, columns = (side // REDUCTION for side in view.shape)
    return view.reshape(rows, REDUCTION, columns, REDUCTION).mean((1, 3))


def _locate(views: list[np.ndarray], finder: RadiographNet | None) -> np.ndarray:
    if finder is None:
        return np.full((len(views), 2), (STANDARD_PIXELS - 1) / 2, np.float32)
    import torch

    with torch.inference_mode():
        return finder.eval().locate(torch.from_numpy(np.stack(views))[None])[0].numpy()


def _window(corner: np.ndarray, pixels: int = 1) -> tuple[slice, slice]:
    """Return the rows and columns of a square whose pixels are as long as `pixels` of the view."""
    row, column = map(int, corner)
    return slice(row, row + MARGIN_PIXELS // pixels), slice(column, column + MARGIN_PIXELS // pixels)


def check_label(data: RadiographSet, label: str) -> np.ndarray:
    """Return the scores of a label [n]. Raises CTError if one is unknown."""
    scores = data.scores.get(label)
    if scores is None or np.isnan(scores).any():
        raise CTError(f"Not every radiograph has {label}. Choose a label that all have.")
    return scores
