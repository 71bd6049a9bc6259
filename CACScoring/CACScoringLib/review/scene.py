"""A scored scan in a scene, whose lesions a reader edits.

The nodes are the only state: labels in segments, slices in a table, marks in attributes. Lesions and numbers are
derived from them, whatever edited them (the panel, our effects, Slicer's own, undo), so that a scene that is saved and
opened again can be edited on. Knows no Qt.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import asdict

import numpy as np
import SimpleITK as sitk
import slicer
from vtk.util.numpy_support import vtk_to_numpy

from ..core.ct import same_grid
from ..core.decoding import restore
from ..core.errors import MaskError, UnreadableError, WrongValueError
from ..core.files import parse_json
from ..core.labels import TERRITORIES, Labelled, label_called
from ..core.voxels import voxels_of
from ..mrml import scene as mrml
from ..mrml.lesion_segments import HEART_ID, PERICARDIUM_ID, add_lesion_segment
from ..mrml.scene_content import SceneContent, SliceRow, slice_position_ras
from ..mrml.segments import SegmentWriter, mask_image, voxels_of_segments
from ..mrml.tables import fill_table, lesion_table, score_table
from ..record.score_record import record_from_text
from .review import Difference
from .scan_review import ScanReview
from .state import ReviewChange, ReviewNotes, ReviewState, whole_map


class ReviewNodes(ReviewState):
    """The nodes of a review.

    Args:
        nodes: Nodes of the scene.
        content: Content from which the nodes were just created, to reuse its large images.

    Raises:
        CTError: The nodes do not fit together, or the volume cannot be read (see `image_of_volume`).
    """

    def __init__(self, nodes: mrml.SceneNodes, content: SceneContent | None = None) -> None:
        self.nodes = nodes
        image = (
            mrml.image_of_volume(nodes.volume) if content is None else mrml.image_on_grid_of(nodes.volume, content.ct)
        )
        self._whole_map = None if content is None else content.whole_map
        record = record_from_text(nodes.record.GetText(), nodes.record.GetName())
        segmentations = {method: getattr(nodes, key) for key, method in mrml.LESION_METHODS.items()}
        self._segmentations = {m: node for m, node in segmentations.items() if node is not None and m in record.methods}
        super().__init__(record, image, nodes.volume.GetName(), self._segmentations)
        self.heart = voxels_of(mask_image(nodes.heart, HEART_ID, self.scan.image)) != 0
        self._writers = {m: SegmentWriter(node, self.scan.image, image) for m, node in self._segmentations.items()}
        self._centres = [slice_position_ras(self.scan.image, k) for k in range(self.scan.image.GetSize()[2])]

    def whole_map(self) -> sitk.Image:
        calcium_map = self._whole_map
        if calcium_map is None or not same_grid(calcium_map, self.scan.image):
            return whole_map(mrml.image_of_volume(self.nodes.calcium_map), self.scan.image)
        calcium_map.CopyInformation(self.scan.image)  # a file rounds the spacing
        return calcium_map

    def saliency(self) -> sitk.Image | None:
        if self.nodes.saliency is None:
            return None
        saliency = mrml.image_of_volume(self.nodes.saliency)
        if saliency.GetSize() != self.scan.image.GetSize():
            raise UnreadableError(f"{self.nodes.saliency.GetName()} no longer has the CT's size. Score again.")
        saliency.CopyInformation(self.scan.image)
        return saliency

    def territories(self) -> np.ndarray | None:
        if self.nodes.territories is None:
            return None
        numbers = {name: number for number, name in enumerate(TERRITORIES)}
        labelled = voxels_of_segments(self.nodes.territories, self.scan.image, lambda name: numbers.get(name, 0))
        labels = np.zeros(self.scan.image.GetSize()[::-1], np.uint8)
        labels.reshape(-1)[labelled.flat] = labelled.values
        return labels

    def pericardium(self) -> np.ndarray | None:
        node = self.nodes.pericardium
        if node is None or node.GetSegmentation().GetSegment(PERICARDIUM_ID) is None:
            return None
        return voxels_of(mask_image(node, PERICARDIUM_ID, self.scan.image)) != 0

    def pericardium_signature(self) -> object:
        return None if self.nodes.pericardium is None else _signature(self.nodes.pericardium)

    def signature(self, method: str) -> object:
        return _signature(self._segmentations[method])

    def labelled(self, method: str) -> Labelled:
        return voxels_of_segments(self._segmentations[method], self.scan.image, label_called)

    def write(self, method: str, labelled: Labelled, alone: bool = False) -> None:
        with self._while_writing():
            if alone:
                self._writers[method].empty()
            _write_labels(self._segmentations[method], self._writers[method], labelled)

    @contextmanager
    def _while_writing(self) -> Iterator[None]:
        self.writing = True
        try:
            yield
        finally:
            self.writing = False

    def slices(self) -> list[SliceRow]:
        if self.nodes.slices is None:
            return []
        table = self.nodes.slices.GetTable()
        columns = [table.GetColumnByName(name) for name in ("Slice", "Probability", "Used", "Decomposed")]
        if None in columns:
            raise UnreadableError(f"{self.nodes.slices.GetName()} has lost columns. Score the scan again.")
        rows = []
        for k, probability, used, decomposed in zip(*map(vtk_to_numpy, columns), strict=True):
            value = None if np.isnan(probability) else float(probability)
            rows.append(SliceRow(int(k), self._centres[k], value, bool(used), bool(decomposed)))
        return rows

    def set_used(self, used: dict[int, bool]) -> None:
        if (node := self.nodes.slices) is None:
            return
        table = node.GetTable()
        numbers, column = vtk_to_numpy(table.GetColumnByName("Slice")), table.GetColumnByName("Used")
        with self._while_writing():
            for k, on in used.items():
                column.SetValue(int(np.flatnonzero(numbers == k)[0]), int(on))
            column.Modified()
            node.Modified()

    def reviewed(self) -> dict[str, bool]:
        return {
            method: node.GetAttribute(mrml.REVIEWED_ATTRIBUTE) == "1" for method, node in self._segmentations.items()
        }

    def set_reviewed(self, method: str, on: bool) -> None:
        with self._while_writing():
            self._segmentations[method].SetAttribute(mrml.REVIEWED_ATTRIBUTE, "1" if on else "0")

    def notes(self, method: str) -> ReviewNotes:
        text = self._segmentations[method].GetAttribute(mrml.NOTES_ATTRIBUTE)
        try:
            return self.recorded_notes(method) if text is None else restore(parse_json(text), ReviewNotes)
        except (ValueError, WrongValueError) as error:
            name = self._segmentations[method].GetName()
            raise UnreadableError(f"The notes on the review of {name} are damaged ({error}). Score again.") from error

    def set_notes(self, method: str, notes: ReviewNotes) -> None:
        with self._while_writing():
            self._segmentations[method].SetAttribute(mrml.NOTES_ATTRIBUTE, json.dumps(asdict(notes)))


class SceneReview(ScanReview):
    """A scored scan in a scene whose lesions a reader edits.

    Args:
        scene: The scene.
        nodes: Nodes of the scan and its results.
        content: As of `ReviewNodes`.
        record_change: As of `ScanReview`.

    Raises:
        CTError: As `ScanReview` and `image_of_volume` do.
    """

    def __init__(
        self,
        scene: slicer.vtkMRMLScene,
        nodes: mrml.SceneNodes,
        content: SceneContent | None = None,
        record_change: Callable[[str, ReviewChange], None] | None = None,
    ) -> None:
        self.scene = scene
        self.nodes = nodes
        super().__init__(ReviewNodes(nodes, content), record_change=record_change)

    @classmethod
    def of_record(cls, scene: slicer.vtkMRMLScene, record: slicer.vtkMRMLTextNode) -> SceneReview:
        """Return the review of a result in a reopened scene; see `mrml.scene.nodes_of_record`."""
        return cls(scene, mrml.nodes_of_record(scene, record))

    def update_tables(self) -> None:
        """Write the numbers into the table nodes. A method with a problem has no rows."""
        record = self.as_result(images=False).record
        fill_table(self.nodes.scores, score_table(record))
        fill_table(self.nodes.lesions, lesion_table(record))

    def _take_in_voxels(self) -> dict[str, Difference]:
        changed = super()._take_in_voxels()
        if changed:
            mrml.keep_in_folder(self.scene, self.nodes)
        return changed


def take_over_review(
    before: mrml.SceneNodes, after: mrml.SceneNodes, slices: Collection[int], grid: sitk.Image
) -> None:
    """Copy a reader's work from a result of a scan to a later one, whose calcium map has further slices.

    The map's lesions in these slices are the later result's; its confirmation ends, because nobody has seen them.

    Args:
        before: Nodes of the earlier result.
        after: Nodes of the later one, on the same CT.
        slices: Index k of the further slices.
        grid: The scan.
    """
    assert after.map_lesions is not None
    in_slices = voxels_of_segments(after.map_lesions, grid, label_called)
    in_slices = in_slices.where(np.isin(np.unravel_index(in_slices.flat, grid.GetSize()[::-1])[0], list(slices)))
    for key in (*mrml.LESION_METHODS, "pericardium"):
        old, new = getattr(before, key), getattr(after, key)
        if old is None or new is None:
            continue
        new.GetSegmentation().DeepCopy(old.GetSegmentation())
        for name in (mrml.REVIEWED_ATTRIBUTE, mrml.NOTES_ATTRIBUTE):
            if (value := old.GetAttribute(name)) is not None:
                new.SetAttribute(name, value)
    writer = SegmentWriter(after.map_lesions, grid, mrml.image_of_volume(after.volume))
    _write_labels(after.map_lesions, writer, in_slices)
    after.map_lesions.SetAttribute(mrml.REVIEWED_ATTRIBUTE, "0")


def _write_labels(node: slicer.vtkMRMLSegmentationNode, writer: SegmentWriter, labelled: Labelled) -> None:
    """Write labels into a node's segments, 0 into none."""
    for label in np.unique(labelled.values).tolist():
        flat = labelled.flat[labelled.values == label]
        if label == 0:
            writer.clear(flat)
        else:
            writer.set(flat, _segment_id(node, label))


def _segment_id(node: slicer.vtkMRMLSegmentationNode, label: int) -> str:
    collection = node.GetSegmentation()
    for segment_id in collection.GetSegmentIDs():
        try:
            if label_called(collection.GetSegment(segment_id).GetName()) == label:
                return segment_id
        except MaskError:
            continue  # a segment of the user's own
    return add_lesion_segment(node, label)


def _signature(node: slicer.vtkMRMLSegmentationNode) -> object:
    collection = node.GetSegmentation()
    layers = [collection.GetLayerDataObject(n).GetMTime() for n in range(collection.GetNumberOfLayers())]
    segments = ((segment_id, collection.GetSegment(segment_id)) for segment_id in collection.GetSegmentIDs())
    properties = [(segment_id, segment.GetName(), segment.GetLabelValue()) for segment_id, segment in segments]
    return tuple(layers), tuple(properties), node.GetTransformNodeID()
