"""Check of a collection's scan before it is added to a project, with a picture of it."""

from __future__ import annotations

import base64
from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk

from CACScoringLib.anatomy.heart_region import heart_region
from CACScoringLib.core.ct import CTScan
from CACScoringLib.core.errors import CTError
from CACScoringLib.core.labels import HEART_COLOUR, SITE_COLOURS, SITES
from CACScoringLib.io.reading import read_ct
from CACScoringLib.io.series_rule import is_soft_kernel
from CACScoringLib.quality.acquisition import examine, measure_blood, named_agent
from CACScoringLib.record.rules import ScoringRules
from CACScoringLib.report.pictures import patch_picture
from CACScoringLib.scoring.reader_labels import reader_labels

from ..project.project import NewScan

PICTURE_MM = 200.0
"""Width of the picture."""

EXPECTED = frozenset({"kvp-unknown", "thickness-unknown", "blood-unmeasured", "labels-empty", "reviewed-empty"})
"""Codes of warnings that are no doubt about a scan of a collection."""


@dataclass(frozen=True)
class ScanCheck:
    """Facts of a usable scan.

    Attributes:
        slices: Number of slices.
        spacing_mm: Distance of the slices.
        thickness_mm: Slice thickness.
        kernel: Convolution kernel.
        noise_hu: Noise in the heart; None if it was not measured.
        labelled_slices: Number of slices with a labelled lesion; None without labels.
        doubts: Codes of warnings.
        picture: JPEG in base64 of the slice with most labels, or through the heart's middle.
    """

    slices: int
    spacing_mm: float
    thickness_mm: float | None
    kernel: str | None
    noise_hu: float | None
    labelled_slices: int | None
    doubts: tuple[str, ...]
    picture: str


def check_scan(new_scan: NewScan) -> ScanCheck:
    """Read a scan with its annotations, and check contrast, heart, kernel and labels.

    Raises:
        CTError: The scan cannot be read, as with missing slices; it has contrast; or the labels are of another scan.
    """
    scan = read_ct(new_scan.ct, new_scan.series)
    doubts = {warning.code for warning in scan.warnings}
    heart, blood = None, None
    try:
        region = heart_region(scan)
    except CTError:
        doubts.add("heart-not-found")
    else:
        heart, blood = region.mask, measure_blood(scan, region.mask)
        doubts |= {warning.code for warning in region.warnings}
    if agent := named_agent(scan.acquisition):
        raise CTError(f"Its header names a contrast agent ({agent}).")
    if blood is not None and blood.enhanced:
        raise CTError(f"It has contrast: blood measures {blood.bright_hu:.0f} HU (unenhanced: 30 to 60).")
    doubts |= {warning.code for warning in examine(scan, blood)}
    if is_soft_kernel(scan.acquisition.kernel) is False:
        doubts.add("kernel-sharp")
    regions = new_scan.annotations().regions if new_scan.annotations else None
    if regions is not None:
        codes = {warning.code: warning.message for warning in reader_labels(regions, scan, ScoringRules()).warnings}
        if "labels-off-calcium" in codes:
            raise CTError(f"Its labels are of another scan. {codes['labels-off-calcium']}")
    labels = None if regions is None else sitk.GetArrayFromImage(regions)
    return ScanCheck(
        slices=len(scan.hu),
        spacing_mm=round(scan.slice_spacing_mm, 3),
        thickness_mm=scan.acquisition.slice_thickness_mm,
        kernel=scan.acquisition.kernel,
        noise_hu=None if blood is None else round(blood.noise_hu, 1),
        labelled_slices=None if labels is None else int(labels.any((1, 2)).sum()),
        doubts=tuple(sorted(doubts - EXPECTED)),
        picture=base64.b64encode(_picture(scan, heart, labels)).decode("ascii"),
    )


def _picture(scan: CTScan, heart: np.ndarray | None, labels: np.ndarray | None) -> bytes:
    """Draw the slice with most labels, else through the middle of the heart, else of the scan."""
    mask = np.zeros(scan.hu.shape, bool) if heart is None else heart
    places = np.nonzero(mask) if mask.any() else [(0, size - 1) for size in scan.hu.shape]
    k, j, i = ((np.min(place) + np.max(place)) / 2 for place in places)
    outlines = [(mask, HEART_COLOUR)]
    if labels is not None and labels.any():
        k = int((labels > 0).sum((1, 2)).argmax())
        outlines += [(labels == site, SITE_COLOURS[site]) for site in SITES if (labels[k] == site).any()]
    return patch_picture(scan, (k, j, i), outlines, PICTURE_MM)
