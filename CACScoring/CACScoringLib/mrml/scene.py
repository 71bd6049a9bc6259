"""Results into a MRML scene, and nodes back to images.

Runs on the slicer-core package and inside 3D Slicer. Every function takes its scene and nodes as arguments.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import SimpleITK as sitk
import slicer
from vtkmodules.util.numpy_support import vtk_to_numpy
from vtkmodules.vtkCommonMath import vtkMatrix4x4

from ..core.ct import CTError, NotVolumeError, SliceGeometryError, UnreadableError, same_grid
from ..core.files import SCHEMA, OutputError, atomic_write
from ..io.files import path_for_itk
from ..report.pictures import WINDOW_HU
from .lesion_segments import add_heart, add_lesions, add_territories
from .scene_content import SceneContent, content_of_result
from .segments import array_of, check_no_transform, matrix_of_grid, vtk_image
from .tables import add_table, lesion_columns, score_columns, slice_columns

if TYPE_CHECKING:
    from ..results import ScoreResult

RECORD_ATTRIBUTE = "CACRecord"
"""Attribute, "1", of the text node that holds `scores.json` and refers to all other nodes of its result."""

DERIVED_ATTRIBUTE = "CACDerived"
"""Attribute, "1", of volumes that were made of a CT and are none: calcium map and healthy image."""

RADIOGRAPH_ATTRIBUTE = "CACRadiograph"
"""Attribute of volumes that are a radiograph: the name of its view, or its angle."""

REVIEWED_ATTRIBUTE = "CACReviewed"
"""Attribute of a segmentation of lesions: "1" once a reader has said that the review is done, else "0"."""

HEART_ROLE, CALCIUM_MAP_ROLE, HEALTHY_ROLE = "CACHeart", "CACCalciumMap", "CACHealthy"
"""References of a segmentation of lesions to what it was made of."""

MAP_WINDOW_HU = 200.0
MAP_LEAST_HU = 1.0
"""Of the calcium map in views: brightest from the first on, clear below the second."""

SALIENCY_LEAST = 0.1
"""Of a saliency in views: clear below this share of its highest value."""


@dataclass(frozen=True)
class SceneNodes:
    """The nodes of one result.

    calcium, map_lesions: lesions by the threshold and of the calcium map; a segment for each site and one for what a
    reader rejected, empty or not. lesions: table of both. record: text of `scores.json`, which refers to all others.
    calcium_map, healthy, map_lesions, slices: None without a decomposition. saliency: of a whole-scan estimate, None
    without one. territories: None where they are unknown. folder: subject hierarchy item.
    """

    volume: slicer.vtkMRMLScalarVolumeNode
    heart: slicer.vtkMRMLSegmentationNode
    calcium: slicer.vtkMRMLSegmentationNode
    scores: slicer.vtkMRMLTableNode
    lesions: slicer.vtkMRMLTableNode
    record: slicer.vtkMRMLTextNode
    folder: int
    calcium_map: slicer.vtkMRMLScalarVolumeNode | None = None
    healthy: slicer.vtkMRMLScalarVolumeNode | None = None
    map_lesions: slicer.vtkMRMLSegmentationNode | None = None
    slices: slicer.vtkMRMLTableNode | None = None
    saliency: slicer.vtkMRMLScalarVolumeNode | None = None
    territories: slicer.vtkMRMLSegmentationNode | None = None


_NODE_NAMES = tuple(field.name for field in fields(SceneNodes) if field.name != "folder")
_OF_A_MAP = ("calcium_map", "healthy", "map_lesions", "slices")
_MAY_LACK = ("saliency", "territories")


def add_to_scene(
    scene: slicer.vtkMRMLScene, content: SceneContent, volume: slicer.vtkMRMLScalarVolumeNode | None = None
) -> SceneNodes:
    """Show a result in a scene.

    volume: the node that holds the CT already; it is left as it is, and heart and lesions are laid on its own
    grid. When None, a node is made from the content's CT, with the window of the report's pictures.

    Raises as `image_of_volume` does, before anything is added.
    """
    *_, nodes = scene_steps(scene, content, volume)
    return nodes


def scene_steps(
    scene: slicer.vtkMRMLScene, content: SceneContent, volume: slicer.vtkMRMLScalarVolumeNode | None = None
) -> Iterator[SceneNodes | None]:
    """Add a result as `add_to_scene` does, in steps between which an application can answer its user: gives None after
    each, and at last the nodes.

    Raises also CTError where a node was removed meanwhile; the other new ones are then removed too.
    """
    grid = content.ct if volume is None else image_on_grid_of(volume, content.ct)
    record = json.loads(content.record)
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)
    folder = hierarchy.CreateFolderItem(hierarchy.GetSceneItemID(), f"Calcium score of {content.name}")
    if volume is not None and (own_item := hierarchy.GetItemByDataNode(volume)):
        hierarchy.SetItemParent(folder, hierarchy.GetItemParent(own_item))
    made = {} if volume is None else {"volume": volume}
    for key, node in _new_nodes(scene, content, record, grid, volume):
        made[key] = node
        put_under(hierarchy, folder, node)
        yield None
        if not all(map(scene.IsNodePresent, made.values())):
            if any(scene.IsNodePresent(each) for each in made.values() if each is not volume):
                hierarchy.RemoveItem(folder)  # with all nodes in it
            raise CTError("The scene, or a part of the result, was closed before the result was shown. Try again.")
    _refer(made, record)
    yield SceneNodes(**made, folder=folder)


def _new_nodes(
    scene: slicer.vtkMRMLScene,
    content: SceneContent,
    record: dict,
    grid: sitk.Image,
    volume: slicer.vtkMRMLScalarVolumeNode | None,
) -> Iterator[tuple[str, slicer.vtkMRMLNode]]:
    """Make the nodes of a result, each when it is asked for, with their names in `SceneNodes`. grid: of the volume."""
    name = content.name
    if volume is None:
        volume = add_volume(scene, content.ct, name)
        yield "volume", volume
    yield "heart", add_heart(scene, f"Heart of {name}", volume, _on_grid(content.heart, grid))
    title = f"Candidates of {name} ({record['rules']['threshold']['threshold_hu']:g} HU)"
    counts = record["methods"]["threshold"]["status"] == "candidates"
    yield "calcium", add_lesions(scene, title, volume, _on_grid(content.lesions, grid), counts)
    yield "scores", add_table(scene, f"Scores of {name}", score_columns(record))
    yield "lesions", add_table(scene, f"Lesions of {name}", lesion_columns(record))
    if content.calcium_map is not None:
        healthy = add_volume(scene, content.healthy, f"Healthy image of {name}")
        healthy.SetAttribute(DERIVED_ATTRIBUTE, "1")
        yield "healthy", healthy
        calcium_map = add_volume(scene, content.calcium_map, f"Calcium map of {name}")
        calcium_map.SetAttribute(DERIVED_ATTRIBUTE, "1")
        show_as_overlay(calcium_map, MAP_WINDOW_HU, MAP_LEAST_HU)
        yield "calcium_map", calcium_map
        labels = _on_grid(content.map_lesions, grid)
        map_lesions = add_lesions(scene, f"Calcium map lesions of {name}", volume, labels)
        map_lesions.GetDisplayNode().SetVisibility(False)  # two fills over each other cannot be told apart
        yield "map_lesions", map_lesions
        yield "slices", add_table(scene, f"Slices of {name}", slice_columns(content.slices))
    if content.territories is not None:
        labels = _on_grid(content.territories, grid)
        yield "territories", add_territories(scene, f"Territories of {name}", volume, labels)
    if content.saliency is not None:
        yield "saliency", _add_saliency(scene, content.saliency, f"Saliency of {name}")
    node = scene.AddNewNodeByClass("vtkMRMLTextNode", f"Calcium score of {name}")
    node.SetText(content.record)
    yield "record", node


def _refer(made: dict[str, slicer.vtkMRMLNode], record: dict) -> None:
    """Let the nodes know of each other, so that a scene opened again is as it was."""
    made["record"].SetAttribute(RECORD_ATTRIBUTE, "1")
    for key, node in made.items():
        if key != "record":
            made["record"].SetNodeReferenceID(_role(key), node.GetID())
    roles = {HEART_ROLE: "heart", CALCIUM_MAP_ROLE: "calcium_map", HEALTHY_ROLE: "healthy"}
    for key, method in LESION_METHODS.items():
        if key in made:
            made[key].SetAttribute(REVIEWED_ATTRIBUTE, "1" if record["methods"][method]["reviewed"] else "0")
            for role, other in roles.items():
                if other in made:
                    made[key].SetNodeReferenceID(role, made[other].GetID())


LESION_METHODS = {"calcium": "threshold", "map_lesions": "decomposition"}
"""Segmentations of `SceneNodes` and the method whose lesions they hold."""


def _role(key: str) -> str:
    return f"CAC.{key}"


def nodes_of_record(scene: slicer.vtkMRMLScene, record: slicer.vtkMRMLTextNode) -> SceneNodes:
    """The nodes of a result in a scene that was saved and opened again.

    record: a text node with RECORD_ATTRIBUTE. Raises UnreadableError when it is no record of ours, or nodes are gone.
    """
    try:
        document = json.loads(record.GetText() or "")
        if document["schema"] != SCHEMA:
            raise ValueError(f"its schema is {document['schema']}, not {SCHEMA}")
        has_map = "decomposition" in document["methods"]
    except (ValueError, KeyError, TypeError) as error:
        message = f"{record.GetName()} is not a record of a calcium score ({error}). Score the scan again."
        raise UnreadableError(message) from error
    found = {key: record.GetNodeReference(_role(key)) for key in _NODE_NAMES if key != "record"}
    needed = [key for key in found if key not in _MAY_LACK and (has_map or key not in _OF_A_MAP)]
    if gone := [key for key in needed if found[key] is None]:
        names = ", ".join(key.replace("_", " ") for key in gone)
        raise UnreadableError(f"{record.GetName()}: the scene no longer holds its {names}. Score the scan again.")
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)
    folder = hierarchy.GetItemParent(hierarchy.GetItemByDataNode(record))
    return SceneNodes(**found, record=record, folder=folder)


def records_in(scene: slicer.vtkMRMLScene) -> list[slicer.vtkMRMLTextNode]:
    """The records of all results in a scene, in the order in which they came."""
    nodes = [
        scene.GetNthNodeByClass(n, "vtkMRMLTextNode") for n in range(scene.GetNumberOfNodesByClass("vtkMRMLTextNode"))
    ]
    return [node for node in nodes if node.GetAttribute(RECORD_ATTRIBUTE) == "1"]


def keep_in_folder(scene: slicer.vtkMRMLScene, nodes: SceneNodes) -> None:
    """Put the segmentations back into the result's folder: Segment Editor moves what it edits beside its volume."""
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)
    for node in (nodes.heart, nodes.calcium, nodes.map_lesions):
        if node is not None and hierarchy.GetItemParent(hierarchy.GetItemByDataNode(node)) != nodes.folder:
            put_under(hierarchy, nodes.folder, node)


def write_scene(path: Path, result: ScoreResult, identify: bool = False) -> None:
    """Write a result as a scene (.mrb) that opens in 3D Slicer. The file is whole or not there.

    identify: put the patient's name into the scene. Raises OutputError.
    """
    from ..report.files import result_as_json  # a scene that is read or shown needs no report

    path = path.absolute()  # a relative path makes the scene's writer fail
    # Makes the conversion rules of segmentations known, which the application does on start.
    _segmentations_logic()
    scene = slicer.vtkMRMLScene()
    record = result_as_json(result, {}, identify)
    nodes = add_to_scene(scene, content_of_result(result, record, identify))
    for view in ("Red", "Green", "Yellow"):
        _show_in_view(scene, view, nodes.volume, nodes.calcium_map)
    _store_fast(nodes)
    messages = slicer.vtkMRMLMessageCollection()
    try:
        with atomic_write(path) as half, path_for_itk(half) as place:
            if not scene.WriteToMRB(str(place), None, messages):
                raise OutputError(f"The scene {path} cannot be written: {messages.GetAllMessagesAsString()}")
    except OSError as error:
        raise OutputError(f"The scene {path} cannot be written: {error.strerror}.") from error


def _store_fast(nodes: SceneNodes) -> None:
    """Have files made without the seconds that compression of a whole chest takes."""
    nodes.volume.AddDefaultStorageNode()
    nodes.volume.GetStorageNode().SetUseCompression(False)  # it saves a third of the room, in seconds
    for segmentation in (nodes.heart, nodes.territories):
        # Not of lesions: a part that is empty or one voxel makes Slicer crash on opening, and readers reject lesions.
        if segmentation is not None and min(segmentation.GetSegmentation().GetLayerDataObject(0).GetDimensions()) > 1:
            segmentation.AddDefaultStorageNode()
            segmentation.GetStorageNode().SetCropToMinimumExtent(True)


def _segmentations_logic() -> slicer.vtkSlicerSegmentationsModuleLogic:
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


def _add_saliency(scene: slicer.vtkMRMLScene, image: sitk.Image, name: str) -> slicer.vtkMRMLScalarVolumeNode:
    """The saliency of a whole-scan estimate, red to yellow, clear where it is low."""
    node = add_volume(scene, image, name)
    node.SetAttribute(DERIVED_ATTRIBUTE, "1")
    highest = float(sitk.GetArrayViewFromImage(image).max())
    show_as_overlay(node, highest, SALIENCY_LEAST * highest)
    return node


def show_as_overlay(volume: slicer.vtkMRMLScalarVolumeNode, brightest: float, least: float) -> None:
    """Show a volume red to yellow, brightest from a value on, and clear below the least, so that it can lie over
    another."""
    display = volume.GetDisplayNode()
    display.SetAndObserveColorNodeID("vtkMRMLColorTableNodeWarm1")
    display.SetWindowLevel(brightest, brightest / 2)
    display.AutoThresholdOff()
    display.SetLowerThreshold(least)
    display.ApplyThresholdOn()


# Nodes and images


def add_volume(scene: slicer.vtkMRMLScene, image: sitk.Image, name: str) -> slicer.vtkMRMLScalarVolumeNode:
    """Make a volume node of an image, shown in the window of the report's pictures."""
    volume = scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", name)
    # Without voxels yet: it would look through them all for a window that is not used.
    volume.CreateDefaultDisplayNodes()
    display = volume.GetDisplayNode()
    low, high = WINDOW_HU
    display.SetAndObserveColorNodeID("vtkMRMLColorTableNodeGrey")
    display.SetAutoWindowLevel(False)
    display.SetWindowLevel(high - low, (high + low) / 2)
    set_image(volume, image)
    return volume


def set_image(volume: slicer.vtkMRMLVolumeNode, image: sitk.Image) -> None:
    """Give a volume node the voxels and the geometry of an image."""
    volume.SetIJKToRASDirections(*_flipped(np.reshape(image.GetDirection(), (3, 3))).reshape(-1))
    volume.SetSpacing(image.GetSpacing())
    volume.SetOrigin(_flipped(np.array(image.GetOrigin())))
    volume.SetAndObserveImageData(vtk_image(image))


def image_of_volume(volume: slicer.vtkMRMLScalarVolumeNode) -> sitk.Image:
    """The image of a scalar volume node, with its values, type and geometry.

    Raises NotVolumeError when it holds no scalar image, SliceGeometryError when its axes are not at right angles
    (gantry tilt) or it lies under a transform.
    """
    data = volume.GetImageData()
    if data is None or data.GetPointData().GetScalars() is None or data.GetNumberOfScalarComponents() != 1:
        raise NotVolumeError(f"The node {volume.GetName()} holds no grey-level volume. Choose a CT.")
    check_no_transform(volume)
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


def _flipped(values: np.ndarray) -> np.ndarray:
    """LPS to RAS or back: the first two components change sign; of a matrix, the first two rows."""
    # Adding zero turns -0.0 into 0.0.
    return (values.T * [-1.0, -1.0, 1.0]).T + 0.0


def image_on_grid_of(volume: slicer.vtkMRMLScalarVolumeNode, ct: sitk.Image) -> sitk.Image:
    """An image on the grid of a node: the CT where it is, else a copy of the node's, which takes time. Raises as
    `image_of_volume`."""
    data, matrix = volume.GetImageData(), vtkMatrix4x4()
    volume.GetIJKToRASMatrix(matrix)
    same = data is not None and data.GetDimensions() == ct.GetSize() and volume.GetParentTransformNode() is None
    return ct if same and np.allclose(array_of(matrix), matrix_of_grid(ct), atol=1e-6) else image_of_volume(volume)


def _on_grid(labels: sitk.Image, grid: sitk.Image) -> sitk.Image:
    """Labels on the grid of a node, which may hold the scan's voxels in another axis order."""
    if same_grid(labels, grid) and labels.GetPixelID() == sitk.sitkUInt8:
        return labels
    return sitk.Resample(labels, grid, sitk.Transform(), sitk.sitkNearestNeighbor, 0, sitk.sitkUInt8)


def put_under(hierarchy: slicer.vtkMRMLSubjectHierarchyNode, folder: int, node: slicer.vtkMRMLNode) -> None:
    """Move a node into a folder of the subject hierarchy."""
    # The application makes items by itself; without it there are none.
    if item := hierarchy.GetItemByDataNode(node):
        hierarchy.SetItemParent(item, folder)
    else:
        hierarchy.CreateItem(folder, node)
