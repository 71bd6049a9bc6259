"""Where an inserted vessel runs: along the user's path, or in the epicardial fat of a real heart."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy import ndimage
from skimage.segmentation import watershed

from CACScoringLib.core.ct import CTError
from CACScoringLib.core.tables import TableError, read_cells

from ..scanner.scanner import Grid

FAT_HU = (-150.0, -40.0)

SECTOR_DEGREES = {"LM": (-30.0, 45.0), "LAD": (-10.0, 60.0), "LCX": (-80.0, -5.0), "RCA": (90.0, 175.0)}
"""Directions from the heart's middle in a slice, 0° patient's left, 90° anterior, between which each artery's fat lies.
Shape, read off three real scans; the posterior groove, which oesophagus and veins share, is left out."""

HEIGHT_SHARE = {"LM": (0.8, 1.0), "LAD": (0.6, 1.0), "LCX": (0.35, 1.0), "RCA": (0.25, 1.0)}
"""Heights between the heart's floor and its top, as shares. Below, fat pads of the diaphragm begin."""

TOP_AREA_SHARE = 0.62
"""Higher slices of a heart mask, smaller than this share of its largest, hold the great vessels."""

GROOVE_MM = 9.0
"""A ball of this radius rolled over the muscle does not get into a groove, but into a fat pad on the outside."""

SURFACE_MM = 4.0
"""The anterior interventricular groove is too shallow for that; there, fat this near to the muscle counts."""

DEEPEST_MM = 25.0
"""Fat deeper inside the mask lies in the transverse sinus or the atrial septum."""

BESIDE_MM = 40.0
"""So far around the mask tissue is looked at, to tell the heart from what it touches."""

MIDDLE_SHARE, BEYOND_MM = 0.8, 8.0
"""Tissue this deep, as a share of the deepest in the mask, is the heart; tissue this far outside the mask is not."""

_STEP_MM = 1.2
_MIN_PATH_MM = 6
_TRIES = 8


class PathError(CTError):
    """The vessel's path cannot be read, or none is found. The message says what to do."""


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


@dataclass(frozen=True)
class HeartFat:
    """Fat of a heart in which coronary arteries can run, on a coarser grid [k, j, i].

    groove: bool, fat within what GROOVE_MM closes. surface: bool, fat within SURFACE_MM of the muscle. inside_mm: depth
    under the mask's surface. angle_degrees: as in SECTOR_DEGREES. height: as in HEIGHT_SHARE, [k].
    """

    groove: np.ndarray
    surface: np.ndarray
    inside_mm: np.ndarray
    angle_degrees: np.ndarray
    height: np.ndarray
    spacing_mm: np.ndarray
    corner_mm: np.ndarray

    def path(self, artery: str, length_mm: float, generator: np.random.Generator) -> np.ndarray:
        """A path [n, 3] in LPS mm of at most a length, where this artery may run; steps of about 1 mm.

        Raises PathError when there is no such fat, or none that can be followed.
        """
        low, high = HEIGHT_SHARE[artery]
        first, last = SECTOR_DEGREES[artery]
        here = (self.angle_degrees >= first) & (self.angle_degrees <= last)
        here &= ((self.height >= low) & (self.height <= high))[:, None, None]
        fat = here & (self.groove | self.surface if artery == "LAD" else self.groove)
        depth = np.minimum(_depth(fat, self.spacing_mm), 3.0)
        starts = np.argwhere((depth >= min(1.5, depth.max())) & fat)
        if not len(starts):
            raise PathError(f"The heart mask holds no fat in which the {artery} could run; give the path.")
        best = np.zeros((0, 3))
        for _ in range(_TRIES):
            start = starts[generator.integers(len(starts))] * self.spacing_mm
            direction = generator.normal(0, 1, 3)
            direction /= np.linalg.norm(direction)
            ways = [_tracked(depth, self.spacing_mm, start, s * direction, length_mm / 2) for s in (1.0, -1.0)]
            path = np.concatenate([ways[1][::-1], ways[0][1:]])
            best = path if len(path) > len(best) else best
        if len(best) < _MIN_PATH_MM:
            raise PathError(f"No path of {_MIN_PATH_MM} mm could be followed in the {artery}'s fat; give the path.")
        return ndimage.gaussian_filter1d(best, 2.0, axis=0, mode="nearest")[:, ::-1] + self.corner_mm


def heart_fat(hu: np.ndarray, heart: np.ndarray, grid: Grid, room: np.ndarray | None = None) -> HeartFat:
    """Find the fat of the coronary grooves.

    hu, heart: [k, j, i], HU and mask, which may be generous. room: that part of the mask in which arteries may run; all
    of it when None.

    Grooves are what a closing of the muscle fills: fat between muscle and muscle of the heart, neither between heart
    and liver nor in the pads outside the pericardium. Raises PathError when the mask holds no muscle.
    """
    full = np.array(grid.spacing_mm[::-1])
    around = np.ceil(BESIDE_MM / full).astype(int)
    box = tuple(slice(max(n.min() - m, 0), n.max() + m + 1) for n, m in zip(np.nonzero(heart), around, strict=True))
    steps = np.maximum(1, np.rint(_STEP_MM / full)).astype(int)
    thin = tuple(slice(None, None, s) for s in steps)
    spacing = full * steps
    smooth = ndimage.gaussian_filter(hu[box].astype(np.float32), np.minimum(1.2 / full, 2.0))[thin]
    mask = (heart if room is None else heart & room)[box][thin]
    muscle = _muscle(_heart_tissue(smooth > -10, mask, spacing), spacing)
    if not muscle.any():
        raise PathError("The heart mask holds no muscle, and so no fat around it; check the mask, or give the path.")
    margin = np.ceil(GROOVE_MM / spacing).astype(int) + 1
    padded = np.pad(muscle, [(m, m) for m in margin])
    outside = ndimage.distance_transform_edt(~padded, sampling=spacing)
    closed = ndimage.distance_transform_edt(outside <= GROOVE_MM, sampling=spacing) > GROOVE_MM
    inner = tuple(slice(m, -m) for m in margin)
    fat = mask & (smooth > FAT_HU[0]) & (smooth < FAT_HU[1])
    inside = _depth(heart[box][thin], spacing)
    fat &= (inside > 3.0) & (inside < DEEPEST_MM)
    height, angle = _places(mask & closed[inner], spacing)
    corner = np.array([s.start for s in box])[::-1] * np.array(grid.spacing_mm) + np.array(grid.origin_mm)
    return HeartFat(fat & closed[inner], fat & (outside[inner] <= SURFACE_MM), inside, angle, height, spacing, corner)


def _heart_tissue(tissue: np.ndarray, mask: np.ndarray, spacing: np.ndarray) -> np.ndarray:
    """Soft tissue of the heart alone, where a generous mask also holds liver, effusion or wall of the chest.

    Without contrast no density tells these apart, but between heart and liver tissue is narrower than in either: a
    watershed of the tissue's depth, flooded from the middle of the mask's tissue and from what lies outside the mask.
    Great vessels leave the heart above its middle, so nothing floods from there.
    """
    inside = _depth(tissue & mask, spacing)
    if not inside.any():
        return np.zeros_like(tissue)
    middle = _largest(inside >= MIDDLE_SHARE * inside.max())
    other = tissue & (ndimage.distance_transform_edt(~mask, sampling=spacing) > BEYOND_MM)
    other[int(np.argwhere(middle)[:, 0].mean()) :] = False
    depth = ndimage.distance_transform_edt(np.pad(tissue, 1, mode="edge"), sampling=spacing)[1:-1, 1:-1, 1:-1]
    return (watershed(-depth, middle + 2 * other.astype(np.int8), mask=tissue) == 1) & mask


def _largest(mask: np.ndarray) -> np.ndarray:
    labels, _ = ndimage.label(mask)
    return labels == 1 + np.bincount(labels.ravel())[1:].argmax()


def _muscle(tissue: np.ndarray, spacing: np.ndarray) -> np.ndarray:
    """Blood and muscle of the heart without vessels and strands: the largest part left by an opening."""
    core = _depth(tissue, spacing) > 5.0
    if not core.any():
        return core
    core = _largest(core)
    return (ndimage.distance_transform_edt(~core, sampling=spacing) <= 6.0) & tissue


def _places(mask: np.ndarray, spacing: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Height share [k] and direction in degrees [k, j, i] of places about a heart, whose mask may not be empty."""
    area = mask.sum((1, 2))
    wide, floor = np.flatnonzero(area >= TOP_AREA_SHARE * area.max()), np.flatnonzero(area)[0]
    height = (np.arange(len(area)) - floor) / max(1, wide[-1] - floor)
    j, i = np.ogrid[: mask.shape[1], : mask.shape[2]]
    safe = np.maximum(area, 1)
    # Slices move little against each other; the smoothed middle does not jump where a vessel joins.
    middle_j, middle_i = (
        ndimage.gaussian_filter1d((mask * n).sum((1, 2)) / safe, 4.0 / spacing[0], mode="nearest")[:, None, None]
        for n in (j, i)
    )
    return height, np.degrees(np.arctan2((middle_j - j) * spacing[1], (i - middle_i) * spacing[2]))


def _depth(mask: np.ndarray, spacing: np.ndarray) -> np.ndarray:
    """Distance in mm to what is not in the mask, to which the array's outside belongs."""
    return ndimage.distance_transform_edt(np.pad(mask, 1), sampling=spacing)[1:-1, 1:-1, 1:-1]


def _tracked(
    depth: np.ndarray, spacing: np.ndarray, start: np.ndarray, direction: np.ndarray, length_mm: float
) -> np.ndarray:
    """Follow the deepest fat ahead, in 1 mm steps, from a point in mm [k, j, i]."""
    rays = np.random.default_rng(5).normal(0, 1, (400, 3))
    rays /= np.linalg.norm(rays, axis=1, keepdims=True)
    path = [start]
    for _ in range(math.floor(length_mm)):
        ahead = rays[rays @ direction > 0.85]
        places = np.concatenate([(path[-1] + step * ahead) / spacing for step in (1.0, 2.5)])
        values = ndimage.map_coordinates(depth, places.T, order=1, mode="constant").reshape(2, -1).mean(axis=0)
        if values.max() < 0.5:
            break
        direction = ahead[int(np.argmax(values + 2.0 * (ahead @ direction)))]
        path.append(path[-1] + direction)
    return np.array(path)
