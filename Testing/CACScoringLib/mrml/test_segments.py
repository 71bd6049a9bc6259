"""Tests of converting segmentations to a scan's grid and back, against SimpleITK's resampling."""

import itertools

import numpy as np
import pytest
import SimpleITK as sitk
import slicer
from images import image_of

from CACScoringLib.core.errors import MaskError, SliceGeometryError
from CACScoringLib.mrml.segments import SegmentWriter, oriented_image, segment_mask, voxels_of_segments, vtk_array

SHAPE = (7, 9, 11)  # k, j, i
ORIENTATIONS = ["".join(letters) for letters in itertools.product("RL", "AP", "IS")] + ["SAL", "ILP", "PSR"]


def labels_image(seed=0, filled=0.3) -> sitk.Image:
    rng = np.random.default_rng(seed)
    values = rng.integers(1, 4, SHAPE) * (rng.random(SHAPE) < filled)
    return image_of(values.astype(np.uint8), (0.7, 0.9, 2.5), (-12.0, 30.5, 400.0))


def segmentation_of(scene, labels: sitk.Image, layers=False) -> slicer.vtkMRMLSegmentationNode:
    """Return segments "1", "2", "3" of the labels 1, 2, 3, in one layer or in one layer each."""
    node = scene.AddNewNodeByClass("vtkMRMLSegmentationNode", "segments")
    name = slicer.vtkSegmentationConverter.GetSegmentationBinaryLabelmapRepresentationName()
    values, shared = sitk.GetArrayFromImage(labels), None
    for label in (1, 2, 3):
        if layers or shared is None:
            shared = oriented_image(labels, (0, 0, 0), labels.GetSize())
            shared.GetPointData().SetScalars(vtk_array((values == label).astype(np.uint8) if layers else values))
        segment = slicer.vtkSegment()
        segment.SetName(f"segment {label}")
        segment.SetLabelValue(1 if layers else label)
        segment.AddRepresentation(name, shared)
        node.GetSegmentation().AddSegment(segment, str(label))
    return node


def label_of(name):
    return int(name.removeprefix("segment "))


def dense(labelled, grid) -> np.ndarray:
    values = np.zeros(grid.GetSize()[::-1], np.uint8)
    values.reshape(-1)[labelled.flat] = labelled.values
    return values


def expected_on(labels: sitk.Image, grid: sitk.Image) -> np.ndarray:
    return sitk.GetArrayFromImage(sitk.Resample(labels, grid, sitk.Transform(), sitk.sitkNearestNeighbor, 0))


@pytest.mark.parametrize("layers", [False, True], ids=["one layer", "a layer each"])
@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_any_axis_order_is_read_exactly(scene, orientation, layers):
    grid = labels_image()
    oriented = sitk.DICOMOrient(grid, orientation)
    node = segmentation_of(scene, oriented, layers)
    labelled = voxels_of_segments(node, grid, label_of)
    np.testing.assert_array_equal(dense(labelled, grid), sitk.GetArrayFromImage(grid))
    assert (np.diff(labelled.flat) > 0).all()
    for label in (1, 2, 3):
        np.testing.assert_array_equal(
            segment_mask(node, str(label), grid), sitk.GetArrayFromImage(grid) == label, strict=True
        )


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_only_voxels_in_the_grid_are_read(scene, orientation):
    """Read a segmentation that extends beyond the grid on some sides and ends within it on others."""
    labels = labels_image()
    node = segmentation_of(scene, sitk.DICOMOrient(labels, orientation))
    rng = np.random.default_rng(sum(map(ord, orientation)))
    for _ in range(10):
        grid = sitk.Image([int(n) for n in rng.integers(3, 14, 3)], sitk.sitkUInt8)
        grid.SetSpacing(labels.GetSpacing())
        grid.SetOrigin(labels.TransformIndexToPhysicalPoint([int(n) for n in rng.integers(-6, 9, 3)]))
        expected = expected_on(labels, grid)
        np.testing.assert_array_equal(dense(voxels_of_segments(node, grid, label_of), grid), expected)
        np.testing.assert_array_equal(segment_mask(node, "2", grid), expected == 2)


def test_voxels_that_do_not_meet_are_resampled(scene):
    labels = labels_image()
    node = segmentation_of(scene, labels)
    finer = sitk.Image([21, 17, 13], sitk.sitkUInt8)
    finer.SetSpacing((0.34, 0.43, 1.3))
    finer.SetOrigin(labels.GetOrigin())
    expected = expected_on(labels, finer)
    np.testing.assert_array_equal(dense(voxels_of_segments(node, finer, label_of), finer), expected)
    shifted = sitk.Image(labels)
    shifted.SetOrigin((-12.0 + 0.2 * 0.7, 30.5, 400.0))
    np.testing.assert_array_equal(segment_mask(node, "1", shifted), expected_on(labels, shifted) == 1)


class TestOverlap:
    def test_is_reported_with_the_segments_names(self, scene):
        grid = labels_image()
        node = segmentation_of(scene, grid, layers=True)
        SegmentWriter(node, grid, grid)._modify(oriented_ones(grid), "2", MASK)
        count = int((sitk.GetArrayFromImage(grid) == 1).sum() + (sitk.GetArrayFromImage(grid) == 3).sum())
        with pytest.raises(
            MaskError, match=rf"{count} voxels of segments belong to two segments, .*segment 1.*segment 2"
        ):
            voxels_of_segments(node, grid, label_of)


MASK = slicer.vtkSlicerSegmentationsModuleLogic.MODE_MERGE_MASK


def oriented_ones(grid):
    image = oriented_image(grid, (0, 0, 0), grid.GetSize())
    image.GetPointData().SetScalars(vtk_array(np.ones(SHAPE, np.uint8)))
    return image


def test_segments_without_voxels_need_no_label(scene):
    grid = labels_image()
    node = segmentation_of(scene, grid * 0 + sitk.Cast(grid == 2, sitk.sitkUInt8) * 2)
    names = []
    voxels_of_segments(node, grid, lambda name: names.append(name) or 1)
    assert names == ["segment 2"]


@pytest.mark.parametrize("layers", [False, True], ids=["one layer", "a layer each"])
@pytest.mark.parametrize("orientation", ["LPS", "RAI", "SAL", "ILP"])
class TestWriter:
    def prepare(self, scene, orientation, layers):
        grid = labels_image()
        oriented = sitk.DICOMOrient(grid, orientation)
        node = segmentation_of(scene, oriented, layers)
        return grid, node, SegmentWriter(node, grid, oriented)

    def test_set_voxels_belong_to_a_single_segment(self, scene, orientation, layers):
        grid, node, writer = self.prepare(scene, orientation, layers)
        expected = sitk.GetArrayFromImage(grid)
        rng = np.random.default_rng(2)
        for label in (1, 3, 2, 2):
            flat = np.sort(rng.choice(expected.size, 60, replace=False))
            writer.set(flat, str(label))
            expected.reshape(-1)[flat] = label
            np.testing.assert_array_equal(dense(voxels_of_segments(node, grid, label_of), grid), expected)
        assert node.GetSegmentation().GetNumberOfLayers() == (3 if layers else 1)

    def test_cleared_voxels_belong_to_none(self, scene, orientation, layers):
        grid, node, writer = self.prepare(scene, orientation, layers)
        expected = sitk.GetArrayFromImage(grid)
        flat = np.arange(100, 500)
        writer.clear(flat)
        expected.reshape(-1)[flat] = 0
        np.testing.assert_array_equal(dense(voxels_of_segments(node, grid, label_of), grid), expected)

    def test_empty(self, scene, orientation, layers):
        grid, node, writer = self.prepare(scene, orientation, layers)
        writer.empty()
        assert not voxels_of_segments(node, grid, label_of).flat.size
        writer.set(np.array([5, 300]), "3")
        labelled = voxels_of_segments(node, grid, label_of)
        assert (labelled.flat.tolist(), labelled.values.tolist()) == ([5, 300], [3, 3])


def test_writer_of_another_grid(scene):
    grid = labels_image()
    finer = sitk.Image(grid)
    finer.SetSpacing((0.8, 0.9, 2.5))
    with pytest.raises(MaskError, match="segments does not lie on its scan's voxels"):
        SegmentWriter(segmentation_of(scene, grid), grid, finer)


def test_under_a_transform(scene):
    grid = labels_image()
    node = segmentation_of(scene, grid)
    node.SetAndObserveTransformNodeID(scene.AddNewNodeByClass("vtkMRMLLinearTransformNode", "shift").GetID())
    with pytest.raises(SliceGeometryError, match="segments lies under a transform"):
        voxels_of_segments(node, grid, label_of)
