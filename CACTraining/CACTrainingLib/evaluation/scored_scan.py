"""A scan with its results, to be compared with its truth or a reader's reference."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from CACScoringLib.core.ct import CTError, CTScan, MaskError, same_grid
from CACScoringLib.io.reading import read_ct, read_mask
from CACScoringLib.record.reading import read_result
from CACScoringLib.record.score_record import MethodRecord, ScoreRecord
from CACScoringLib.scans.source import ScanSource

SCORED_METHODS = {"automatic": ("threshold", "lesions.nii.gz"), "map": ("decomposition", "map_lesions.nii.gz")}
"""Key in `scores.json` and image of the lesions, by key of `evaluation.parts.METHODS`; the clinical method first."""


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
    def methods(self) -> dict[str, MethodRecord]:
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
