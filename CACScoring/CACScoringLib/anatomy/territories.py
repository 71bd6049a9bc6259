"""To which artery, valve or vessel each place in and around the heart of a scan belongs, as probabilities."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import SimpleITK as sitk
from scipy import ndimage

from ..core.ct import ScanWarning
from ..core.labels import TERRITORIES
from ..models.preprocessing import Grid, from_grid, on_grid
from .chest import largest_part, pasted

_OUTSIDE, _OTHER, _DESCENDING = (TERRITORIES.index(name) for name in ("outside", "other", "descending aorta"))


@dataclass(frozen=True)
class Territories:
    """Probabilities on voxels of about 3 mm.

    grid: where they lie. heart: float32 [k, j, i]. probability: float32 [11, k, j, i], of TERRITORIES; what was not
    looked at is outside. source: the network's name.
    """

    grid: Grid
    heart: np.ndarray
    probability: np.ndarray
    source: str
    warnings: tuple[ScanWarning, ...] = ()

    def labels(self, image: sitk.Image) -> sitk.Image:
        """The likeliest territory of every voxel of the scan, uint8 on its grid; ties go to the lower label."""
        near, grid, box = self._part(image, self.probability[0] < 0.5)
        label = np.zeros(near.GetSize()[::-1], np.uint8)
        best = np.zeros(label.shape, np.float32)
        for number, probability in enumerate(self.probability):
            part = from_grid(probability[box], grid, near)
            better = part > best
            best[better], label[better] = part[better], number
        return _pasted(label, near, image)

    def heart_mask(self, image: sitk.Image, threshold: float = 0.5) -> sitk.Image:
        """The heart, uint8 0/1 on the scan's grid: the largest connected part."""
        heart = ndimage.binary_dilation(largest_part(self.heart >= threshold))
        near, grid, box = self._part(image, heart)
        kept = np.where(heart, self.heart, np.float32(0))[box]
        inside = from_grid(kept, grid, near) >= threshold + 1e-3
        return _pasted(inside, near, image)

    def at(self, flat: np.ndarray, shape: tuple[int, int, int]) -> np.ndarray:
        """Probabilities float32 [n, 11] at voxels of the scan. flat: indices into its array, whose shape is [k, j, i].

        Linear between the grid's voxels; beyond the middles of the outermost their values go on.
        """
        places = np.stack(np.unravel_index(flat, shape)).astype(np.float32)
        first, step = (np.array(part[::-1], np.float32)[:, None] for part in (self.grid.first, self.grid.step))
        places = (places - first) / step
        found = [ndimage.map_coordinates(p, places, order=1, mode="nearest") for p in self.probability]
        return np.stack(found, axis=1)

    def with_descending_aorta(self, tube: sitk.Image) -> Territories:
        """With the descending aorta also where it was seen to run, as the network's may lie some mm too far back.

        Arteries, valves and other vessels keep their places.

        Args:
            tube: uint8 0/1 on the scan's grid.
        """
        share = on_grid(tube, self.grid, 0.0) * np.isin(self.probability.argmax(0), (_OUTSIDE, _OTHER))
        probability = self.probability * (1 - share)
        probability[_DESCENDING] += share
        return replace(self, probability=probability)

    def _part(self, image: sitk.Image, wanted: np.ndarray) -> tuple[sitk.Image, Grid, tuple[slice, ...]]:
        """The part of the scan that holds what is wanted, the grid's part there, and its box [k, j, i]."""
        places = [np.nonzero(counts_along(wanted, axis))[0] for axis in range(3)]
        box = tuple(slice(max(0, int(p[0]) - 1), int(p[-1]) + 2) for p in places)
        cut, first = [], []
        for part, count, start, step in zip(box[::-1], image.GetSize(), self.grid.first, self.grid.step, strict=True):
            low = max(0, math.floor(start + (part.start - 1) * step))
            cut.append(slice(low, min(count, math.ceil(start + (part.stop + 1) * step) + 1)))
            first.append(start + part.start * step - low)
        size = tuple(self.heart[box].shape[::-1])
        return image[tuple(cut)], Grid(tuple(first), self.grid.step, size), box


def counts_along(mask: np.ndarray, axis: int) -> np.ndarray:
    """Voxels of a mask in each plane across an axis; all 1 for an empty mask."""
    counts = mask.sum(tuple(n for n in range(3) if n != axis))
    return counts if counts.any() else counts + 1


def _pasted(array: np.ndarray, near: sitk.Image, image: sitk.Image) -> sitk.Image:
    """An array [k, j, i] on a part of a scan's grid as uint8 on the whole grid, 0 elsewhere."""
    part = sitk.GetImageFromArray(array.astype(np.uint8))
    part.CopyInformation(near)
    return pasted(part, image)
