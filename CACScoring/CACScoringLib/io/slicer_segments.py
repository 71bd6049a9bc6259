"""Reading of 3D Slicer segmentations (.seg.nrrd): layers whose values are defined by segments."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

import numpy as np
import SimpleITK as sitk

from ..core.errors import MaskError
from ..core.grid import Grid
from ..core.text import printable
from ..core.voxels import voxels_of


def segment_names(image: sitk.Image) -> list[str]:
    """Return the names of the segments in the file's order; empty for other images."""
    return [image.GetMetaData(f"{key[:-3]}_Name") for key in image.GetMetaDataKeys() if _SEGMENT.fullmatch(key)]


def label_map(image: sitk.Image, label_of: Callable[[str], int], file_name: str) -> sitk.Image:
    """Combine the segments of all layers in one label map on the segmentation's grid.

    A file keeps its layers after an overlap was undone, so several layers are no error.

    Args:
        image: A segmentation of 3D Slicer.
        label_of: Function that returns the uint8 label of a segment's name, 0 to leave it out.
        file_name: Name for messages.

    Raises:
        MaskError: A voxel belongs to segments of two labels.
    """
    labels = np.zeros(image.GetSize()[::-1], np.uint8)
    segments: list[tuple[str, int, sitk.Image, float]] = []
    overlaps: dict[tuple[str, str], int] = {}
    for name, layer, value in _segments(image):
        if not (label := label_of(name)):
            continue
        mask = voxels_of(layer) == value
        if (is_doubled := mask & (labels != 0) & (labels != label)).any():
            for earlier, earlier_label, earlier_layer, earlier_value in segments:
                shared = is_doubled & (voxels_of(earlier_layer) == earlier_value)
                if earlier_label != label and shared.any():
                    overlaps[earlier, name] = int(shared.sum())
        labels[mask] = label
        segments.append((name, label, layer, value))
    if overlaps:
        raise MaskError(overlap_message(file_name, overlaps))
    return Grid.of(image).image(labels)


def overlap_message(file_name: str, overlaps: dict[tuple[str, str], int]) -> str:
    """Return the message about voxels of two segments. overlaps: Number of voxels by the segments' names."""
    pairs = "; ".join(
        f"{printable(first)} and {printable(second)} share {count} voxel{'s' if count > 1 else ''}"
        for (first, second), count in overlaps.items()
    )
    return f"Segments of {file_name} overlap: {pairs}. Remove the overlap, so that no voxel counts twice."


def _segments(image: sitk.Image) -> Iterator[tuple[str, sitk.Image, float]]:
    """Yield the name, the layer and the value in that layer of each segment."""
    has_layers = image.GetNumberOfComponentsPerPixel() > 1
    layers: dict[int, sitk.Image] = {}
    for key in image.GetMetaDataKeys():
        if not (match := _SEGMENT.fullmatch(key)):
            continue
        name, value = (image.GetMetaData(f"{match[1]}_{part}") for part in ("Name", "LabelValue"))
        number = int(image.GetMetaData(f"{match[1]}_Layer")) if has_layers else 0
        if number not in layers:
            layers[number] = sitk.VectorIndexSelectionCast(image, number) if has_layers else image
        yield name, layers[number], float(value)


_SEGMENT = re.compile(r"(Segment\d+)_ID")
