"""Images of a scan as the page draws them: slices as numbers, and volumes of the heart for three planes and 3-D."""

from __future__ import annotations

import math
import tempfile
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from CACScoringLib.core.labels import Artery
from CACScoringLib.report.pictures import HEART_COLOUR, SITE_COLOURS, TERRITORY_SITES
from CACScoringLib.review.folder import ReviewFolder
from CACScoringLib.review.scan_review import ScanReview

MARGIN_MM = 15.0
"""Around the heart, in volumes."""

MOST_VOXELS = 4_000_000
"""Of a volume: drawn by a processor alone, a larger one takes the page many seconds to load."""

IMAGES = ("ct", "healthy", "map", "heart", "territories")
LABELS = ("heart", "territories")


def label_colours() -> dict[str, dict[int, str]]:
    """Of the outlines of each of LABELS, by label, as in the report's pictures."""
    territories = {n: f"rgb{SITE_COLOURS[site]}" for n, site in TERRITORY_SITES.items()}
    return {"heart": {1: f"rgb{HEART_COLOUR}"}, "territories": territories}


class ScanImages:
    """The images of a scan, each read when it is first asked for. state: of its review."""

    def __init__(self, state: ReviewFolder) -> None:
        self._state = state
        self._known: dict[str, np.ndarray | None] = {}
        self._box: tuple[slice, ...] | None = None

    def about(self) -> dict:
        """Names of the images that there are; matrices from voxels (i, j, k, 1) to millimetres, RAS, and back; and the
        heart's place (i, j) in slices, with a margin."""
        image = self._state.scan.image
        axes = np.array(image.GetDirection()).reshape(3, 3) * image.GetSpacing()
        to_lps = np.vstack([np.column_stack([axes, image.GetOrigin()]), (0, 0, 0, 1)])
        to_ras = np.diag([-1.0, -1.0, 1.0, 1.0]) @ to_lps
        present = [name for name in IMAGES if self._is_there(name)]
        ends = [(at.start, at.stop) for at in self._heart_box()[:0:-1]]
        return {
            "images": present,
            "to_ras": to_ras.tolist(),
            "from_ras": np.linalg.inv(to_ras).tolist(),
            "heart_box": [list(end) for end in zip(*ends, strict=True)],
        }

    def slice_bytes(self, name: str, k: int) -> bytes | None:
        """A slice, int16 little endian, row by row; of labels uint8. None where there is no such image."""
        image = self._image(name)
        return None if image is None else np.ascontiguousarray(image[k]).tobytes()

    def volume(self, name: str) -> bytes | None:
        """The part with the heart, reduced to MOST_VOXELS, as NIfTI. None where there is no such image."""
        image = self._image(name)
        return None if image is None else self._part(image, name in LABELS)

    def lesions(self, review: ScanReview, method: str) -> bytes:
        """The labels of all lesions, in the part and the grid of `volume`."""
        flat, ids = review.review(method).voxels()
        site = np.zeros(int(ids.max(initial=0)) + 1, np.uint8)
        for lesion in review.lesions(method):
            site[lesion.id] = lesion.artery
        labels = np.zeros(self._state.scan.image.GetSize()[::-1], np.uint8)
        labels.reshape(-1)[flat] = np.where(site[ids] > 0, site[ids], np.uint8(Artery.UNASSIGNED))
        return self._part(labels, True)

    def _is_there(self, name: str) -> bool:
        if name == "territories":
            return self._state.territories() is not None
        return name in ("ct", "heart") or ("decomposition" in self._state.methods and self._has_map_image(name))

    def _has_map_image(self, name: str) -> bool:
        return name == "map" or self._state.has_healthy

    def _image(self, name: str) -> np.ndarray | None:
        if name not in self._known:
            self._known[name] = self._read(name)
        return self._known[name]

    def _read(self, name: str) -> np.ndarray | None:
        state = self._state
        if name == "ct":
            return _whole_hu(state.scan.hu)
        if name == "heart":
            image = state.heart
        elif name == "territories":
            image = state.territories()
        elif "decomposition" not in state.methods:
            return None
        else:
            image = state.calcium_map() if name == "map" else state.healthy()
        if image is None:
            return None
        # A copy: the image is gone when this returns, and a view of it would be of freed memory.
        values = sitk.GetArrayFromImage(image)
        return values.astype(np.uint8, copy=False) if name in LABELS else _whole_hu(values)

    def _part(self, image: np.ndarray, labels: bool) -> bytes:
        box = self._heart_box()
        size = [at.stop - at.start for at in box]
        step = max(1, math.ceil((math.prod(size) / MOST_VOXELS) ** (1 / 3) - 1e-9))
        part = image[tuple(slice(at.start, at.stop, step) for at in box)]
        if labels and step > 1:
            # The highest label of each block, so that no lesion gets lost.
            shape = [n * step for n in part.shape]
            padded = np.zeros(shape, np.uint8)
            inner = image[box]
            padded[tuple(slice(0, n) for n in inner.shape)] = inner
            blocks = padded.reshape([n for pair in zip(part.shape, [step] * 3, strict=True) for n in pair])
            part = blocks.max((1, 3, 5))
        made, grid = sitk.GetImageFromArray(np.ascontiguousarray(part)), self._state.scan.image
        made.SetOrigin(grid.TransformIndexToPhysicalPoint([at.start for at in box[::-1]]))
        made.SetSpacing([n * step for n in grid.GetSpacing()])
        made.SetDirection(grid.GetDirection())
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "volume.nii"
            sitk.WriteImage(made, str(file))
            return file.read_bytes()

    def _heart_box(self) -> tuple[slice, ...]:
        if self._box is None:
            heart = sitk.GetArrayViewFromImage(self._state.heart)
            spacing = self._state.scan.image.GetSpacing()[::-1]
            outline = heart.max(0)  # few passes over the volume, which is large
            box = []
            for axis, filled in enumerate((heart.reshape(len(heart), -1).max(1), outline.max(1), outline.max(0))):
                at, size = np.flatnonzero(filled), heart.shape[axis]
                margin = round(MARGIN_MM / spacing[axis])
                first, last = (int(at[0]), int(at[-1])) if at.size else (0, size)
                box.append(slice(max(0, first - margin), min(size, last + 1 + margin)))
            self._box = tuple(box)
        return self._box


def _whole_hu(values: np.ndarray) -> np.ndarray:
    """HU as int16, the same array where they are."""
    if values.dtype == np.int16:
        return values
    limits = np.iinfo(np.int16)
    return np.clip(np.rint(values), limits.min, limits.max).astype(np.int16)
