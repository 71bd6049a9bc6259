"""Whole scans with all that is known of their calcium, for networks of one's own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from CACScoringLib.core.ct import CTScan, mask_on_scan_grid
from CACScoringLib.core.voxels import voxels_of
from CACScoringLib.io.reading import read_ct, read_mask

from ..project.training_scan import TrainingScan
from ..references.reference import ReferenceScan
from .scan_samples import image_beside
from .scan_table import TableScan


class ScanDataset(Dataset[dict[str, Any]]):
    """Scans, read when asked for, as dictionaries that MONAI's transforms take.

    Every item has

    - `name` and `patient`;
    - `image`: HU, float32 [1, k, j, i]; axes run superior, posterior, left;
    - `affine`: 4 × 4 matrix from the indices (k, j, i) to mm towards right, anterior and superior,

    and, where the scan has it, on the same grid,

    - `label`: a reader's calcium, `Artery` and `NonCoronary` values, uint8 [1, k, j, i];
    - `map`: true coronary calcium in mg/cm³, float32 [1, k, j, i];
    - `heart`: mask, uint8 [1, k, j, i].

    Args:
        scans: Scans of `read_reference`, of a table (`read_cts`), or of cohorts and projects (`find_scans`).

    Raises:
        CTError: A scan, when it is asked for, cannot be read, or its labels do not fit it.
    """

    def __init__(self, scans: Sequence[ReferenceScan | TrainingScan | TableScan]) -> None:
        self.scans = tuple(scans)

    def __len__(self) -> int:
        return len(self.scans)

    def __getitem__(self, index: int) -> dict[str, Any]:
        scan = self.scans[index]
        ct = read_ct(scan.ct, scan.series)
        volumes: dict[str, np.ndarray] = {"image": ct.hu.astype(np.float32)}
        if isinstance(scan, ReferenceScan) and scan.outlines is not None:
            volumes["label"] = np.array(voxels_of(scan.outlines(ct)))
        if isinstance(scan, TrainingScan) and scan.calcium_map is not None:
            volumes["map"] = voxels_of(image_beside(ct, scan.calcium_map)).astype(np.float32)
        if scan.heart is not None:
            volumes["heart"] = mask_on_scan_grid(read_mask(scan.heart), ct, "heart mask")[0]
        tensors = {name: torch.from_numpy(volume)[None] for name, volume in volumes.items()}
        return {"name": scan.name, "patient": scan.patient, "affine": affine_of(ct), **tensors}


def affine_of(ct: CTScan) -> np.ndarray:
    """Return the matrix from indices (k, j, i) of `CTScan.hu` to mm towards right, anterior and superior."""
    image, affine = ct.image, np.eye(4)
    directions = np.array(image.GetDirection()).reshape(3, 3) * image.GetSpacing()
    affine[:3] = np.column_stack([directions[:, ::-1], image.GetOrigin()])
    affine[:2] *= -1
    return affine
