"""Import segmentations from other software as annotations of a scan.

A label map (NIfTI, NRRD, MetaImage) has the labels 1 LM, 2 LAD, 3 LCX, 4 RCA, 5 other coronary; a segmentation saved by
3D Slicer (.seg.nrrd) has segments with names of arteries (`site_called`), not-coronary (left out) and heart. A label
map of the heart is recognised by its file's name.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import SimpleITK as sitk

from CACScoringLib.core.ct import CTScan, MaskError, mask_on_scan_grid
from CACScoringLib.core.labels import NOT_CORONARY, Artery, is_not_coronary, site_called
from CACScoringLib.core.text import printable
from CACScoringLib.core.voxels import voxels_of
from CACScoringLib.io.reading import read_ct, read_mask
from CACScoringLib.io.slicer_segments import label_map, segment_names

from ..project.annotation_files import ImportedAnnotations
from .reference import slice_labels

ANNOTATOR = "segmentation"
HEART_SEGMENT = "heart"
LESIONS, HEART = "-lesions", "-heart"
"""Endings of a segmentation's name after the scan's name."""

COVERED_VOXELS = 1.0
"""Largest overhang of a scan over a label map that covers it, in the map's voxels; grids of one scan end within one."""


def segmentation_annotations(
    ct: Path, series: str | None, lesions: Path | None = None, heart: Path | None = None
) -> ImportedAnnotations:
    """Read segmentations as annotations on the scan's grid, resampled by nearest neighbour if necessary.

    As in masks for scoring, the reader marked all coronary calcium: slices without a region are labelled not visible.

    Args:
        ct: The scan.
        series: Series of a DICOM folder, as in `read_ct`.
        lesions: Label map of arteries, or .seg.nrrd, which may hold the heart too.
        heart: Label map of the heart, any value but 0, or .seg.nrrd with a segment heart.

    Raises:
        MaskError: A label is not an artery's, lies outside the scan, or the label map does not cover the scan.
        CTError: A file cannot be read.
    """
    scan = read_ct(ct, series)
    regions = heart_mask = None
    if lesions is not None:
        regions, heart_mask = _arteries_and_heart(lesions, scan)
    if heart is not None:
        heart_mask = _heart(heart, scan)
    slices = {} if regions is None else slice_labels(regions)
    return ImportedAnnotations(ANNOTATOR, slices, regions, heart_mask)


def _arteries_and_heart(path: Path, scan: CTScan) -> tuple[sitk.Image | None, sitk.Image | None]:
    image = read_mask(path)
    names = segment_names(image)
    if not names:
        regions = labels_on_grid(image, scan, path, cropped=False)
        highest = int(voxels_of(regions).max())
        if highest > Artery.OTHER:
            choices = ", ".join(f"{artery.value} {artery.key}" for artery in Artery if artery <= Artery.OTHER)
            raise MaskError(f"{path.name} holds the label {highest}. Labels of arteries are {choices}.")
        return regions, None
    labels = sitk.ChangeLabel(label_map(image, lambda name: _artery_label(name, path), path.name), {NOT_CORONARY: 0})
    has_heart = any(map(_is_heart, names))
    if has_heart and all(_is_heart(name) or is_not_coronary(name) for name in names):
        return None, _heart(path, scan)
    return labels_on_grid(labels, scan, path, cropped=True), _heart(path, scan) if has_heart else None


def _artery_label(name: str, path: Path) -> int:
    """Return the label of an artery's segment, NOT_CORONARY for rejected calcium and 0 for the heart."""
    if _is_heart(name):
        return 0
    if is_not_coronary(name):
        return NOT_CORONARY
    artery = site_called(name)
    if artery is None or artery > Artery.OTHER:
        choices = ", ".join([*(a.key for a in Artery if a <= Artery.OTHER), "not-coronary", HEART_SEGMENT])
        raise MaskError(f"The segment {printable(name)} of {path.name} is not an artery. Rename it: {choices}.")
    return int(artery)


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
    """
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
        empty = sitk.Image(size, sitk.sitkUInt8)
        empty.CopyInformation(scan.image)
        return empty
    outside = _overhang_voxels([(int(at.min()), int(at.max())) for at in np.nonzero(values)][::-1], image, scan.image)
    if outside > 1:
        raise MaskError(
            f"Labels of {path.name} lie up to {outside:.0f} voxels outside the scan. Check that both are of one scan."
        )
    if cropped:
        # Padded, because labels in a single slice, row or column would be taken for a picture.
        image = sitk.ConstantPad(image, (1, 1, 1), (1, 1, 1))
    return mask_on_scan_grid(image, scan, f"segmentation {path.name}")[0]


def _overhang_voxels(ends: list[tuple[int, int]], image: sitk.Image, reference: sitk.Image) -> float:
    """Return the largest distance by which a box of an image exceeds a reference image, in its voxels.

    ends: First and last index of the box by axis.
    """
    corners = [[end[at] for at, end in zip(corner, ends, strict=True)] for corner in np.ndindex(2, 2, 2)]
    points = map(image.TransformIndexToPhysicalPoint, corners)
    places = np.array([reference.TransformPhysicalPointToContinuousIndex(point) for point in points])
    return max((-places).max(), (places - np.array(reference.GetSize()) + 1).max())
