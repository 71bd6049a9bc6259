"""Scan and segments of a segment editor effect as arrays on one grid.

The grid is the segmentation's, which is the source volume's in any axis order and orientation. Indices are [k, j, i] of
that grid, whichever body axis each of them follows.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import slicer
import vtk
from slicer.util import arrayFromVTKMatrix
from vtk.util.numpy_support import numpy_to_vtk, vtk_to_numpy

from ...core.errors import CTError
from ...core.labels import Artery, Site, label_called
from ...review.picking import Place, Voxels


class EffectScan:
    """Scan and segmentation that an effect edits. Call `update` before each use; it is cheap if nothing has changed.

    Attributes:
        hu: Values of the source volume, [k, j, i].
        spacing_mm: Spacing along k, j, i.
        index_to_ras: 4 × 4 matrix from voxel (i, j, k, 1) to RAS.
    """

    def __init__(self, effect) -> None:
        """Prepare. effect: the effect's `scriptedEffect`."""
        self._effect = effect
        self._state: tuple[Any, ...] | None = None
        self._image: Any = None
        self._hearts: dict[bool, np.ndarray | None] = {}
        self.hu = np.zeros((0, 0, 0), np.int16)
        self.spacing_mm = (1.0, 1.0, 1.0)
        self.index_to_ras = np.eye(4)

    @property
    def segmentation(self) -> slicer.vtkMRMLSegmentationNode | None:
        node = self._effect.parameterSetNode()
        return None if node is None else node.GetSegmentationNode()

    @property
    def selected(self) -> str:
        """ID of the selected segment, "" without one. That of unassigned lesions stands for no choice."""
        if self.segmentation is None:
            return ""
        selected = self._effect.parameterSetNode().GetSelectedSegmentID() or ""
        return "" if selected == self.existing_segment_of(Artery.UNASSIGNED) else selected

    def update(self) -> bool:
        """Read changes of the scene. Returns False if there is no volume or no segmentation to edit."""
        node, segmentation = self._effect.parameterSetNode(), self.segmentation
        volume = None if node is None else node.GetSourceVolumeNode()
        if segmentation is None or volume is None or volume.GetImageData() is None:
            self._state = None
            return False
        from ...mrml.scene import HEART_ROLE

        heart = segmentation.GetNodeReference(HEART_ROLE)
        transforms = [n.GetParentTransformNode() for n in (segmentation, volume)]
        reference = self._effect.referenceGeometryImage()
        state = (
            segmentation.GetID(),
            volume.GetID(),
            volume.GetImageData().GetMTime(),
            arrayFromVTKMatrix(_ijk_to_ras(volume)).tobytes(),
            tuple(0 if t is None else t.GetMTime() for t in transforms),
            None if reference is None else (reference.GetExtent(), _matrix(reference).tobytes()),
            None if heart is None else (heart.GetID(), heart.GetSegmentation().GetMTime()),
        )
        if state == self._state:
            return True
        image = self._voxels_on_grid(volume, reference) if transforms == [None, None] else None
        self._image = image or self._effect.sourceVolumeImageData()
        if self._image is None:
            self._state = None
            return False
        self.hu = _array(self._image)
        self.spacing_mm = tuple(self._image.GetSpacing()[::-1])
        self.index_to_ras = _to_world(segmentation) @ _matrix(self._image) @ _shift(self._start)
        self._hearts = {}
        self._state = state
        return True

    @staticmethod
    def _voxels_on_grid(volume, reference) -> slicer.vtkOrientedImageData | None:
        """Return the volume's voxels without copying them; None if they do not lie on the segmentation's grid."""
        if volume.GetImageData().GetNumberOfScalarComponents() != 1 or reference is None:
            return None
        image = slicer.vtkOrientedImageData()
        image.ShallowCopy(volume.GetImageData())
        image.SetGeometryFromImageToWorldMatrix(_ijk_to_ras(volume))
        return image if slicer.vtkOrientedImageDataResample.DoGeometriesMatch(image, reference) else None

    @property
    def _start(self) -> tuple[int, int, int]:
        """First index (i, j, k) of the segmentation's grid, which may not be 0."""
        return tuple(self._image.GetExtent()[::2])

    # Positions

    def index_at(self, ras: np.ndarray) -> tuple[int, int, int] | None:
        """Return the voxel [k, j, i] at a position; None outside the grid."""
        ijk = np.floor(np.linalg.solve(self.index_to_ras, [*ras, 1.0])[:3] + 0.5).astype(int)
        i, j, k = (int(n) for n in ijk)
        return (k, j, i) if all(0 <= n < size for n, size in zip((k, j, i), self.hu.shape, strict=True)) else None

    @property
    def slice_axis(self) -> int:
        """Axis of [k, j, i] nearest to the body's."""
        return 2 - int(np.argmax(np.abs(self.index_to_ras[2, :3]) / np.linalg.norm(self.index_to_ras[:3, :3], axis=0)))

    def heart(self, outline: bool) -> np.ndarray | None:
        """Return the voxels in which lesions may lie: bool [k, j, i], or None if the segmentation has no heart.

        outline: True for the inside of the heart, False for all slices that show it.
        """
        if outline not in self._hearts:
            self._hearts[outline] = self._heart(outline)
        return self._hearts[outline]

    def _heart(self, outline: bool) -> np.ndarray | None:
        from ...mrml.lesion_segments import HEART_ID
        from ...mrml.scene import HEART_ROLE

        node = self.segmentation.GetNodeReference(HEART_ROLE)
        has_heart = node is not None and node.GetSegmentation().GetSegment(HEART_ID) is not None
        values = _resampled(_labelmap(node, HEART_ID), self._image) if has_heart else None
        if values is None or not values.any():
            return None
        inside = values != 0
        if outline:
            return inside
        slices = inside.any(tuple(n for n in range(3) if n != self.slice_axis), keepdims=True)
        return np.ascontiguousarray(np.broadcast_to(slices, inside.shape))

    # Segments

    def segment_of(self, site: Site | int) -> str:
        """Return the ID of a site's segment, or of the label for non-coronary lesions; make the segment if needed."""
        from ...mrml.lesion_segments import add_lesion_segment

        return self.existing_segment_of(site) or add_lesion_segment(self.segmentation, int(site))

    def existing_segment_of(self, site: Site | int) -> str:
        """Return the ID of a site's segment, or of the label for non-coronary lesions; "" if there is none."""
        collection = self.segmentation.GetSegmentation()
        segment_ids = collection.GetSegmentIDs()
        return next((n for n in segment_ids if _label(collection.GetSegment(n).GetName()) == int(site)), "")

    def select(self, site: Site) -> None:
        """Select a site's segment for editing."""
        self._effect.parameterSetNode().SetSelectedSegmentID(self.segment_of(site))

    def name_of(self, segment_id: str) -> str:
        """Return the short name of a segment: LAD rather than "LAD: left anterior descending"."""
        segment = self.segmentation.GetSegmentation().GetSegment(segment_id)
        return "" if segment is None else segment.GetName().split(":")[0]

    def colour_of(self, segment_id: str) -> tuple[float, float, float]:
        """Return a segment's red, green and blue, 0 to 1; white without one."""
        segment = self.segmentation.GetSegmentation().GetSegment(segment_id) if self.segmentation else None
        return (1.0, 1.0, 1.0) if segment is None else tuple(segment.GetColor())

    def voxels_in(self, segment_id: str, part: Place) -> np.ndarray:
        """Return a segment's mask within a part of the grid: bool [k, j, i]."""
        values = _resampled(_labelmap(self.segmentation, segment_id), self._box(part, allocate=True))
        return np.zeros([at.stop - at.start for at in part], bool) if values is None else values != 0

    def voxels_of(self, segment_id: str) -> Voxels | None:
        """Return all voxels of a segment that lie on the grid; None if there are none."""
        labelmap = _labelmap(self.segmentation, segment_id)
        if labelmap is None or labelmap.IsEmpty():
            return None
        part = tuple(slice(0, n) for n in self.hu.shape)
        if slicer.vtkOrientedImageDataResample.DoGeometriesMatch(labelmap, self._image):
            first = [n - start for n, start in zip(labelmap.GetExtent()[::2], self._start, strict=True)][::-1]
            part = tuple(
                slice(min(max(n, 0), most), max(min(n + size, most), 0))
                for n, size, most in zip(first, labelmap.GetDimensions()[::-1], self.hu.shape, strict=True)
            )
        if any(at.start >= at.stop for at in part):
            return None
        voxels = Voxels(part, self.voxels_in(segment_id, part))
        return voxels if voxels.count else None

    def sites_in(self, part: Place) -> np.ndarray:
        """Return the number of each voxel's segment within a part of the grid, from 1 in the order of IDs; 0: none."""
        collection = self.segmentation.GetSegmentation()
        numbers = np.zeros([at.stop - at.start for at in part], np.uint16)
        binary = slicer.vtkSegmentationConverter.GetSegmentationBinaryLabelmapRepresentationName()
        # A layer holds many segments, and extracting one segment costs as much as reading the layer.
        for layer in range(collection.GetNumberOfLayers(binary)):
            labels = _resampled(collection.GetLayerDataObject(layer, binary), self._box(part, allocate=True))
            is_labelled = labels is not None and labels.any()
            for segment_id in collection.GetSegmentIDsForLayer(layer, binary) if is_labelled else ():
                label = collection.GetSegment(segment_id).GetLabelValue()
                numbers[labels == label] = collection.GetSegmentIndex(segment_id) + 1
        return numbers

    def segment_at(self, kji: tuple[int, int, int]) -> str | None:
        """Return the ID of a voxel's segment; None for none."""
        number = int(self.sites_in(tuple(slice(n, n + 1) for n in kji))[0, 0, 0])
        return self.segmentation.GetSegmentation().GetNthSegmentID(number - 1) if number else None

    def sites_of(self, voxels: Voxels) -> dict[str, int]:
        """Return the numbers of voxels by the ID of their segment."""
        counts = np.bincount(self.sites_in(voxels.part)[voxels.mask])
        collection = self.segmentation.GetSegmentation()
        return {collection.GetNthSegmentID(int(n) - 1): int(counts[n]) for n in np.flatnonzero(counts) if n}

    def outside_segments(self, kji: np.ndarray, exempt: set[str]) -> np.ndarray:
        """Return the voxels, of kji [n, 3], that belong to no segment except the exempt ones."""
        for segment_id in self.segmentation.GetSegmentation().GetSegmentIDs():
            voxels = None if segment_id in exempt else self.voxels_of(segment_id)
            if voxels is not None and len(kji):
                low, high = ([getattr(at, end) for at in voxels.part] for end in ("start", "stop"))
                within = np.all((kji >= low) & (kji < high), 1)
                within[within] = voxels.mask[tuple((kji[within] - low).T)]
                kji = kji[~within]
        return kji

    # Editing

    def change(self, segment_id: str, add: Voxels | None, remove: Voxels | None = None) -> int:
        """Add voxels to a segment, taking them from all others, and remove voxels from it, as one step to undo.

        Respects the editor's masking. Returns the number of voxels that changed.
        """
        editor, node = slicer.qSlicerSegmentEditorAbstractEffect, self._effect.parameterSetNode()
        edits = []
        for voxels, mode in ((remove, editor.ModificationModeRemove), (add, editor.ModificationModeAdd)):
            if voxels is not None:
                before = self.voxels_in(segment_id, voxels.part)
                changes = voxels.where(before != (mode == editor.ModificationModeAdd))
                edits += [(changes, mode, before)] if changes.count else []
        if not edits:
            return 0
        self._effect.saveStateForUndo()
        overwrite = node.GetOverwriteMode()
        # A voxel in two arteries would be counted twice.
        node.SetOverwriteMode(slicer.vtkMRMLSegmentEditorNode.OverwriteAllSegments)
        try:
            for voxels, mode, _before in edits:
                self._effect.modifySegmentByLabelmap(self.segmentation, segment_id, self.labelmap(voxels), mode)
        finally:
            node.SetOverwriteMode(overwrite)
        return sum(int((self.voxels_in(segment_id, voxels.part) != before).sum()) for voxels, _mode, before in edits)

    def labelmap(self, voxels: Voxels) -> slicer.vtkOrientedImageData:
        """Return voxels in the editor's format, an image of their part of the grid."""
        image = self._box(voxels.part, allocate=False)
        values = numpy_to_vtk(voxels.mask.astype(np.uint8).reshape(-1), True, vtk.VTK_UNSIGNED_CHAR)
        image.GetPointData().SetScalars(values)
        return image

    def _box(self, part: Place, allocate: bool) -> slicer.vtkOrientedImageData:
        image = slicer.vtkOrientedImageData()
        extent = []
        for at, first in zip(part[::-1], self._start, strict=True):
            extent += [at.start + first, at.stop - 1 + first]
        image.SetExtent(extent)
        matrix = vtk.vtkMatrix4x4()
        self._image.GetImageToWorldMatrix(matrix)
        image.SetImageToWorldMatrix(matrix)
        if allocate:
            image.AllocateScalars(vtk.VTK_UNSIGNED_CHAR, 1)
        return image

    # Data of the segmentation's result

    def volume_of_role(self, role: str) -> tuple[np.ndarray, np.ndarray] | None:
        """Return the values [k, j, i] of a volume that the segmentation refers to, and the 4 × 4 matrix from the grid's
        voxels to the volume's; None if there is none."""
        volume = self.segmentation.GetNodeReference(role)
        if volume is None or volume.GetImageData() is None:
            return None
        to_ras = _to_world(volume) @ arrayFromVTKMatrix(_ijk_to_ras(volume))
        return _array(volume.GetImageData()), np.linalg.solve(to_ras, self.index_to_ras)

    def threshold_hu(self) -> float | None:
        """Return the HU threshold that the segmentation's scan was scored with; None if it belongs to no result.

        Lesions of the calcium map get the clinical threshold too, because their own threshold applies to the map.
        """
        return None if (record := self._record()) is None else record.methods["threshold"].rules.threshold_hu

    def floor_hu(self) -> float | None:
        """Return the HU below which the segmentation's calcium map is 0; None if it belongs to no result."""
        record = self._record()
        settings = record.decomposition_settings if record else None
        return float(settings["floor_hu"]) if settings else None

    def _record(self) -> Any:
        """Return the `ScoreRecord` of the segmentation's result; None if it belongs to none."""
        from ...mrml.scene import LESION_METHODS, nodes_of_record, records_in
        from ...record.score_record import record_from_text

        for record in records_in(self._effect.scene()):
            try:
                nodes = nodes_of_record(self._effect.scene(), record)
            except CTError:
                continue
            if self.segmentation in [getattr(nodes, key) for key in LESION_METHODS]:
                return record_from_text(record.GetText(), record.GetName())
        return None


def _label(name: str) -> int:
    """Return the label of a lesion segment's name; 0 for other segments."""
    try:
        return label_called(name)
    except CTError:
        return 0


def _ijk_to_ras(volume: slicer.vtkMRMLScalarVolumeNode) -> vtk.vtkMatrix4x4:
    matrix = vtk.vtkMatrix4x4()
    volume.GetIJKToRASMatrix(matrix)
    return matrix


def _to_world(node: slicer.vtkMRMLTransformableNode) -> np.ndarray:
    """Return the 4 × 4 matrix of the transform that a node lies under; the identity without one."""
    matrix = vtk.vtkMatrix4x4()
    slicer.vtkMRMLTransformNode.GetMatrixTransformBetweenNodes(node.GetParentTransformNode(), None, matrix)
    return arrayFromVTKMatrix(matrix)


def _labelmap(node: slicer.vtkMRMLSegmentationNode, segment_id: str) -> slicer.vtkOrientedImageData | None:
    """Return a segment's voxels alone, on any grid; None if there are none."""
    labelmap = slicer.vtkOrientedImageData()
    return labelmap if node.GetBinaryLabelmapRepresentation(segment_id, labelmap) else None


def _resampled(image: slicer.vtkOrientedImageData | None, reference: slicer.vtkOrientedImageData) -> np.ndarray | None:
    """Return an image's voxels, [k, j, i], on the grid of another; None of an empty image."""
    target = slicer.vtkOrientedImageData()
    resample = slicer.vtkOrientedImageDataResample.ResampleOrientedImageToReferenceOrientedImage
    is_filled = image is not None and not image.IsEmpty()
    return _array(target) if is_filled and resample(image, reference, target) else None


def _array(image: vtk.vtkImageData) -> np.ndarray:
    return vtk_to_numpy(image.GetPointData().GetScalars()).reshape(image.GetDimensions()[::-1])


def _matrix(image: slicer.vtkOrientedImageData) -> np.ndarray:
    matrix = vtk.vtkMatrix4x4()
    image.GetImageToWorldMatrix(matrix)
    return arrayFromVTKMatrix(matrix)


def _shift(ijk: tuple[int, int, int]) -> np.ndarray:
    shift = np.eye(4)
    shift[:3, 3] = ijk
    return shift
