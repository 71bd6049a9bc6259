"""Conversion between a segmentation node's voxels and labels of a scan. Fast, as it touches only labelled voxels.

A scan's array is [k, j, i] with axes as in `CTScan`; a node may hold the same voxels in another axis order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
import SimpleITK as sitk
import slicer
from vtkmodules.util.numpy_support import get_vtk_array_type, numpy_to_vtk, vtk_to_numpy
from vtkmodules.vtkCommonCore import vtkDataArray
from vtkmodules.vtkCommonDataModel import vtkImageData
from vtkmodules.vtkCommonMath import vtkMatrix4x4

from ..core.errors import MaskError, SliceGeometryError
from ..core.grid import Grid
from ..core.labels import Labelled
from ..core.voxels import voxels_of

ALIGNMENT_TOLERANCE_VOXELS = 0.01
"""Distance below which a voxel of an image coincides with a voxel of the scan."""


def check_no_transform(node: slicer.vtkMRMLTransformableNode) -> None:
    """Raise SliceGeometryError if a node lies under a transform."""
    if node.GetParentTransformNode() is not None:
        message = f"{node.GetName()} lies under a transform. Harden the transform or take the node out of it."
        raise SliceGeometryError(message)


def voxels_of_segments(
    segmentation: slicer.vtkMRMLSegmentationNode, grid: sitk.Image, label_of: Callable[[str], int]
) -> Labelled:
    """Return the voxels of all segments on the grid of a scan, without those outside the grid.

    Args:
        segmentation: The node.
        grid: The scan.
        label_of: Function from a segment's name to its label, 1 to 255, or 0 to leave it out. It is called only for
            segments with voxels, and its exceptions are passed on.

    Raises:
        SliceGeometryError: The node lies under a transform.
        MaskError: A voxel belongs to two labels.
    """
    check_no_transform(segmentation)
    collection = segmentation.GetSegmentation()
    flats, values = [np.zeros(0, np.int64)], [np.zeros(0, np.uint8)]
    names: dict[int, str] = {}
    for layer in range(collection.GetNumberOfLayers()):
        places, stored = _labelled_voxels(collection.GetLayerDataObject(layer), grid)
        present = set(np.flatnonzero(np.bincount(stored)).tolist())
        labels = np.zeros(max(present, default=0) + 1, np.uint8)
        for segment_id in collection.GetSegmentIDsForLayer(layer):
            segment = collection.GetSegment(segment_id)
            if segment.GetLabelValue() in present:
                label = label_of(segment.GetName())
                labels[segment.GetLabelValue()] = label
                names.setdefault(label, segment.GetName())
        layer_labels = labels[stored]
        flats.append(places[layer_labels > 0])
        values.append(layer_labels[layer_labels > 0])
    flat, labels = np.concatenate(flats), np.concatenate(values)
    if (flat[1:] <= flat[:-1]).any():
        order = np.argsort(flat, kind="stable")
        flat, labels = flat[order], labels[order]
    repeats = np.flatnonzero(flat[1:] == flat[:-1]) + 1
    conflicts = repeats[labels[repeats] != labels[repeats - 1]]
    if conflicts.size:
        first, second = (names[int(labels[at])] for at in (conflicts[0] - 1, conflicts[0]))
        count = len(np.unique(flat[conflicts]))
        raise MaskError(
            f"{count} voxels of {segmentation.GetName()} belong to two segments, as to {first} and to {second}. Undo "
            "that or erase them from one of the two."
        )
    return Labelled(np.delete(flat, repeats), np.delete(labels, repeats))


def _on_grid(layer: slicer.vtkOrientedImageData | None, grid: sitk.Image) -> tuple[np.ndarray, tuple[slice, ...]]:
    """Return a layer's values as [k, j, i] of a grid, and the part of the grid that they fill.

    The values are not copied unless the layer has to be resampled.
    """
    if layer is None or layer.IsEmpty():
        return np.zeros((0, 0, 0), np.uint8), (slice(0, 0),) * 3
    axes = _axes(_matrix_of_image(layer), grid, layer.GetDimensions())
    if axes is None:
        layer = _resampled(layer, grid)
        axes = np.eye(4, dtype=int)
    i, j, k = layer.GetDimensions()
    values = vtk_to_numpy(layer.GetPointData().GetScalars()).reshape(k, j, i).transpose()  # [i, j, k]
    values = values.transpose([int(np.flatnonzero(row[:3])[0]) for row in axes[:3]])
    first = axes[:3] @ [*layer.GetExtent()[::2], 1]
    part = []
    for axis, (row, count) in enumerate(zip(axes[:3], grid.GetSize(), strict=True)):
        start = int(first[axis])
        if row[:3].sum() < 0:
            values = np.flip(values, axis)
            start -= values.shape[axis] - 1
        stop = start + values.shape[axis]
        values = np.moveaxis(np.moveaxis(values, axis, 0)[max(0, -start) : max(0, count - start)], 0, axis)
        part.append(slice(min(max(start, 0), count), min(max(stop, 0), count)))
    return values.transpose(), tuple(part[::-1])


def _labelled_voxels(layer: slicer.vtkOrientedImageData | None, grid: sitk.Image) -> tuple[np.ndarray, np.ndarray]:
    """Return the flat indices in the grid of a layer's non-zero voxels, in ascending order, and their values."""
    values, part = _on_grid(layer, grid)
    values = np.ascontiguousarray(values)
    at = np.flatnonzero(values)
    kji = [index + place.start for index, place in zip(np.unravel_index(at, values.shape), part, strict=True)]
    i, j, _ = grid.GetSize()
    return (kji[0] * j + kji[1]) * i + kji[2], values.reshape(-1)[at]


def segment_mask(segmentation: slicer.vtkMRMLSegmentationNode, segment_id: str, grid: sitk.Image) -> np.ndarray:
    """Return one segment's voxels, bool [k, j, i], on the grid of an image, by nearest neighbour if grids differ.

    Other segments are not included, whether they share its layer or overlap it.

    Raises MaskError if there is no such segment or it has no voxels, SliceGeometryError under a transform.
    """
    check_no_transform(segmentation)
    collection = segmentation.GetSegmentation()
    segment = collection.GetSegment(segment_id)
    name = slicer.vtkSegmentationConverter.GetSegmentationBinaryLabelmapRepresentationName()
    layer = None if segment is None else segment.GetRepresentation(name)
    if layer is None:
        message = f"{segmentation.GetName()} has no voxels for the segment {segment_id}. Create its binary labelmap."
        raise MaskError(message)
    mask = np.zeros(grid.GetSize()[::-1], bool)
    values, part = _on_grid(layer, grid)
    np.equal(values, segment.GetLabelValue(), out=mask[part])
    return mask


def mask_image(segmentation: slicer.vtkMRMLSegmentationNode, segment_id: str, grid: sitk.Image) -> sitk.Image:
    """Return one segment as a mask, uint8 0 or 1, on the grid of an image. Raises like `segment_mask`."""
    return Grid.of(grid).image(segment_mask(segmentation, segment_id, grid))


def _axes(matrix: np.ndarray, grid: sitk.Image, size: Iterable[int]) -> np.ndarray | None:
    """Return the int [4, 4] matrix from voxel indices (i, j, k, 1) of an image to a grid; None if voxels differ.

    matrix: index to RAS of the image. size: voxels of the image, i j k.
    """
    exact = np.linalg.inv(matrix_of_grid(grid)) @ matrix
    rounded = np.rint(exact).astype(int)
    deviation = np.abs(exact - rounded)
    permutation = np.abs(rounded[:3, :3])
    is_permutation = (permutation.sum(0) == 1).all() and (permutation.sum(1) == 1).all()
    return rounded if is_permutation and (deviation @ [*size, 1]).max() < ALIGNMENT_TOLERANCE_VOXELS else None


def matrix_of_grid(grid: sitk.Image) -> np.ndarray:
    """Return the [4, 4] matrix from index (i, j, k, 1) to RAS of an image."""
    matrix = np.eye(4)
    matrix[:3, :3] = np.reshape(grid.GetDirection(), (3, 3)) * grid.GetSpacing()
    matrix[:3, 3] = grid.GetOrigin()
    matrix[:2] *= -1
    return matrix + 0.0  # turns -0.0 into 0.0


def _matrix_of_image(image: slicer.vtkOrientedImageData) -> np.ndarray:
    matrix = vtkMatrix4x4()
    image.GetImageToWorldMatrix(matrix)
    return array_of(matrix)


def array_of(matrix: vtkMatrix4x4) -> np.ndarray:
    return np.array([[matrix.GetElement(row, column) for column in range(4)] for row in range(4)])


def _resampled(layer: slicer.vtkOrientedImageData, grid: sitk.Image) -> slicer.vtkOrientedImageData:
    resampled = slicer.vtkOrientedImageData()
    slicer.vtkOrientedImageDataResample.ResampleOrientedImageToReferenceOrientedImage(
        layer, oriented_image(grid, (0, 0, 0), grid.GetSize()), resampled
    )
    return resampled


def oriented_image(grid: sitk.Image, start: Iterable[int], size: Iterable[int]) -> slicer.vtkOrientedImageData:
    """Return the geometry of a part of a grid, without voxels. start, size: in voxels, i j k."""
    image = slicer.vtkOrientedImageData()
    image.SetExtent([x for at, n in zip(start, size, strict=True) for x in (int(at), int(at + n - 1))])
    matrix = vtkMatrix4x4()
    matrix.DeepCopy(matrix_of_grid(grid).reshape(-1).tolist())
    image.SetImageToWorldMatrix(matrix)
    return image


def vtk_array(values: np.ndarray) -> vtkDataArray:
    """Return a copy of the values for VTK."""
    return numpy_to_vtk(np.ascontiguousarray(values).reshape(-1), True, get_vtk_array_type(values.dtype))


def vtk_image(image: sitk.Image) -> vtkImageData:
    """Return an image's voxels for VTK, without geometry."""
    data = vtkImageData()
    data.SetDimensions(image.GetSize())
    data.GetPointData().SetScalars(vtk_array(voxels_of(image)))
    return data


class SegmentWriter:
    """Writer of a scan's voxels into the segments of a node."""

    def __init__(self, segmentation: slicer.vtkMRMLSegmentationNode, grid: sitk.Image, node_grid: sitk.Image) -> None:
        """Prepare.

        Args:
            segmentation: The node.
            grid: The scan.
            node_grid: Image of the node's volume, which holds the scan's voxels in any axis order.

        Raises:
            MaskError: The two grids have different voxels.
        """
        axes = _axes(matrix_of_grid(grid), node_grid, grid.GetSize())
        if axes is None:
            raise MaskError(f"{segmentation.GetName()} does not lie on its scan's voxels. Score the scan again.")
        self._segmentation = segmentation
        self._shape = grid.GetSize()[::-1]
        self._axes = axes
        self._node_grid = node_grid

    def set(self, flat: np.ndarray, segment_id: str) -> None:
        """Assign voxels to a segment and remove them from all others."""
        if not flat.size:
            return
        collection = self._segmentation.GetSegmentation()
        layer = collection.GetLayerIndex(segment_id)
        # Writing removes the voxels from segments of the same layer only.
        self._erase(flat, [name for name in collection.GetSegmentIDs() if collection.GetLayerIndex(name) != layer])
        self._modify(self._mask(flat), segment_id, slicer.vtkSlicerSegmentationsModuleLogic.MODE_MERGE_MASK)

    def clear(self, flat: np.ndarray) -> None:
        """Remove voxels from all segments."""
        if flat.size:
            self._erase(flat, self._segmentation.GetSegmentation().GetSegmentIDs())

    def empty(self) -> None:
        """Remove all voxels from all segments."""
        for segment_id in self._segmentation.GetSegmentation().GetSegmentIDs():
            self._segmentation.GetSegmentation().ClearSegment(segment_id)

    def _erase(self, flat: np.ndarray, segment_ids: Iterable[str]) -> None:
        keep = self._mask(flat, inside=0)
        for segment_id in segment_ids:
            self._modify(keep, segment_id, slicer.vtkSlicerSegmentationsModuleLogic.MODE_MERGE_MIN)

    def _modify(self, image: slicer.vtkOrientedImageData, segment_id: str, mode: int) -> None:
        # Unless the other segments may be overwritten, Slicer moves the segment to a layer of its own.
        replaceable = [name for name in self._segmentation.GetSegmentation().GetSegmentIDs() if name != segment_id]
        logic = slicer.vtkSlicerSegmentationsModuleLogic
        if not logic.SetBinaryLabelmapToSegment(
            image, self._segmentation, segment_id, mode, image.GetExtent(), False, replaceable
        ):
            raise MaskError(f"The segment {segment_id} of {self._segmentation.GetName()} cannot be written.")

    def _mask(self, flat: np.ndarray, inside: int = 1) -> slicer.vtkOrientedImageData:
        kji = np.unravel_index(flat, self._shape)
        ijk = np.stack([*kji[::-1], np.ones(len(flat), int)])
        places = (self._axes @ ijk)[:3]
        start, size = places.min(1), np.ptp(places, axis=1) + 1
        values = np.full(size[::-1], 1 - inside, np.uint8)
        values[tuple((places - start[:, None])[::-1])] = inside
        image = oriented_image(self._node_grid, start, size)
        image.GetPointData().SetScalars(vtk_array(values))
        return image
