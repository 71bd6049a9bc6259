"""Radiographs in memory, as training takes them: squares about the heart with a margin, and reduced whole views.

Projection is linear: where a case's coronary calcium is known, so is the radiograph of the same patient with other
calcium, and with none (the healthy twin). Such pictures are for training only.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from CACScoringLib.core.ct import CTError, ScanWarning
from CACScoringLib.core.tables import TableError
from CACScoringLib.networks.radiograph import REDUCTION, RadiographNet
from CACScoringLib.radiograph.view import STANDARD_PIXELS, enhanced, view_of_path

from ..data.scan_table import TableScan, table_hash
from .cases import VIEWS, View, read_case, read_table

MARGIN_PIXELS = 224
"""Side of the squares kept, of 1 mm: room to turn, move and enlarge what the network sees."""

SCALES = (1.0, 0.0, 0.5, 2.0, 4.0)
"""By which calcium is multiplied; the first is the patient's own."""

_WHITE = 65535
_MAP_STEPS = 50.0
"""Steps per mm of a calcium map, in 8 bits: up to 5 mm of water."""


@dataclass(frozen=True)
class RadiographSet:
    """n patients' pictures, m of them with their calcium scaled; V views, in the order of `views`.

    patients: whose each case is; of several cases of a patient, none may be split. squares: uint16 [m, V, 224, 224],
    0 to 65535 for 0 to 1. corners: (row, column) of their first pixel in the view, [n, V, 2]. reduced: uint16 [n, V,
    108, 108], the whole views. centres: (row, column) of the heart that squares were cut about, [n, V, 2]; known: [n],
    whether they are the heart's own. sample, scale: of each picture m, which case it is of and its calcium's scale.
    maps: uint8 [n, V, 224, 224], path of the coronary calcium in steps of 0.02 mm; has_map: [n], whether it is known.
    scores: [n] by label, NaN where not known. factors: [n, 3], age in years, sex (1 male), BMI; NaN where not known.
    """

    names: tuple[str, ...]
    patients: np.ndarray
    views: tuple[str, ...]
    enhancement: str
    super_resolution: str
    squares: np.ndarray
    corners: np.ndarray
    reduced: np.ndarray
    centres: np.ndarray
    known: np.ndarray
    sample: np.ndarray
    scale: np.ndarray
    maps: np.ndarray
    has_map: np.ndarray
    scores: dict[str, np.ndarray]
    factors: np.ndarray
    sha256: str
    warnings: tuple[ScanWarning, ...] = ()

    def __len__(self) -> int:
        return len(self.names)

    def own(self) -> np.ndarray:
        """Index of each case's picture with its own calcium: [n]."""
        return np.nonzero(self.scale == 1.0)[0]

    def channels(self, views: Sequence[str]) -> list[int]:
        """Indices of views among those held. Raises TableError when one is not."""
        if missing := [view for view in views if view not in self.views]:
            raise TableError(f"The radiographs have no {' or '.join(missing)} view; they have {', '.join(self.views)}.")
        return [self.views.index(view) for view in views]


def load_radiographs(
    table: Path,
    label: str | None = None,
    views: Sequence[str] = VIEWS,
    enhancement: str = "none",
    super_resolution: str = "none",
    scales: Sequence[float] = SCALES,
    finder: RadiographNet | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> RadiographSet:
    """Read the radiographs of a table, or of a folder that holds one; see `cases.read_table`.

    label: a score that every row must have. super_resolution: of digital cases, as in `cases.read_case`. scales: the
    first has to be 1; (1,) makes no other pictures. finder: finds the heart where it is not known; without one,
    squares are cut about the middle of the view, with a warning. progress: called with (done, rows). Raises TableError,
    CTError.
    """
    if not scales or scales[0] != 1.0:
        raise ValueError("The first scale has to be 1, the patient's own calcium.")
    rows = read_table(table, label)
    views = tuple(views)
    parts, warnings = [], []
    for number, row in enumerate(rows):
        parts.append(_case(row, views, enhancement, super_resolution, tuple(scales), finder))
        if progress:
            progress(number + 1, len(rows))
    squares = [part.pop("squares") for part in parts]
    stacked = {name: np.stack([part[name] for part in parts]) for name in parts[0]}
    unknown = int((~stacked["known"]).sum())
    if unknown and finder is None:
        message = f"On {unknown} radiographs the heart is unknown: their centre is used. Use a model that finds it."
        warnings.append(ScanWarning("heart-not-known", message))
    counts = [len(part) for part in squares]
    labels = sorted({name for row in rows for name in row.scores})
    return RadiographSet(
        names=tuple(row.name for row in rows),
        patients=np.array([row.patient for row in rows]),
        views=views,
        enhancement=enhancement,
        super_resolution=super_resolution,
        squares=np.concatenate(squares),
        sample=np.repeat(np.arange(len(rows)), counts),
        scale=np.concatenate([np.array(scales[:count]) for count in counts]),
        scores={name: np.array([row.scores.get(name, np.nan) for row in rows]) for name in labels},
        factors=np.array([row.factors for row in rows]),
        sha256=table_hash(rows),
        warnings=tuple(warnings),
        **stacked,
    )


def _case(
    row: TableScan,
    views: tuple[str, ...],
    enhancement: str,
    super_resolution: str,
    scales: tuple[float, ...],
    finder: RadiographNet | None,
) -> dict[str, np.ndarray]:
    """Arrays of one case; see `RadiographSet`."""
    digital = row.files["PA"].suffix == ".npz"
    if digital:
        case = read_case(row.files["PA"], super_resolution)
        if missing := [view for view in views if view not in case]:
            raise TableError(f"{row.files['PA']} has no {' or '.join(missing)} view.")
        paths = [case[view] for view in views]
        calcium = any(view.calcium.any() for view in paths)
        # A patient's own calcium comes first; without any, all scales are the same picture.
        pictures = [[view_of_path(scaled(view, scale)) for view in paths] for scale in (scales if calcium else (1.0,))]
        hearts = [view.heart_centre for view in paths]
    else:
        if missing := [view for view in views if view not in row.files]:
            raise TableError(f"{row.name} has no {' or '.join(missing)} picture; give one, or leave that view out.")
        from CACScoringLib.radiograph.reading import read_radiograph

        pictures, hearts = [[read_radiograph(row.files[view]).standard() for view in views]], [None] * len(views)
    pictures = [[enhanced(view, enhancement) for view in one] for one in pictures]
    known = all(heart is not None for heart in hearts)
    centres = np.array(hearts, np.float32) if known else _found(pictures[0], finder)
    corners = np.clip(np.rint(centres - (MARGIN_PIXELS - 1) / 2), 0, STANDARD_PIXELS - MARGIN_PIXELS).astype(np.int32)
    maps = np.zeros((len(views), MARGIN_PIXELS, MARGIN_PIXELS), np.uint8)
    if digital:
        maps[:] = [np.clip(v.calcium * _MAP_STEPS, 0, 255)[_at(c)] for v, c in zip(paths, corners, strict=True)]
    squares = np.array([[v[_at(c)] for v, c in zip(one, corners, strict=True)] for one in pictures])
    reduced = np.stack([reduced_view(view) for view in pictures[0]])
    case = {"squares": _whole(squares), "corners": corners, "reduced": _whole(reduced), "centres": centres}
    return {**case, "known": np.array(known), "maps": maps, "has_map": np.array(digital)}


def scaled(view: View, scale: float) -> np.ndarray:
    """Path of a view's radiograph with the calcium so many times what it is, mm."""
    return view.body - np.float32(1 - scale) * view.calcium


def reduced_view(view: np.ndarray) -> np.ndarray:
    """A view REDUCTION times smaller, by means, as the network's finder sees it."""
    rows, columns = (side // REDUCTION for side in view.shape)
    return view.reshape(rows, REDUCTION, columns, REDUCTION).mean((1, 3))


def _found(views: list[np.ndarray], finder: RadiographNet | None) -> np.ndarray:
    if finder is None:
        return np.full((len(views), 2), (STANDARD_PIXELS - 1) / 2, np.float32)
    import torch

    with torch.inference_mode():
        return finder.eval().locate(torch.from_numpy(np.stack(views))[None])[0].numpy()


def _at(corner: np.ndarray) -> tuple[slice, slice]:
    row, column = map(int, corner)
    return slice(row, row + MARGIN_PIXELS), slice(column, column + MARGIN_PIXELS)


def _whole(values: np.ndarray) -> np.ndarray:
    return np.rint(values * _WHITE).astype(np.uint16)


def check_label(data: RadiographSet, label: str) -> np.ndarray:
    """Scores of a label, [n]. Raises CTError where one is not known."""
    scores = data.scores.get(label)
    if scores is None or np.isnan(scores).any():
        raise CTError(f"Not every radiograph has {label}. Choose a label that all have.")
    return scores
