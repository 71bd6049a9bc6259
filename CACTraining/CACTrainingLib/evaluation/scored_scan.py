"""A scan with its results, to be compared with its truth or a reader's reference."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from CACScoringLib.core.ct import CTScan, same_grid
from CACScoringLib.core.errors import CTError, MaskError
from CACScoringLib.core.files import LAST_FILE
from CACScoringLib.io.reading import read_ct, read_mask
from CACScoringLib.record.score_record import ScoreRecord, read_result
from CACScoringLib.record.scores import Lesion, MethodScore
from CACScoringLib.scans.source import ScanSource
from CACScoringLib.scoring.lesions import connected_voxels

SCORED_METHODS = {"automatic": ("threshold", "lesions.nii.gz"), "map": ("decomposition", "map_lesions.nii.gz")}
"""Key in `scores.json` and image of the lesions, by key of `evaluation.parts.METHODS`; the clinical method first."""

SAME_PLACE_MM = 0.05
"""Tolerance in mm between a lesion's centroid in `scores.json`, which is rounded, and that of its voxels."""


@dataclass(frozen=True)
class PlacedLesion:
    """A lesion of a method.

    Attributes:
        record: The lesion in `scores.json`.
        flat: Flat indices of its voxels into [k, j, i].
    """

    record: Lesion
    flat: np.ndarray


@dataclass(frozen=True)
class ScoredScan:
    """A scan and its results, read on demand. Arrays are [k, j, i] on the CT's grid.

    Attributes:
        scan: The scan.
        folder: Folder of its results.
    """

    scan: ScanSource
    folder: Path

    @cached_property
    def ct(self) -> CTScan:
        return read_ct(self.scan.ct, self.scan.series)

    @cached_property
    def record(self) -> ScoreRecord:
        return read_result(self.folder)

    @cached_property
    def methods(self) -> dict[str, MethodScore]:
        """Scores by key of SCORED_METHODS. Raises CTError if a reader changed them."""
        names = {key: name for key, (name, _) in SCORED_METHODS.items() if name in self.record.methods}
        methods = {key: self.record.methods[name] for key, name in names.items()}
        if any(method.reviewed for method in methods.values()):
            raise CTError("It was scored with a reader's lesions. Score it without them.")
        return methods

    def image(self, path: Path) -> np.ndarray:
        """Read an image. Raises CTError if it cannot be read or is not on the CT's grid."""
        image = read_mask(path)
        if image.GetDirection() != self.ct.image.GetDirection():
            image = sitk.DICOMOrient(image, "LPS")
        if not same_grid(image, self.ct.image):
            raise MaskError(f"{path} is not on the grid of its CT. Score the scan again.")
        return sitk.GetArrayFromImage(image)

    def labels(self, key: str) -> np.ndarray:
        """Return the labels that a method wrote, of counted and of excluded lesions."""
        return self.image(self.folder / SCORED_METHODS[key][1])

    def lesions(self, key: str) -> list[PlacedLesion]:
        """Return a method's lesions with their voxels. Raises CTError if its files do not fit each other."""
        method = self.methods[key]
        voxels = components(method.counted_labels(self.labels(key)))
        centroids = np.array([self.ras_mm(part).mean(0) for part in voxels]).reshape(-1, 3)
        lesions = []
        for lesion in method.lesions:
            distances = np.linalg.norm(centroids - np.array(lesion.centroid_ras_mm), axis=1)
            if not len(distances) or distances.min() > SAME_PLACE_MM:
                raise CTError(f"{SCORED_METHODS[key][1]} does not fit {LAST_FILE} beside it. Score the scan again.")
            lesions.append(PlacedLesion(lesion, voxels[int(distances.argmin())]))
        return lesions

    def ras_mm(self, flat: np.ndarray) -> np.ndarray:
        """Return the centres of voxels in RAS mm, [n, 3]."""
        image = self.ct.image
        k, j, i = np.unravel_index(flat, self.ct.hu.shape)
        matrix = np.array(image.GetDirection()).reshape(3, 3) * image.GetSpacing()
        return (np.stack([i, j, k], axis=1) @ matrix.T + image.GetOrigin()) * (-1, -1, 1)


def components(labels: np.ndarray) -> list[np.ndarray]:
    """Return the flat indices of the voxels of each connected component of one label."""
    flat = np.flatnonzero(labels)
    if not len(flat):
        return []
    part = connected_voxels(flat, labels.reshape(-1)[flat], labels.shape)
    ends = np.cumsum(np.bincount(part))
    return np.split(flat[np.argsort(part, kind="stable")], ends[:-1])
