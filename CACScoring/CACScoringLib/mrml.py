"""Results into a MRML scene, and nodes back to images.

Runs on the slicer-core package and inside 3D Slicer. Every function takes its scene and nodes as arguments.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import SimpleITK as sitk
import slicer
import vtk
from vtk.util.numpy_support import get_vtk_array_type, numpy_to_vtk, vtk_to_numpy

from .ct import MaskError, NotVolumeError, SliceGeometryError
from .lesions import Artery
from .output import OutputError
from .pictures import ARTERY_COLOURS, HEART_COLOUR, WINDOW_HU
from .scene_content import LesionRow, SceneContent, ScoreRow, content_of_result
from .scores import Score

if TYPE_CHECKING:
    from .pipeline import ScoreResult

TERMINOLOGY = "Coronary artery calcium"
"""Name of the extension's own terminology: Resources/Terminology/CoronaryArteryCalcium.term.json."""

HEART_ID = "heart"
"""Segment id of the heart; the calcium segments' ids are the arteries' keys."""

MAP_WINDOW_HU = 200.0
MAP_LEAST_HU = 1.0
"""Of the calcium map in views: brightest from the first on, clear below the second."""

_ANATOMY = "Segmentation category and type - 3D Slicer General Anatomy list"
_REGIONS = "Anatomic codes - DICOM master list"
_PLAQUE = "SCT^49755003^Morphologically Altered Structure~SCT^29483008^Calcified atheromatous plaque~^^"
# Nobody has said that an unassigned candidate is a plaque, nor where it lies.
_CALCIUM = "SCT^91720002^Body Substance~SCT^5540006^Calcium~^^"
_ARTERY_REGIONS = {
    Artery.LM: "SCT^3227004^Left Main Coronary Artery",
    Artery.LAD: "SCT^59438005^Left Anterior Descending Coronary Artery",
    Artery.LCX: "SCT^57396003^Circumflex Coronary Artery",
    Artery.RCA: "SCT^13647002^Right Coronary Artery",
    Artery.OTHER: "SCT^41801008^Coronary artery",
}
_HEART_TERMINOLOGY = (
    f"{_ANATOMY}~SCT^123037004^Anatomical Structure~SCT^80891009^Heart~^^~Anatomic codes - DICOM master list~^^~^^"
)


def artery_terminology(artery: Artery) -> str:
    """Slicer's seven-part terminology entry (SNOMED CT) of an artery's calcium segment."""
    if artery == Artery.UNASSIGNED:
        return f"{TERMINOLOGY}~{_CALCIUM}~{_REGIONS}~^^~^^"
    return f"{TERMINOLOGY}~{_PLAQUE}~{_REGIONS}~{_ARTERY_REGIONS[artery]}~^^"


@dataclass(frozen=True)
class SceneNodes:
    """The nodes of one result. calcium_map, healthy: None without a decomposition. folder: subject hierarchy item."""

    volume: slicer.vtkMRMLScalarVolumeNode
    heart: slicer.vtkMRMLSegmentationNode
    calcium: slicer.vtkMRMLSegmentationNode
    scores: slicer.vtkMRMLTableNode
    lesions: slicer.vtkMRMLTableNode
    folder: int
    calcium_map: slicer.vtkMRMLScalarVolumeNode | None = None
    healthy: slicer.vtkMRMLScalarVolumeNode | None = None


def add_to_scene(
    scene: slicer.vtkMRMLScene, content: SceneContent, volume: slicer.vtkMRMLScalarVolumeNode | None = None
) -> SceneNodes:
    """Show a result in a scene.

    volume: the node that holds the CT already; it is left as it is, and heart and calcium are laid on its own
    grid. When None, a node is made from the content's CT, with the window of the report's pictures.

    Raises as `image_of_volume` does, before anything is added.
    """
    grid = content.ct if volume is None else image_of_volume(volume)
    heart_mask, lesion_labels = _on_grid(content.heart, grid), _on_grid(content.lesions, grid)
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)
    folder = hierarchy.CreateFolderItem(hierarchy.GetSceneItemID(), f"Calcium score of {content.name}")
    if volume is None:
        volume = add_volume(scene, content.ct, content.name)
        _put_under(hierarchy, folder, volume)
    elif own_item := hierarchy.GetItemByDataNode(volume):
        hierarchy.SetItemParent(folder, hierarchy.GetItemParent(own_item))

    heart_style = [_Segment(1, HEART_ID, "Heart region", HEART_COLOUR, _HEART_TERMINOLOGY)]
    heart = _add_segmentation(scene, f"Heart of {content.name}", volume, heart_mask, heart_style)
    heart.GetDisplayNode().SetVisibility2DFill(False)
    heart.GetDisplayNode().SetVisibility3D(False)
    calcium_styles = [_Segment(a, a.key, _segment_name(a), ARTERY_COLOURS[a], artery_terminology(a)) for a in Artery]
    calcium = _add_segmentation(scene, f"Calcium of {content.name}", volume, lesion_labels, calcium_styles)
    calcium.GetDisplayNode().SetOpacity2DFill(0.3)

    scores = _add_table(scene, f"Scores of {content.name}", _score_columns(content.scores))
    rows = _add_table(scene, f"Lesions of {content.name}", _lesion_columns(content.lesion_rows))
    calcium_map = healthy = None
    if content.calcium_map is not None and content.healthy is not None:
        healthy = add_volume(scene, content.healthy, f"Healthy image of {content.name}")
        calcium_map = add_volume(scene, content.calcium_map, f"Calcium map of {content.name}")
        _show_as_map(calcium_map.GetDisplayNode())
    for node in (heart, calcium, scores, rows, healthy, calcium_map):
        if node is not None:
            _put_under(hierarchy, folder, node)
    return SceneNodes(volume, heart, calcium, scores, rows, folder, calcium_map, healthy)


def write_scene(path: Path, result: ScoreResult, identify: bool = False) -> None:
    """Write a result as a scene (.mrb) that opens in 3D Slicer. The file is whole or not there.

    identify: put the patient's name into the scene. Raises OutputError.
    """
    path = path.absolute()  # a relative path makes the scene's writer fail
    # Makes the conversion rules of segmentations known, which the application does on start.
    _segmentations_logic()
    scene = slicer.vtkMRMLScene()
    nodes = add_to_scene(scene, content_of_result(result, identify))
    for view in ("Red", "Green", "Yellow"):
        _show_in_view(scene, view, nodes.volume, nodes.calcium_map)
    messages = slicer.vtkMRMLMessageCollection()
    try:
        with tempfile.TemporaryDirectory(prefix=f".{path.name}.partial-", dir=path.parent) as temporary:
            written = Path(temporary) / path.name
            if not scene.WriteToMRB(str(written), None, messages):
                raise OutputError(f"The scene {path} cannot be written: {messages.GetAllMessagesAsString()}")
            written.replace(path)
    except OSError as error:
        raise OutputError(f"The scene {path} cannot be written: {error.strerror}.") from error


def _segmentations_logic() -> vtk.vtkObject:
    try:
        return slicer.vtkSlicerSegmentationsModuleLogic()
    except AttributeError:
        # Slicer's own Python, run without the application, has the class in its module only.
        from vtkSlicerSegmentationsModuleLogicPython import vtkSlicerSegmentationsModuleLogic

        return vtkSlicerSegmentationsModuleLogic()


def _show_in_view(
    scene: slicer.vtkMRMLScene,
    name: str,
    volume: slicer.vtkMRMLScalarVolumeNode,
    over: slicer.vtkMRMLScalarVolumeNode | None,
) -> None:
    # A singleton: the application takes its contents over into its own view of that name.
    view = slicer.vtkMRMLSliceCompositeNode()
    view.SetSingletonTag(name)
    view.SetLayoutName(name)
    view.SetName(name)
    view = scene.AddNode(view)
    view.SetBackgroundVolumeID(volume.GetID())
    if over is not None:
        view.SetForegroundVolumeID(over.GetID())
        view.SetForegroundOpacity(0.5)


def _show_as_map(display: slicer.vtkMRMLScalarVolumeDisplayNode) -> None:
    """Red where there is calcium, nothing elsewhere, so that it can lie over the CT."""
    display.SetAndObserveColorNodeID("vtkMRMLColorTableNodeRed")
    display.SetWindowLevel(MAP_WINDOW_HU, MAP_WINDOW_HU / 2)
    display.AutoThresholdOff()
    display.SetLowerThreshold(MAP_LEAST_HU)
    display.ApplyThresholdOn()


# Nodes and images


def add_volume(scene: slicer.vtkMRMLScene, image: sitk.Image, name: str) -> slicer.vtkMRMLScalarVolumeNode:
    """Make a volume node of an image, shown in the window of the report's pictures."""
    volume = scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", name)
    data = vtk.vtkImageData()
    data.SetDimensions(image.GetSize())
    data.GetPointData().SetScalars(_vtk_array(sitk.GetArrayViewFromImage(image)))
    volume.SetAndObserveImageData(data)
    volume.SetIJKToRASDirections(*_flipped(np.reshape(image.GetDirection(), (3, 3))).reshape(-1))
    volume.SetSpacing(image.GetSpacing())
    volume.SetOrigin(_flipped(np.array(image.GetOrigin())))
    volume.CreateDefaultDisplayNodes()
    display = volume.GetDisplayNode()
    low, high = WINDOW_HU
    display.SetAndObserveColorNodeID("vtkMRMLColorTableNodeGrey")
    display.SetAutoWindowLevel(False)
    display.SetWindowLevel(high - low, (high + low) / 2)
    return volume


def image_of_volume(volume: slicer.vtkMRMLScalarVolumeNode) -> sitk.Image:
    """The image of a scalar volume node, with its values, type and geometry.

    Raises NotVolumeError when it holds no scalar image, SliceGeometryError when its axes are not at right angles
    (gantry tilt) or it lies under a transform.
    """
    data = volume.GetImageData()
    if data is None or data.GetPointData().GetScalars() is None or data.GetNumberOfScalarComponents() != 1:
        raise NotVolumeError(f"The node {volume.GetName()} holds no grey-level volume. Choose a CT.")
    _check_no_transform(volume)
    axes = [[0.0] * 3 for _ in range(3)]
    volume.GetIJKToRASDirections(axes)
    if not np.allclose(np.transpose(axes) @ axes, np.eye(3), atol=1e-3):
        message = f"The axes of {volume.GetName()} are not at right angles (gantry tilt). Correct that before scoring."
        raise SliceGeometryError(message)
    i, j, k = data.GetDimensions()
    image = sitk.GetImageFromArray(vtk_to_numpy(data.GetPointData().GetScalars()).reshape(k, j, i))
    image.SetSpacing(volume.GetSpacing())
    image.SetOrigin(_flipped(np.array(volume.GetOrigin())).tolist())
    image.SetDirection(_flipped(np.array(axes)).reshape(-1).tolist())
    return image


def segment_mask(segmentation: slicer.vtkMRMLSegmentationNode, segment_id: str, grid: sitk.Image) -> np.ndarray:
    """Voxels of one segment: bool [k, j, i] on the grid of an image (nearest neighbour).

    Other segments never enter, whether they share a layer with it or overlap it.
    Raises MaskError when there is no such segment or it has no voxels, SliceGeometryError under a transform.
    """
    _check_no_transform(segmentation)
    data = slicer.vtkOrientedImageData()
    # The node's own method; the logic's static one of that name gives the whole layer the segment lies in.
    if not segmentation.GetBinaryLabelmapRepresentation(segment_id, data):
        message = f"{segmentation.GetName()} has no voxels for the segment {segment_id}. Create its binary labelmap."
        raise MaskError(message)
    reference = _oriented_image(grid, [0, 0, 0], grid.GetSize())
    placed = slicer.vtkOrientedImageData()
    resample = slicer.vtkOrientedImageDataResample.ResampleOrientedImageToReferenceOrientedImage
    shape = grid.GetSize()[::-1]
    if data.IsEmpty() or not resample(data, reference, placed):
        return np.zeros(shape, bool)
    return vtk_to_numpy(placed.GetPointData().GetScalars()).reshape(shape) != 0


def label_map_of_segmentation(segmentation: slicer.vtkMRMLSegmentationNode, grid: sitk.Image) -> sitk.Image:
    """A reader's segmentation as uint8 `Artery` labels on the grid of an image.

    Segments are told by their names: LM, LAD, LCX, RCA, other, unassigned.
    Raises MaskError when a segment is no artery, when a voxel belongs to two, and as `segment_mask` does.
    """
    labels = np.zeros(grid.GetSize()[::-1], np.uint8)
    collection = segmentation.GetSegmentation()
    for segment_id in collection.GetSegmentIDs():
        name = collection.GetSegment(segment_id).GetName()
        artery = Artery.called(name)
        if artery is None:
            arteries = ", ".join(a.key for a in Artery)
            raise MaskError(f"The segment {name} is no artery. Rename it ({arteries}) or remove it.")
        mask = segment_mask(segmentation, segment_id, grid)
        both = mask & (labels != 0)
        if both.any():
            other = _segment_name(Artery(int(labels[both][0])))
            message = f"{int(both.sum())} voxels belong to {other} and to {name}. Remove them from one, to count once."
            raise MaskError(message)
        labels[mask] = artery
    image = sitk.GetImageFromArray(labels)
    image.CopyInformation(grid)
    return image


def _segment_name(artery: Artery) -> str:
    return f"{artery.key}: {artery.full_name}"


def _check_no_transform(node: slicer.vtkMRMLTransformableNode) -> None:
    if node.GetParentTransformNode() is not None:
        message = f"{node.GetName()} lies under a transform. Harden the transform or take the node out of it."
        raise SliceGeometryError(message)


def _flipped(values: np.ndarray) -> np.ndarray:
    """LPS to RAS or back: the first two components change sign; of a matrix, the first two rows."""
    # Adding zero turns -0.0 into 0.0.
    return (values.T * [-1.0, -1.0, 1.0]).T + 0.0


def _vtk_array(values: np.ndarray) -> vtk.vtkDataArray:
    return numpy_to_vtk(np.ascontiguousarray(values).reshape(-1), True, get_vtk_array_type(values.dtype))


def _oriented_image(grid: sitk.Image, start: Sequence[int], size: Sequence[int]) -> slicer.vtkOrientedImageData:
    """Geometry of a part of a grid, without voxels. start, size: in voxels, i j k."""
    image = slicer.vtkOrientedImageData()
    image.SetExtent([x for at, n in zip(start, size, strict=True) for x in (int(at), int(at + n - 1))])
    matrix = vtk.vtkMatrix4x4()
    axes = _flipped(np.reshape(grid.GetDirection(), (3, 3)) * grid.GetSpacing())
    origin = _flipped(np.array(grid.GetOrigin()))
    for row in range(3):
        for column in range(3):
            matrix.SetElement(row, column, axes[row, column])
        matrix.SetElement(row, 3, origin[row])
    image.SetImageToWorldMatrix(matrix)
    return image


def _on_grid(labels: sitk.Image, grid: sitk.Image) -> sitk.Image:
    """Labels on the grid of a node, which may hold the scan's voxels in another axis order."""
    return sitk.Resample(labels, grid, sitk.Transform(), sitk.sitkNearestNeighbor, 0, sitk.sitkUInt8)


# Segmentations, tables, hierarchy


@dataclass(frozen=True)
class _Segment:
    label: int
    id: str
    name: str
    colour: tuple[int, int, int]
    terminology: str


def _add_segmentation(
    scene: slicer.vtkMRMLScene,
    name: str,
    volume: slicer.vtkMRMLScalarVolumeNode,
    labels: sitk.Image,
    styles: Iterable[_Segment],
) -> slicer.vtkMRMLSegmentationNode:
    node = scene.AddNewNodeByClass("vtkMRMLSegmentationNode", name)
    node.CreateDefaultDisplayNodes()
    node.SetReferenceImageGeometryParameterFromVolumeNode(volume)
    representation = slicer.vtkSegmentationConverter.GetSegmentationBinaryLabelmapRepresentationName()
    values = sitk.GetArrayViewFromImage(labels)
    shape = sitk.LabelShapeStatisticsImageFilter()
    shape.SetComputePerimeter(False)
    shape.SetComputeFeretDiameter(False)
    shape.SetComputeOrientedBoundingBox(False)
    shape.Execute(labels)
    for style in styles:
        if not shape.HasLabel(int(style.label)):
            continue
        box = shape.GetBoundingBox(int(style.label))
        start, size = box[:3], box[3:]
        part = tuple(slice(at, at + n) for at, n in zip(start[::-1], size[::-1], strict=True))
        data = _oriented_image(labels, start, size)
        data.GetPointData().SetScalars(_vtk_array((values[part] == style.label).astype(np.uint8)))
        segment = slicer.vtkSegment()
        segment.SetName(style.name)
        segment.SetNameAutoGenerated(False)
        segment.SetColor([c / 255 for c in style.colour])
        segment.SetColorAutoGenerated(False)
        segment.SetTag(segment.GetTerminologyEntryTagName(), style.terminology)
        segment.AddRepresentation(representation, data)
        node.GetSegmentation().AddSegment(segment, style.id)
    return node


@dataclass(frozen=True)
class _Column:
    name: str
    array: vtk.vtkAbstractArray
    values: Sequence
    unit: str = ""


def _score_columns(rows: Sequence[ScoreRow]) -> list[_Column]:
    return [
        _Column("Method", vtk.vtkStringArray(), [row.method for row in rows]),
        _Column("Artery", vtk.vtkStringArray(), [row.artery for row in rows]),
        *_number_columns([row.score for row in rows]),
        _Column("Lesions", vtk.vtkIntArray(), [row.score.lesions for row in rows]),
    ]


def _lesion_columns(rows: Sequence[LesionRow]) -> list[_Column]:
    return [
        _Column("Method", vtk.vtkStringArray(), [row.method for row in rows]),
        _Column("Lesion", vtk.vtkIntArray(), [row.id for row in rows]),
        _Column("Artery", vtk.vtkStringArray(), [row.artery for row in rows]),
        _Column("Slices", vtk.vtkStringArray(), [", ".join(map(str, row.slices)) for row in rows]),
        _Column("Area × weight", vtk.vtkDoubleArray(), [row.weighted_area_mm2 for row in rows], "mm2"),
        *_number_columns([row.score for row in rows]),
    ]


def _number_columns(scores: Sequence[Score]) -> list[_Column]:
    columns = [
        ("Agatston", [s.agatston for s in scores], "1"),
        ("Volume", [s.volume_mm3 for s in scores], "mm3"),
        ("Pseudo-mass", [s.pseudo_mass_hu_mm3 for s in scores], "[hnsf'U].mm3"),
        ("Peak", [s.peak_hu for s in scores], "[hnsf'U]"),
    ]
    # Without a calibration there is no mass, and an empty column would look like a failure.
    if any(s.mass_mg is not None for s in scores):
        columns.insert(2, ("Mass", [s.mass_mg for s in scores], "mg"))
    return [_Column(name, vtk.vtkDoubleArray(), values, unit) for name, values, unit in columns]


def _add_table(scene: slicer.vtkMRMLScene, name: str, columns: Iterable[_Column]) -> slicer.vtkMRMLTableNode:
    node = scene.AddNewNodeByClass("vtkMRMLTableNode", name)
    node.SetUseColumnTitleAsColumnHeader(True)
    for column in columns:
        column.array.SetName(column.name)
        for value in column.values:
            column.array.InsertNextValue(float("nan") if value is None else value)
        node.AddColumn(column.array)
        title = f"{column.name} ({_READABLE_UNITS[column.unit]})" if column.unit in _READABLE_UNITS else column.name
        node.SetColumnTitle(column.name, title)
        if column.unit:
            node.SetColumnUnitLabel(column.name, column.unit)
    node.SetLocked(True)
    return node


_READABLE_UNITS = {"mm2": "mm²", "mm3": "mm³", "mg": "mg", "[hnsf'U]": "HU", "[hnsf'U].mm3": "HU·mm³"}


def _put_under(hierarchy: slicer.vtkMRMLSubjectHierarchyNode, folder: int, node: slicer.vtkMRMLNode) -> None:
    # The application makes items by itself; without it there are none.
    item = hierarchy.GetItemByDataNode(node)
    if item:
        hierarchy.SetItemParent(item, folder)
    else:
        hierarchy.CreateItem(folder, node)
