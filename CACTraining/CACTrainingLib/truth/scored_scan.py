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
from CACScoringLib.scoring.parts import connected_voxels

SCORED_METHODS = {"automatic": ("threshold", "lesions.nii.gz"), "map": ("decomposition", "map_lesions.nii.gz")}
"""Key in `scores.json` and image of the lesions, by key of `evaluation.parts.METHODS`; the clinical method first."""

CORONARY_MG_CM3 = 10.0
"""Density of coronary calcium in a voxel of a digital patient that makes a lesion which holds it a true one."""

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

    def written_labels(self, key: str) -> np.ndarray:
        """Return the labels that a method wrote, of counted and of excluded lesions."""
        return self.image(self.folder / SCORED_METHODS[key][1])

    @cached_property
    def _listed(self) -> dict[str, list[PlacedLesion]]:
        return {key: self._placed(key) for key in self.methods}

    def listed(self, key: str) -> list[PlacedLesion]:
        """Return the listed lesions of a method with their voxels, those that count first. Raises CTError."""
        return self._listed[key]

    def counted(self, key: str) -> list[PlacedLesion]:
        """Return the lesions of a method that count. Raises CTError."""
        return self._listed[key][: len(self.methods[key].lesions)]

    def _placed(self, key: str) -> list[PlacedLesion]:
        """Return the listed lesions of a method with their voxels, those that count first.

        Those left out share one label, so touching ones of two arteries are one component; each of its voxels goes to
        the nearest lesion. Raises CTError if a lesion that counts has no voxels.
        """
        method, labels = self.methods[key], self.written_labels(key)
        listed, count = method.listed, len(method.lesions)
        counted = method.counted_labels(labels).reshape(-1)
        centroids = np.array([lesion.centroid_ras_mm for lesion in listed]).reshape(-1, 3)
        voxels = [np.zeros(0, np.intp) for _ in listed]
        for flat in components(labels):
            places = self.ras_mm(flat)
            distances = np.linalg.norm(centroids - places.mean(0), axis=1)
            if distances.min(initial=np.inf) <= SAME_PLACE_MM:
                voxels[int(distances.argmin())] = flat
            elif not counted[flat[0]] and len(listed) > count:
                nearest = count + np.linalg.norm(places[:, None] - centroids[count:], axis=2).argmin(1)
                for n in np.unique(nearest):
                    voxels[n] = np.union1d(voxels[n], flat[nearest == n])
        if not all(len(flat) for flat in voxels[:count]):
            raise CTError(f"{SCORED_METHODS[key][1]} does not fit {LAST_FILE} beside it. Score the scan again.")
        return list(map(PlacedLesion, listed, voxels))

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
