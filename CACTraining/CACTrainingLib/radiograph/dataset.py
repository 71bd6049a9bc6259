"""Radiographs in memory for training: squares around the heart with a margin, and reduced views.

Projection is linear, so a case with known coronary calcium also gives radiographs of the same patient with scaled
calcium, and with none (the healthy twin). Such pictures are for training only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from CACScoringLib.core.ct import ScanWarning
from CACScoringLib.core.errors import CTError, TableError
from CACScoringLib.core.progress import Progress
from CACScoringLib.networks.radiograph import REDUCTION, RadiographNet
from CACScoringLib.radiograph.view import STANDARD_PIXELS, enhance, view_of_path

from ..data.scan_table import VIEWS, TableScan, table_hash
from .cases import View, read_case

MARGIN_PIXELS = 224
"""Side of stored squares in pixels of 1 mm, with a margin for augmentation."""

SCALES = (1.0, 0.0, 0.5, 2.0, 4.0)
"""Factors on a patient's calcium; the first is the original."""

_WHITE = 65535
_MAP_STEPS = 50.0
"""Steps per mm of a calcium map, in 8 bits: up to 5 mm of water."""


@dataclass(frozen=True)
class RadiographSet:
    """Radiographs of n cases: m pictures, several of a case with scaled calcium, of V views each.

    Attributes:
        names: Names of the cases [n].
        patients: Patients of the cases [n]; a split keeps a patient's cases together.
        views: Names of the V views.
        enhancement: Enhancement of the views' contrast.
        squares: Squares around the heart, uint16 [m, V, 224, 224], 0 to 65535 for 0 to 1.
        corners: First pixel (row, column) of the squares in the view [n, V, 2].
        reduced: Complete views, reduced, uint16 [n, V, 108, 108].
        centres: Centre (row, column) of the squares [n, V, 2].
        has_heart: True if the centres are those of a known heart [n].
        sample: Index of each picture's case [m].
        scale: Factor on each picture's calcium [m].
        maps: Path of the coronary calcium in steps of 0.02 mm, uint8 [n, V, 224, 224].
        has_map: True if the coronary calcium is known [n].
        scores: Scores by label [n], NaN if unknown.
        factors: Age in years, sex (1 for men) and BMI [n, 3], NaN if unknown.
        sha256: Hash of the table.
    """

    names: tuple[str, ...]
    patients: np.ndarray
    views: tuple[str, ...]
    enhancement: str
    squares: np.ndarray
    corners: np.ndarray
    reduced: np.ndarray
    centres: np.ndarray
    has_heart: np.ndarray
    sample: np.ndarray
    scale: np.ndarray
    maps: np.ndarray
    has_map: np.ndarray
    scores: dict[str, np.ndarray]
    factors: np.ndarray
    sha256: str

    def __len__(self) -> int:
        return len(self.names)

    def original_pictures(self) -> np.ndarray:
        """Return the index of each case's picture with unscaled calcium [n]."""
        return np.nonzero(self.scale == 1.0)[0]

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
    scales: Sequence[float] = SCALES,
    finder: RadiographNet | None = None,
    progress: Progress | None = None,
) -> RadiographSet:
    """Read the radiographs of a table's rows, see `data.scan_table.read_radiographs`.

    Args:
        rows: Rows of the table.
        super_resolution: Way for digital cases, as in `cases.read_case`.
        scales: Factors on the calcium, the first of them 1; (1,) makes no further pictures.
        finder: Network that locates unknown hearts; without one, squares are at the view's middle, with a warning.
        progress: Progress, which is warned of unknown hearts.

    Raises:
        TableError: A row lacks a view.
        CTError: A file is unreadable.
    """
    if not scales or scales[0] != 1.0:
        raise ValueError("The first scale has to be 1, the patient's own calcium.")
    views, progress = tuple(views), progress or Progress()
    parts = []
    for number, row in enumerate(rows):
        pictures, paths = _read_pictures(row, views, super_resolution, scales)
        enhanced = [[enhance(view, enhancement) for view in picture] for picture in pictures]
        parts.append(_case(enhanced, paths, finder))
        progress.counted(number + 1, len(rows))
    squares = [part.pop("squares") for part in parts]
    stacked = {name: np.stack([part[name] for part in parts]) for name in parts[0]}
    n_unknown = int((~stacked["has_heart"]).sum())
    if n_unknown and finder is None:
        message = f"On {n_unknown} radiographs the heart is unknown: their centre is used. Use a model that finds it."
        progress.warning(ScanWarning("heart-not-known", message))
    counts = [len(part) for part in squares]
    labels = sorted({name for row in rows for name in row.scores})
    return RadiographSet(
        names=tuple(row.name for row in rows),
        patients=np.array([row.patient for row in rows]),
        views=views,
        enhancement=enhancement,
        squares=np.concatenate(squares),
        sample=np.repeat(np.arange(len(rows)), counts),
        scale=np.concatenate([np.array(scales[:count]) for count in counts]),
        scores={name: np.array([row.scores.get(name, np.nan) for row in rows]) for name in labels},
        factors=np.array([row.factors for row in rows]),
        sha256=table_hash(rows),
        **stacked,
    )


def _read_pictures(
    row: TableScan, views: tuple[str, ...], super_resolution: str, scales: Sequence[float]
) -> tuple[list[list[np.ndarray]], list[View]]:
    """Read the pictures of a case by scale and view, the original first, and the paths of a digital patient."""
    if row.files["PA"].suffix == ".npz":
        case = read_case(row.files["PA"], super_resolution)
        if missing := [view for view in views if view not in case]:
            raise TableError(f"{row.files['PA']} has no {' or '.join(missing)} view.")
        paths = [case[view] for view in views]
        # Without calcium, all scales give the same picture.
        scales = scales if any(path.calcium.any() for path in paths) else (1.0,)
        return [[view_of_path(v.body - np.float32(1 - scale) * v.calcium) for v in paths] for scale in scales], paths
    if super_resolution != "none":
        raise TableError(f"{row.name} is a picture; only radiographs projected from CTs have super-resolution.")
    if missing := [view for view in views if view not in row.files]:
        raise TableError(f"{row.name} has no {' or '.join(missing)} picture; give one, or leave that view out.")
    from CACScoringLib.radiograph.reading import read_radiograph

    return [[read_radiograph(row.files[view]).standard() for view in views]], []


def _case(pictures: list[list[np.ndarray]], paths: list[View], finder: RadiographNet | None) -> dict[str, np.ndarray]:
    """Return arrays of one case from its pictures by scale and view, and its paths if known; see `RadiographSet`."""
    hearts = [path.heart_centre for path in paths]
    has_heart = bool(hearts) and None not in hearts
    centres = np.array(hearts, np.float32) if has_heart else _locate(pictures[0], finder)
    corners = np.clip(np.rint(centres - (MARGIN_PIXELS - 1) / 2), 0, STANDARD_PIXELS - MARGIN_PIXELS).astype(np.int32)
    windows = [_window(corner) for corner in corners]
    maps = np.zeros((len(windows), MARGIN_PIXELS, MARGIN_PIXELS), np.uint8)
    for square, path, window in zip(maps, paths, windows, strict=False):
        square[:] = np.clip(path.calcium * _MAP_STEPS, 0, 255)[window]
    squares = np.array([[v[window] for v, window in zip(picture, windows, strict=True)] for picture in pictures])
    reduced = np.stack([reduced_view(view) for view in pictures[0]])
    stored = {"squares": _quantize(squares), "corners": corners, "reduced": _quantize(reduced), "centres": centres}
    return {**stored, "has_heart": np.array(has_heart), "maps": maps, "has_map": np.array(bool(paths))}


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


def _window(corner: np.ndarray) -> tuple[slice, slice]:
    row, column = map(int, corner)
    return slice(row, row + MARGIN_PIXELS), slice(column, column + MARGIN_PIXELS)


def _quantize(values: np.ndarray) -> np.ndarray:
    return np.rint(values * _WHITE).astype(np.uint16)


def check_label(data: RadiographSet, label: str) -> np.ndarray:
    """Return the scores of a label [n]. Raises CTError if one is unknown."""
    scores = data.scores.get(label)
    if scores is None or np.isnan(scores).any():
        raise CTError(f"Not every radiograph has {label}. Choose a label that all have.")
    return scores
