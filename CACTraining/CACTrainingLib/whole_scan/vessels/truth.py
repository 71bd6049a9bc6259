"""Where coronary calcium truly lies in what a network for vessel scores sees; known of digital patients alone.

Kept of a scan are only the voxels of the input that hold calcium: "calcium_at", int32 [m], their places in the
flattened input; "calcium_artery", uint8 [m], numbers of ARTERIES; "calcium", float16 [m], how much it adds there, in
the input's unit.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import SimpleITK as sitk
from scipy import spatial

from CACScoringLib.anatomy.heart_region import HeartRegion
from CACScoringLib.core.ct import CTScan
from CACScoringLib.whole_scan.vessel_input import vessel_grid

from ...data.scan_samples import image_beside
from ...project.training_scan import read_truth
from ..scan_table import ARTERIES

if TYPE_CHECKING:
    from CACScoringLib.networks.vessels import VesselNetConfig

MAP, REGIONS, TRUTH = "calcium_map.nii.gz", "regions.nii.gz", "truth.json"
"""Beside a digital patient's CT: calcium in mg/cm³, the arteries that it is of (1 and on by ARTERIES), and its HU."""

LEAST_HU = 5.0
"""Less calcium is not kept: it is below noise."""


def true_calcium(scan: CTScan, region: HeartRegion, config: VesselNetConfig) -> dict[str, np.ndarray]:
    """What is kept of a scan, by name; empty where the truth is not known, or the field is not that of the heart.

    Raises DataError where the truth cannot be read, or is on another grid than the scan.
    """
    files = [] if scan.source is None else [scan.source.parent / name for name in (MAP, REGIONS, TRUTH)]
    if config.field != "heart" or not files or not all(file.is_file() for file in files):
        return {}
    calcium, regions = (image_beside(scan, file) for file in files[:2])
    truth = read_truth(files[2])
    image, heart = (sitk.DICOMOrient(one, "LPS") for one in (scan.image, region.mask))
    grid = vessel_grid(image, heart, config)
    hu = grid.resample(calcium, 0.0) * float(truth["calcium_hu_per_mg_cm3"])
    labels = [grid.resample(regions == n + 1, 0.0) for n in range(len(ARTERIES))]
    at = np.nonzero(hu >= LEAST_HU)
    return {
        "calcium_at": np.ravel_multi_index(at, hu.shape).astype(np.int32),
        "calcium_artery": _nearest(np.array(labels), at, config, truth.get("mass_mg_by_artery", {})).astype(np.uint8),
        "calcium": (hu[at] / (config.high_hu - config.low_hu)).astype(np.float16),
    }


def _nearest(labels: np.ndarray, at: tuple[np.ndarray, ...], config: VesselNetConfig, masses: Mapping) -> np.ndarray:
    """Calcium spreads beyond its region, and a faint one has none: the artery of the nearest region, else the one that
    has most calcium. labels: share of each artery's regions in each voxel. masses: of calcium, by artery."""
    spacing = np.array([config.slice_mm, *[config.field_mm / config.size] * 2])
    labelled = np.nonzero(labels.max(0) > 0)
    if not len(labelled[0]):
        most = max(ARTERIES, key=lambda artery: masses.get(artery, 0.0))
        return np.full(len(at[0]), ARTERIES.index(most))
    _, nearest = spatial.cKDTree(np.transpose(labelled) * spacing).query(np.transpose(at) * spacing)
    return labels[(slice(None), *labelled)].argmax(0)[nearest]
