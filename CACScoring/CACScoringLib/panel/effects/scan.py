"""The scan and the segments that a segment editor effect works on, as arrays on one grid.

The grid is that of the segmentation: the source volume's own, in any axis order and however oblique. Indices are
[k, j, i] of that grid, whichever body axis each of them follows.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import slicer
import vtk
from slicer.util import arrayFromVTKMatrix
from vtk.util.numpy_support import numpy_to_vtk, vtk_to_numpy

from ...review.picking import Place, Voxels

if TYPE_CHECKING:
    from ...core.labels import Site


class EffectScan:
    """What an effect (its `scriptedEffect`) edits. Call `update` before using it; it is cheap when nothing has changed.

    hu: values of the source volume, [k, j, i]. spacing_mm: k, j, i. index_to_ras: 4 × 4, from voxel (i, j, k, 1).
    """

    def __init__(self, effect) -> None:
        self._effect = effect
        self._state = None
        self._image = None
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
        """Id of the selected segment, "" without one."""
        node = self._effect.parameterSetNode()
        return (node.GetSelectedSegmentID() or "") if node is not None else ""

    def update(self) -> bool:
        """Read what has changed. False when there is no volume or no segmentation to edit."""
        node, segmentation = self._effect.parameterSetNode(), self.segmentation
        volume = None if node is None else node.GetSourceVolumeNode()
        if segmentation is None or volume is None or volume.GetImageData() is None:
            self._state = None
            return False
        from ...mrml.scene import HEART_ROLE

        heart = segmentation.GetNodeReference(HEART_ROLE)
        transforms = [n.GetParentTransformNode() for n in (segmentation, volume)]
        reference = self._effect.referenceGeometryImage()
        placed = vtk.vtkMatrix4x4()
        volume.GetIJKToRASMatrix(placed)
        state = (
            segmentation.GetID(),
            volume.GetID(),
            volume.GetImageData().GetMTime(),
            arrayFromVTKMatrix(placed).tobytes(),
            tuple(0 if t is None else t.GetMTime() for t in transforms),
            None if reference is None else (reference.GetExtent(), _matrix(reference).tobytes()),
            None if heart is None else (heart.GetID(), heart.GetSegmentation().GetMTime()),
        )
        if state == self._state:
            return True
        image = self._own_voxels(volume, reference) if transforms == [None, None] else None
        self._image = image or self._effect.sourceVolumeImageData()
        if self._image is None:
            self._state = None
            return False
        self.hu = _array(self._image)
        self.spacing_mm = tuple(self._image.GetSpacing()[::-1])
        to_world = _matrix(self._image) @ _shift(self._start)
        if transforms[0] is not None:
            matrix = vtk.vtkMatrix4x4()
            slicer.vtkMRMLTransformNode.GetMatrixTransformBetweenNodes(transforms[0], None, matrix)
            to_world = arrayFromVTKMatrix(matrix) @ to_world
        self.index_to_ras = to_world
        self._hearts = {}
        self._state = state
        return True

    @staticmethod
    def _own_voxels(volume, reference) -> slicer.vtkOrientedImageData | None:
        """The volume's voxels without a copy, where they lie on the segmentation's grid."""
        if volume.GetImageData().GetNumberOfScalarComponents() != 1 or reference is None:
            return None
        image = slicer.vtkOrientedImageData()
        image.ShallowCopy(volume.GetImageData())
        matrix = vtk.vtkMatrix4x4()
        volume.GetIJKToRASMatrix(matrix)
        image.SetGeometryFromImageToWorldMatrix(matrix)
        return image if slicer.vtkOrientedImageDataResample.DoGeometriesMatch(image, reference) else None

    @property
    def _start(self) -> tuple[int, int, int]:
        """First index of the grid, i j k: that of the segmentation may not be 0."""
        return tuple(self._image.GetExtent()[::2])

    # Places

    def index_at(self, ras: np.ndarray) -> tuple[int, int, int] | None:
        """The voxel [k, j, i] at a position; None outside the grid."""
        ijk = np.floor(np.linalg.solve(self.index_to_ras, [*ras, 1.0])[:3] + 0.5).astype(int)
        kji = tuple(int(n) for n in ijk[::-1])
        return kji if all(0 <= n < size for n, size in zip(kji, self.hu.shape, strict=True)) else None

    def heart(self, outline: bool) -> np.ndarray | None:
        """Where a lesion may lie: bool [k, j, i]. outline: inside the heart, else in the slices that show any of it.

        None when no heart belongs to the segmentation.
        """
        if outline not in self._hearts:
            self._hearts[outline] = self._heart(outline)
        return self._hearts[outline]

    def _heart(self, outline: bool) -> np.ndarray | None:
        from ...mrml.lesion_segments import HEART_ID
        from ...mrml.scene import HEART_ROLE

        node = self.segmentation.GetNodeReference(HEART_ROLE)
        if node is None or node.GetSegmentation().GetSegment(HEART_ID) is None:
            return None
        placed = slicer.vtkOrientedImageData()
        own = slicer.vtkOrientedImageData()
        if not node.GetBinaryLabelmapRepresentation(HEART_ID, own) or own.IsEmpty():
            return None
        slicer.vtkOrientedImageDataResample.ResampleOrientedImageToReferenceOrientedImage(own, self._image, placed)
        inside = _array(placed) != 0
        if not inside.any():
            return None
        if outline:
            return inside
        axis = 2 - int(np.argmax(np.abs(self.index_to_ras[2, :3]) / np.linalg.norm(self.index_to_ras[:3, :3], axis=0)))
        slices = inside.any(tuple(n for n in range(3) if n != axis), keepdims=True)
        return np.ascontiguousarray(np.broadcast_to(slices, inside.shape))

    # Segments

    def segment_of(self, site: Site | int) -> str:
        """Id of the segment of a site, or of what is not coronary; made where there is none."""
        from ...mrml.lesion_segments import add_lesion_segment

        return self.known_segment_of(site) or add_lesion_segment(self.segmentation, int(site))

    def known_segment_of(self, site: Site | int) -> str:
        """Id of the segment of a site, or of what is not coronary; "" where there is none."""
        collection = self.segmentation.GetSegmentation()
        labels = {own: _label(collection.GetSegment(own).GetName()) for own in collection.GetSegmentIDs()}
        return next((own for own, label in labels.items() if label == int(site)), "")

    def select(self, site: Site) -> None:
        """Make a site's segment the one that is edited."""
        self._effect.parameterSetNode().SetSelectedSegmentID(self.segment_of(site))

    def name_of(self, segment_id: str) -> str:
        """What to call a segment in a message: LAD, not "LAD: left anterior descending"."""
        segment = self.segmentation.GetSegmentation().GetSegment(segment_id)
        return "" if segment is None else segment.GetName().split(":")[0]

    def colour_of(self, segment_id: str) -> tuple[float, float, float]:
        """Red, green, blue of a segment, 0 to 1; white without one."""
        segment = self.segmentation.GetSegmentation().GetSegment(segment_id) if self.segmentation else None
        return (1.0, 1.0, 1.0) if segment is None else tuple(segment.GetColor())

    def voxels_in(self, segment_id: str, part: Place) -> np.ndarray:
        """Which voxels of a part of the grid belong to a segment: bool."""
        own, placed = self._own_labelmap(segment_id), slicer.vtkOrientedImageData()
        resample = slicer.vtkOrientedImageDataResample.ResampleOrientedImageToReferenceOrientedImage
        if own is None or not resample(own, self._box(part, allocate=True), placed):
            return np.zeros([at.stop - at.start for at in part], bool)
        return _array(placed) != 0

    def _own_labelmap(self, segment_id: str) -> slicer.vtkOrientedImageData | None:
        """A segment's voxels without those of others, on a grid that may be another; None without any."""
        own = slicer.vtkOrientedImageData()
        found = self.segmentation.GetBinaryLabelmapRepresentation(segment_id, own)
        return own if found and not own.IsEmpty() else None

    def voxels_of(self, segment_id: str) -> Voxels | None:
        """All voxels of a segment that lie on the grid; None when there are none."""
        own = self._own_labelmap(segment_id)
        if own is None:
            return None
        part = tuple(slice(0, n) for n in self.hu.shape)
        if slicer.vtkOrientedImageDataResample.DoGeometriesMatch(own, self._image):
            first = [n - start for n, start in zip(own.GetExtent()[::2], self._start, strict=True)][::-1]
            part = tuple(
                slice(min(max(n, 0), most), max(min(n + size, most), 0))
                for n, size, most in zip(first, own.GetDimensions()[::-1], self.hu.shape, strict=True)
            )
        if any(at.start >= at.stop for at in part):
            return None
        voxels = Voxels(part, self.voxels_in(segment_id, part))
        return voxels if voxels.count else None

    def sites_in(self, part: Place) -> np.ndarray:
        """Return the number of the segment of each voxel of a part of the grid: from 1, in the order of the segments'
        ids; 0 for none."""
        collection, numbers = (
            self.segmentation.GetSegmentation(),
            np.zeros([at.stop - at.start for at in part], np.uint16),
        )
        binary = slicer.vtkSegmentationConverter.GetSegmentationBinaryLabelmapRepresentationName()
        resample = slicer.vtkOrientedImageDataResample.ResampleOrientedImageToReferenceOrientedImage
        # Layer by layer: each holds many segments, and taking one segment out of its layer costs as much.
        for layer in range(collection.GetNumberOfLayers(binary)):
            labelmap, placed = collection.GetLayerDataObject(layer, binary), slicer.vtkOrientedImageData()
            if labelmap.IsEmpty() or not resample(labelmap, self._box(part, allocate=True), placed):
                continue
            labels = _array(placed)
            for segment_id in collection.GetSegmentIDsForLayer(layer, binary) if labels.any() else ():
                label = collection.GetSegment(segment_id).GetLabelValue()
                numbers[labels == label] = collection.GetSegmentIndex(segment_id) + 1
        return numbers

    def segment_at(self, kji: tuple[int, int, int]) -> str | None:
        """Id of the segment that a voxel belongs to, None for none."""
        number = int(self.sites_in(tuple(slice(n, n + 1) for n in kji))[0, 0, 0])
        return self.segmentation.GetSegmentation().GetNthSegmentID(number - 1) if number else None

    def sites_of(self, voxels: Voxels) -> dict[str, int]:
        """Return how many of some voxels belong to each segment that holds any, by the segment's id."""
        counts = np.bincount(self.sites_in(voxels.part)[voxels.mask])
        collection = self.segmentation.GetSegmentation()
        return {collection.GetNthSegmentID(int(n) - 1): int(counts[n]) for n in np.flatnonzero(counts) if n}

    def without_segments(self, kji: np.ndarray, kept: set[str]) -> np.ndarray:
        """Those of some positions [n, 3] that belong to no segment but the kept ones."""
        for segment_id in self.segmentation.GetSegmentation().GetSegmentIDs():
            voxels = None if segment_id in kept else self.voxels_of(segment_id)
            if voxels is not None and len(kji):
                low, high = ([getattr(at, end) for at in voxels.part] for end in ("start", "stop"))
                within = ((kji >= low) & (kji < high)).all(1)
                within[within] = voxels.mask[tuple((kji[within] - low).T)]
                kji = kji[~within]
        return kji

    # Editing

    def change(self, segment_id: str, add: Voxels | None, remove: Voxels | None = None) -> int:
        """Add voxels to a segment, which takes them from all others, and remove voxels from it; one step to undo.

        The editor's masking is respected. Returns how many voxels changed.
        """
        editor, node = slicer.qSlicerSegmentEditorAbstractEffect, self._effect.parameterSetNode()
        edits = []
        for voxels, mode in ((remove, editor.ModificationModeRemove), (add, editor.ModificationModeAdd)):
            if voxels is not None:
                before = self.voxels_in(segment_id, voxels.part)
                wanted = voxels.where(before != (mode == editor.ModificationModeAdd))
                edits += [(wanted, mode, before)] if wanted.count else []
        if not edits:
            return 0
        self._effect.saveStateForUndo()
        overwrite = node.GetOverwriteMode()
        # A voxel that lay in two arteries would be counted twice.
        node.SetOverwriteMode(slicer.vtkMRMLSegmentEditorNode.OverwriteAllSegments)
        try:
            for voxels, mode, _before in edits:
                self._effect.modifySegmentByLabelmap(self.segmentation, segment_id, self.labelmap(voxels), mode)
        finally:
            node.SetOverwriteMode(overwrite)
        return sum(int((self.voxels_in(segment_id, voxels.part) != before).sum()) for voxels, _mode, before in edits)

    def labelmap(self, voxels: Voxels) -> slicer.vtkOrientedImageData:
        """Voxels as the editor takes them: an image of their part alone."""
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

    # What belongs to the segmentation

    def volume_of_role(self, role: str) -> tuple[np.ndarray, np.ndarray] | None:
        """A volume that the segmentation refers to: its values [k, j, i], and 4 × 4 from the grid's voxels to its own.

        None when there is none.
        """
        volume = self.segmentation.GetNodeReference(role)
        if volume is None or volume.GetImageData() is None:
            return None
        matrix = vtk.vtkMatrix4x4()
        volume.GetIJKToRASMatrix(matrix)
        to_ras = arrayFromVTKMatrix(matrix)
        if volume.GetParentTransformNode() is not None:
            slicer.vtkMRMLTransformNode.GetMatrixTransformBetweenNodes(volume.GetParentTransformNode(), None, matrix)
            to_ras = arrayFromVTKMatrix(matrix) @ to_ras
        return _array(volume.GetImageData()), np.linalg.solve(to_ras, self.index_to_ras)

    def threshold_hu(self) -> float | None:
        """The threshold on the CT that the segmentation's scan was scored with; None when it is of no result of ours.

        Also of a calcium map's lesions, whose own rule has a threshold on the map: the CT has that much everywhere.
        """
        record = self._record()
        return float(record["rules"]["threshold"]["threshold_hu"]) if record else None

    def floor_hu(self) -> float | None:
        """The floor below which the segmentation's calcium map is 0; None when it is of no result of ours."""
        settings = self._record().get("decomposition_settings")
        return float(settings["floor_hu"]) if settings else None

    def _record(self) -> dict:
        """The record of the result that the segmentation belongs to; empty when it is of none."""
        from ...core.ct import CTError
        from ...mrml.scene import LESION_METHODS, nodes_of_record, records_in

        for record in records_in(self._effect.scene()):
            try:
                nodes = nodes_of_record(self._effect.scene(), record)
            except CTError:
                continue
            if self.segmentation in [getattr(nodes, key) for key in LESION_METHODS]:
                return json.loads(record.GetText())
        return {}


def _label(name: str) -> int:
    """Of a lesion segment; 0 of any other."""
    from ...core.ct import CTError
    from ...core.labels import label_called

    try:
        return label_called(name)
    except CTError:
        return 0


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
