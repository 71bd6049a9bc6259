"""The state of a review in nodes: labels in segments, slices in a table, and what is reviewed in attributes.

Read and written here, and nowhere kept.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import SimpleITK as sitk
import slicer
from vtk.util.numpy_support import vtk_to_numpy

from ..core.ct import MaskError, UnreadableError
from ..core.labels import TERRITORIES, Labelled
from ..mrml.lesion_segments import HEART_ID, add_lesion_segment, label_of_segment
from ..mrml.scene import LESION_METHODS, REVIEWED_ATTRIBUTE, SceneNodes, image_of_volume
from ..mrml.scene_content import SliceRow, slice_position_ras
from ..mrml.segments import SegmentWriter, segment_mask, voxels_of_segments
from ..quality.normalisation import Normalisation
from .record import estimates_of_record, scan_of_record, whole_map


class ReviewNodes:
    """The nodes of a review.

    scan: the CT, with axes as in `CTScan` and the facts of the record; scored: the same as it was scored, normalised
    where the run was. heart: mask on its grid. record: the content of
    `scores.json`. estimates: those recorded. methods: those that have a segmentation of lesions. writing: whether nodes
    are being written, so that whoever observes them must not take what they see for an edit.

    Raises UnreadableError when the nodes do not fit together, and CTErrors as `image_of_volume` does.
    """

    def __init__(self, nodes: SceneNodes) -> None:
        self.nodes = nodes
        self.record = json.loads(nodes.record.GetText())
        self.estimates = estimates_of_record(self.record)
        own = image_of_volume(nodes.volume)
        self.scan = scan_of_record(own, self.record, nodes.volume.GetName())
        normalisation = Normalisation.recorded(self.record)
        self.scored = self.scan if normalisation is None else normalisation.of(self.scan)
        self.heart = _heart_mask(nodes.heart, self.scan.image)
        self._segmentations = {
            method: getattr(nodes, key)
            for key, method in LESION_METHODS.items()
            if getattr(nodes, key) is not None and method in self.record["methods"]
        }
        self.methods = tuple(self._segmentations)
        self._writers = {m: SegmentWriter(node, self.scan.image, own) for m, node in self._segmentations.items()}
        self.writing = False
        self._centres = [slice_position_ras(self.scan.image, k) for k in range(self.scan.image.GetSize()[2])]

    def calcium_map(self) -> sitk.Image:
        """The calcium map on the scan's grid. Raises UnreadableError when it is on another."""
        node = self.nodes.calcium_map
        return whole_map(image_of_volume(node), self.scan.image, node.GetName())

    def saliency(self) -> sitk.Image | None:
        """Of a whole-scan estimate, on the scan's grid; None without one. Raises UnreadableError when it is another."""
        return None if self.nodes.saliency is None else self._on_scans_grid(self.nodes.saliency)

    def _on_scans_grid(self, volume: slicer.vtkMRMLScalarVolumeNode) -> sitk.Image:
        found = image_of_volume(volume)
        if found.GetSize() != self.scan.image.GetSize():
            raise UnreadableError(f"{volume.GetName()} no longer has the CT's size. Score again.")
        found.CopyInformation(self.scan.image)
        return found

    def territories(self) -> sitk.Image | None:
        """Labels of `TERRITORIES` on the scan's grid; None where the run knew none."""
        if self.nodes.territories is None:
            return None
        found = voxels_of_segments(self.nodes.territories, self.scan.image, _territory)
        labels = np.zeros(self.scan.image.GetSize()[::-1], np.uint8)
        labels.reshape(-1)[found.flat] = found.values
        image = sitk.GetImageFromArray(labels)
        image.CopyInformation(self.scan.image)
        return image

    # Labels

    def signature(self, method: str) -> tuple:
        """What differs whenever the labels of a method may have changed; costs next to nothing."""
        node = self._segmentations[method]
        collection = node.GetSegmentation()
        layers = [collection.GetLayerDataObject(n).GetMTime() for n in range(collection.GetNumberOfLayers())]
        segments = []
        for segment_id in collection.GetSegmentIDs():
            segment = collection.GetSegment(segment_id)
            segments.append((segment_id, segment.GetName(), segment.GetLabelValue()))
        return tuple(layers), tuple(segments), node.GetTransformNodeID()

    def labelled(self, method: str) -> Labelled:
        """The labels of a method. Raises MaskError when a voxel belongs to two segments or to one that is no artery."""
        return voxels_of_segments(self._segmentations[method], self.scan.image, label_of_segment)

    def write(self, method: str, labelled: Labelled) -> None:
        """Give voxels to the segments of their labels, and take those with 0 from all."""
        with self._while_writing():
            self._write(method, labelled)

    def write_all(self, method: str, labelled: Labelled) -> None:
        """Give voxels to the segments of their labels, and take all others from all segments."""
        with self._while_writing():
            self._writers[method].empty()
            self._write(method, labelled)

    def _write(self, method: str, labelled: Labelled) -> None:
        for label in np.unique(labelled.values).tolist():
            flat = labelled.flat[labelled.values == label]
            if label == 0:
                self._writers[method].clear(flat)
            else:
                self._writers[method].set(flat, self._segment_id(method, label))

    @contextmanager
    def _while_writing(self) -> Iterator[None]:
        self.writing = True
        try:
            yield
        finally:
            self.writing = False

    def _segment_id(self, method: str, label: int) -> str:
        node = self._segmentations[method]
        collection = node.GetSegmentation()
        for segment_id in collection.GetSegmentIDs():
            try:
                if label_of_segment(collection.GetSegment(segment_id).GetName()) == label:
                    return segment_id
            except MaskError:
                continue  # a segment of the user's own
        return add_lesion_segment(node, label)

    # Slices and marks

    def slices(self) -> list[SliceRow]:
        """The slices of the scan in the calcium map; none without one. Raises UnreadableError."""
        if self.nodes.slices is None:
            return []
        table = self.nodes.slices.GetTable()
        columns = [table.GetColumnByName(name) for name in ("Slice", "Probability", "Used", "Decomposed")]
        if None in columns:
            raise UnreadableError(f"{self.nodes.slices.GetName()} has lost columns. Score the scan again.")
        rows = []
        for k, probability, used, decomposed in zip(*map(vtk_to_numpy, columns), strict=True):
            known = None if np.isnan(probability) else float(probability)
            rows.append(SliceRow(int(k), self._centres[k], known, bool(used), bool(decomposed)))
        return rows

    def set_used(self, used: dict[int, bool]) -> None:
        """Mark slices, by k, as used or not."""
        table = self.nodes.slices.GetTable()
        numbers, column = vtk_to_numpy(table.GetColumnByName("Slice")), table.GetColumnByName("Used")
        with self._while_writing():
            for k, on in used.items():
                column.SetValue(int(np.flatnonzero(numbers == k)[0]), int(on))
            column.Modified()
            self.nodes.slices.Modified()

    def reviewed(self) -> dict[str, bool]:
        """Whether a reader has said that the review is done, by method."""
        return {method: node.GetAttribute(REVIEWED_ATTRIBUTE) == "1" for method, node in self._segmentations.items()}

    def set_reviewed(self, method: str, on: bool) -> None:
        """Mark a method as reviewed, or not."""
        with self._while_writing():
            self._segmentations[method].SetAttribute(REVIEWED_ATTRIBUTE, "1" if on else "0")


def _territory(name: str) -> int:
    return TERRITORIES.index(name) if name in TERRITORIES else 0


def _heart_mask(heart: slicer.vtkMRMLSegmentationNode, image: sitk.Image) -> sitk.Image:
    mask = sitk.GetImageFromArray(segment_mask(heart, HEART_ID, image).view(np.uint8))
    mask.CopyInformation(image)
    return mask
