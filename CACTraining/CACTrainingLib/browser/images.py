"""Prepare a scan's images for the page: slices as numbers, and volumes of the heart for three planes and 3-D."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable
from functools import cached_property
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from CACScoringLib.core.ct import CTScan
from CACScoringLib.core.grid import bounding_box
from CACScoringLib.core.labels import HEART_COLOUR, SITE_COLOURS
from CACScoringLib.core.voxels import voxels_of
from CACScoringLib.io.image_files import read_image
from CACScoringLib.record.score_record import read_result
from CACScoringLib.report.pictures import TERRITORY_SITES
from CACScoringLib.review.scan_review import ScanReview
from CACScoringLib.review.state import ReviewFolder

MARGIN_MM = 15.0
"""Margin around the heart in volumes."""

MAX_VOXELS = 4_000_000
"""Largest number of voxels of a volume; without a graphics card, larger ones load for many seconds."""

LABELS = ("heart", "territories")


def label_colours() -> dict[str, dict[int, str]]:
    """Return the colours of the outlines of LABELS, by label, as in the report's pictures."""
    territories = {n: f"rgb{SITE_COLOURS[site]}" for n, site in TERRITORY_SITES.items()}
    return {"heart": {1: f"rgb{HEART_COLOUR}"}, "territories": territories}


def first_view(scan: CTScan, folder: Path, is_blind: bool) -> dict[str, object]:
    """Return the facts from which the page draws the CT before the review is open. folder: Folder of the results.

    `first_slice` holds most of the first lesion; it is the middle slice without lesions, or for a blind reader. Raises
    CTError.
    """
    method, size = read_result(folder).methods["threshold"], scan.image.GetSize()
    lesions = () if is_blind else (*method.lesions, *method.left_out)
    parts = min(lesions, key=lambda lesion: lesion.id).components if lesions else ()
    return {
        "images": ["ct"],
        "size": list(size),
        "spacing_mm": list(scan.image.GetSpacing()),
        "heart_box": _in_slices(_heart_box(voxels_of(read_image(folder / "heart.nii.gz")) != 0, scan)),
        "first_slice": max(parts, key=lambda part: part.voxels).slice if parts else size[2] // 2,
    }


def slice_bytes(image: sitk.Image, k: int, labels: bool = False) -> bytes | None:
    """Return a slice row by row, int16 little endian or uint8 for labels; None if there is no such slice."""
    values = voxels_of(image)
    return _as_page_values(values[k], labels).tobytes() if k < len(values) else None


class ScanImages:
    """Images of a scan, each read on first use. state: State of its review."""

    def __init__(self, state: ReviewFolder) -> None:
        self._state = state
        self._images: dict[str, sitk.Image] = {}
        self._sources: dict[str, Callable[[], sitk.Image]] = {
            "ct": lambda: state.scan.image,
            "heart": lambda: state.scan.grid.image(state.heart),
        }
        if (territories := state.territories()) is not None:
            self._sources["territories"] = lambda: state.scan.grid.image(territories)
        if "decomposition" in state.methods:
            self._sources["map"] = state.whole_map
            self._sources["healthy"] = state.healthy

    def about(self) -> dict[str, object]:
        """Return the names of the images, the matrices from voxels (i, j, k, 1) to mm, RAS, and back, and the corners
        (i, j) of the heart with a margin."""
        image = self._state.scan.image
        axes = np.array(image.GetDirection()).reshape(3, 3) * image.GetSpacing()
        to_lps = np.vstack([np.column_stack([axes, image.GetOrigin()]), (0, 0, 0, 1)])
        to_ras = np.diag([-1.0, -1.0, 1.0, 1.0]) @ to_lps
        return {
            "images": list(self._sources),
            "to_ras": to_ras.tolist(),
            "from_ras": np.linalg.inv(to_ras).tolist(),
            "heart_box": _in_slices(self._heart_box),
        }

    def slice_bytes(self, name: str, k: int) -> bytes | None:
        """Return a slice as from the function `slice_bytes`; None also if there is no such image."""
        image = self._image(name)
        return None if image is None else slice_bytes(image, k, name in LABELS)

    def volume(self, name: str) -> bytes | None:
        """Return the region of the heart, reduced to MAX_VOXELS, as NIfTI; None if there is no such image."""
        image = self._image(name)
        return None if image is None else self._part(voxels_of(image), name in LABELS)

    def lesions(self, review: ScanReview, method: str) -> bytes | None:
        """Return the labels of all lesions on the grid of `volume`; None if there is no such method."""
        table = review.result(method).table if method in review.methods else None
        return None if table is None else self._part(table.site_map(), True)

    def _image(self, name: str) -> sitk.Image | None:
        if name in self._sources and name not in self._images:
            self._images[name] = self._sources[name]()
        return self._images.get(name)

    def _part(self, values: np.ndarray, labels: bool) -> bytes:
        box = self._heart_box
        part = values[box]
        step = max(1, math.ceil((part.size / MAX_VOXELS) ** (1 / 3) - 1e-9))
        if labels:  # the highest label of each block, so that no lesion is lost
            padded = np.pad(part, [(0, -n % step) for n in part.shape])
            part = padded.reshape([n for size in padded.shape for n in (size // step, step)]).max((1, 3, 5))
        else:
            part = part[::step, ::step, ::step]
        volume, grid = sitk.GetImageFromArray(_as_page_values(part, labels)), self._state.scan.image
        volume.SetOrigin(grid.TransformIndexToPhysicalPoint([at.start for at in box[::-1]]))
        volume.SetSpacing([n * step for n in grid.GetSpacing()])
        volume.SetDirection(grid.GetDirection())
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "volume.nii"
            sitk.WriteImage(volume, str(file))
            return file.read_bytes()

    @cached_property
    def _heart_box(self) -> tuple[slice, ...]:
        return _heart_box(self._state.heart, self._state.scan)


def _heart_box(heart: np.ndarray, scan: CTScan) -> tuple[slice, ...]:
    """Return the box [k, j, i] of the heart with a margin; the whole scan without a heart."""
    if not heart.any():
        return tuple(slice(0, n) for n in heart.shape)
    margins = [round(MARGIN_MM / mm) for mm in scan.image.GetSpacing()[::-1]]
    ends = zip(bounding_box(heart), margins, heart.shape, strict=True)
    return tuple(slice(max(0, part.start - margin), min(size, part.stop + margin)) for part, margin, size in ends)


def _in_slices(box: tuple[slice, ...]) -> list[list[int]]:
    """Return the corners (i, j) of a box in slices."""
    rows, columns = box[1:]
    return [[columns.start, rows.start], [columns.stop, rows.stop]]


def _as_page_values(values: np.ndarray, labels: bool) -> np.ndarray:
    """Convert labels to uint8 and HU to int16, without a copy if possible."""
    if labels:
        return values.astype(np.uint8, copy=False)
    if values.dtype == np.int16:
        return values
    limits = np.iinfo(np.int16)
    return np.clip(np.rint(values), limits.min, limits.max).astype(np.int16)
