"""Label maps and segmentations of a scan on its grid: a reader's lesions, and the heart.

A label map (NIfTI, NRRD, MetaImage) has CAC's own labels: 1 LM, 2 LAD, 3 LCX, 4 RCA, 5 other coronary artery, 8 aortic
valve, 9 mitral annulus, 10 thoracic aorta, 11 other calcium outside the coronary arteries (`core.labels`); 6, a
candidate that CAC left out, is no calcium beside lesions of arteries, and alone it was not reviewed. A
segmentation saved by 3D Slicer (.seg.nrrd) has segments with names of these (`site_called`), not-coronary (left out)
and heart. All coronary calcium has to be labelled: an empty map means that there is none. A label map of the heart is
recognised by its file's name.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from CACScoringLib.core.ct import CTScan, mask_on_scan_grid
from CACScoringLib.core.errors import MaskError
from CACScoringLib.core.labels import NOT_CORONARY, SITES, Artery, is_not_coronary, label_called
from CACScoringLib.core.voxels import voxels_of
from CACScoringLib.exchange.belonging import check_image_file
from CACScoringLib.io.reading import label_map, read_ct, read_mask, segment_names
from CACScoringLib.scans.folder import SEGMENTATION_ENDING

from ..project.annotation_files import ImportedAnnotations
from .reference import ReferenceScan

ANNOTATOR = "segmentation"
HEART_SEGMENT = "heart"
LESIONS, HEART = "-lesions", "-heart"
"""Endings of a segmentation's name after the scan's name."""

MEANINGS = {int(site): site.full_name for site in SITES}
"""Labels of lesions with their names."""

COVERED_VOXELS = 1.0
"""Largest overhang of a scan over a label map that covers it, in the map's voxels; grids of one scan end within one."""


def segmentation_annotations(
    ct: Path, series: str | None, lesions: Path | None = None, heart: Path | None = None
) -> ImportedAnnotations:
    """Read segmentations as annotations on the scan's grid, resampled by nearest neighbour if necessary.

    As in masks for scoring, the reader marked all coronary calcium: slices without a region are labelled not visible.
    Calcium outside the coronary arteries is left out.

    Args:
        ct: The scan.
        series: Series of a DICOM folder, as in `read_ct`.
        lesions: Label map of lesions, or .seg.nrrd, which may hold the heart too.
        heart: Label map of the heart, any value but 0, or .seg.nrrd with a segment heart.

    Raises:
        MaskError: A label is no site of calcium, lies outside the scan, or the label map does not cover the scan.
        CTError: A file cannot be read.
    """
    imported = ImportedAnnotations(ANNOTATOR, {})
    names = [] if lesions is None else segment_names(read_mask(lesions))
    hearts = [name for name in names if _is_heart(name)]
    if lesions is not None and not (hearts and all(_is_heart(name) or is_not_coronary(name) for name in names)):
        scan = ReferenceScan("", "", ct, series, outlines=partial(lesions_on_grid, lesions))
        imported = scan.annotations(ANNOTATOR)
    heart = heart or (lesions if hearts else None)
    return imported if heart is None else replace(imported, heart=_heart(heart, read_ct(ct, series)))


def lesions_on_grid(path: Path, scan: CTScan) -> sitk.Image:
    """Read lesions as `Site` labels on the grid of their scan. Raises CTError if they do not fit it."""
    return labels_on_grid(read_lesions(path), scan, path, cropped=path.name.lower().endswith(SEGMENTATION_ENDING))


def read_lesions(path: Path) -> sitk.Image:
    """Read lesions as `Site` labels. Raises CTError if the file cannot be read or holds an unknown label or segment."""
    image = read_mask(path)
    if segment_names(image):
        image = label_map(image, lambda name: 0 if _is_heart(name) else label_called(name), path.name)
    else:
        check_labels(image, MEANINGS, path)
    labels = set(np.unique(voxels_of(image)).tolist())
    if labels & {*Artery} == {Artery.UNASSIGNED}:
        raise MaskError(f"{path.name} holds candidates that nobody has reviewed (label 6). Assign or remove them.")
    changes = {label: 0 for label in (NOT_CORONARY, int(Artery.UNASSIGNED)) if label in labels}
    return sitk.ChangeLabel(sitk.Cast(image, sitk.sitkUInt8), changes) if changes else image


def check_labels(image: sitk.Image, meanings: Mapping[int, str], path: Path) -> None:
    """Raise MaskError for a label other than these and 0."""
    labels = set(np.unique(voxels_of(image)).tolist()) - {0, *meanings}
    if labels:
        allowed = ", ".join(f"{label} {meaning}" for label, meaning in meanings.items())
        raise MaskError(f"{path.name} holds the label {max(labels):g}. Its labels can be {allowed}.")


def _heart(path: Path, scan: CTScan) -> sitk.Image:
    image = read_mask(path)
    names = segment_names(image)
    if not names:
        return labels_on_grid(image, scan, path, cropped=False) > 0
    if not any(map(_is_heart, names)):
        raise MaskError(f"{path.name} has no segment called {HEART_SEGMENT}. Rename the one of the heart.")
    return labels_on_grid(label_map(image, _is_heart, path.name), scan, path, cropped=True)


def _is_heart(name: str) -> bool:
    return name.split(":")[0].strip().lower() == HEART_SEGMENT


def labels_on_grid(image: sitk.Image, scan: CTScan, path: Path, cropped: bool) -> sitk.Image:
    """Resample labels to the scan's grid as uint8; an image without labels becomes an empty one.

    cropped: True if the image may end with its labels, as in segmentations saved by 3D Slicer.

    Raises MaskError if the image does not fit the scan, or its file states another one or another patient.
    """
    check_image_file(path, scan)
    if image.GetNumberOfComponentsPerPixel() > 1 or image.GetDimension() != 3:
        raise MaskError(f"{path.name} is not a 3-D label map with one label per voxel. Export it as one.")
    size = scan.image.GetSize()
    overhang = _overhang_voxels([(0, n - 1) for n in size], scan.image, image)
    if not cropped and overhang > COVERED_VOXELS:
        raise MaskError(
            f"{path.name} does not cover the scan: that reaches {overhang:.0f} voxels beyond it. Check that both are "
            "of one scan, or resample the label map to it."
        )
    values = voxels_of(image)
    if not values.any():
        return scan.grid.image(np.zeros(size[::-1], np.uint8))
    outside = _overhang_voxels([(int(at.min()), int(at.max())) for at in np.nonzero(values)][::-1], image, scan.image)
    if outside > 1:
        raise MaskError(
            f"Labels of {path.name} lie up to {outside:.0f} voxels outside the scan. Check that both are of one scan."
        )
    if cropped:
        # Padded, because labels in a single slice, row or column would be taken for a picture.
        image = sitk.ConstantPad(image, (1, 1, 1), (1, 1, 1))
    return scan.grid.image(mask_on_scan_grid(image, scan, f"segmentation {path.name}")[0])


def _overhang_voxels(ends: list[tuple[int, int]], image: sitk.Image, reference: sitk.Image) -> float:
    """Return the largest distance by which a box of an image exceeds a reference image, in its voxels.

    ends: First and last index of the box by axis.
    """
    corners = [[end[at] for at, end in zip(corner, ends, strict=True)] for corner in np.ndindex(2, 2, 2)]
    points = map(image.TransformIndexToPhysicalPoint, corners)
    places = np.array([reference.TransformPhysicalPointToContinuousIndex(point) for point in points])
    return max((-places).max(), (places - np.array(reference.GetSize()) + 1).max())
