"""Conversion of results to a MRML scene, and of nodes to images.

Runs on the slicer-core package and inside 3D Slicer. Every function takes its scene and nodes as arguments.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import SimpleITK as sitk
import slicer
from vtkmodules.util.numpy_support import vtk_to_numpy
from vtkmodules.vtkCommonMath import vtkMatrix4x4

from ..core.ct import same_grid
from ..core.errors import CTError, NotVolumeError, OutputError, SliceGeometryError, UnreadableError
from ..core.files import atomic_write
from ..core.grid import Grid
from ..core.labels import WINDOW_HU
from ..core.voxels import voxels_of
from ..io.files import path_for_itk
from ..record.score_record import ScoreRecord, record_from_text
from .lesion_segments import add_lesions, add_outlines
from .scene_content import SceneContent, content_of_result
from .segments import array_of, check_no_transform, matrix_of_grid, vtk_image
from .tables import add_table, lesion_table, score_table, slice_table

if TYPE_CHECKING:
    from ..results import ScoreResult

RECORD_ATTRIBUTE = "CACRecord"
"""Attribute, "1", of the text node that holds `scores.json` and refers to all other nodes of its result."""

DERIVED_ATTRIBUTE = "CACDerived"
"""Attribute, "1", of volumes that were computed from a CT, such as calcium map and healthy image."""

RADIOGRAPH_ATTRIBUTE = "CACRadiograph"
"""Attribute of a radiograph's volume: name of the view, or its angle."""

REVIEWED_ATTRIBUTE = "CACReviewed"
"""Attribute of a segmentation of lesions: "1" if a reader has confirmed the review, else "0"."""

NOTES_ATTRIBUTE = "CAC.ReviewNotes"
"""Attribute of a segmentation of lesions: `review.state.ReviewNotes` as JSON."""

HEART_ROLE, CALCIUM_MAP_ROLE, HEALTHY_ROLE = "CACHeart", "CACCalciumMap", "CACHealthy"
"""Roles of references from a segmentation of lesions to the nodes that it was computed from."""

MAP_WINDOW_HU = 200.0
MAP_LEAST_HU = 1.0
"""Display range of the calcium map: brightest at the first value and above, transparent below the second."""

SALIENCY_LEAST = 0.1
"""Fraction of a saliency's maximum below which it is transparent."""


@dataclass(frozen=True)
class SceneNodes:
    """Nodes of one result.

    Segmentations of lesions have a segment for each site and one for rejected lesions, even if they are empty.

    Attributes:
        volume: The CT.
        heart: Outline of the heart.
        calcium: Lesions of the clinical rule.
        scores: Table of scores.
        lesions: Table of all methods' lesions.
        record: Text of `scores.json`; refers to all other nodes.
        folder: Item of the subject hierarchy.
        calcium_map: The calcium map; None without a decomposition, like the next three.
        healthy: The healthy image.
        map_lesions: Lesions of the calcium map.
        slices: Table of slices.
        saliency: Saliency of a whole-scan estimate, or None.
        territories: Territories, or None if unknown.
        pericardium: Outline of the pericardium, or None if unknown.
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
    pericardium: slicer.vtkMRMLSegmentationNode | None = None


_NODE_NAMES = tuple(field.name for field in fields(SceneNodes) if field.name != "folder")
# Nodes of a decomposition, and nodes that any result may lack.
_MAP_KEYS = ("calcium_map", "healthy", "map_lesions", "slices")
_OPTIONAL_KEYS = ("saliency", "territories", "pericardium")


def add_to_scene(
    scene: slicer.vtkMRMLScene, content: SceneContent, volume: slicer.vtkMRMLScalarVolumeNode | None = None
) -> SceneNodes:
    """Add a result to a scene.

    volume: existing node of the CT, which stays unchanged; heart and lesions are placed on its grid. None to make a
    node from the content's CT, with the window of the report's pictures.

    Raises like `image_of_volume`, before anything is added.
    """
    return next(filter(None, scene_steps(scene, content, volume)))


def scene_steps(
    scene: slicer.vtkMRMLScene, content: SceneContent, volume: slicer.vtkMRMLScalarVolumeNode | None = None
) -> Iterator[SceneNodes | None]:
    """Add a result as `add_to_scene` does, in steps that keep an application responsive: yield None after each step,
    and finally the nodes.

    Raises CTError, too, if a node was removed meanwhile; the other new nodes are then removed.
    """
    grid = content.ct if volume is None else image_on_grid_of(volume, content.ct)
    record = record_from_text(content.record, content.name)
    content = replace(content, name=_new_name(scene, content.name))
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)
    folder = hierarchy.CreateFolderItem(hierarchy.GetSceneItemID(), f"Calcium score of {content.name}")
    if volume is not None and (volume_item := hierarchy.GetItemByDataNode(volume)):
        hierarchy.SetItemParent(folder, hierarchy.GetItemParent(volume_item))
    nodes = {} if volume is None else {"volume": volume}
    for key, node in _new_nodes(scene, content, record, grid, volume):
        nodes[key] = node
        put_under(hierarchy, folder, node)
        yield None
        if not all(map(scene.IsNodePresent, nodes.values())):
            if any(scene.IsNodePresent(member) for member in nodes.values() if member is not volume):
                hierarchy.RemoveItem(folder)  # with all nodes in it
            raise CTError("The scene, or a part of the result, was closed before the result was shown. Try again.")
    _set_references(nodes, record)
    yield SceneNodes(**nodes, folder=folder)


def _new_name(scene: slicer.vtkMRMLScene, name: str) -> str:
    """Return a name that no other result in the scene has, such as "chest (2)" for the second of "chest"."""
    titles = {record.GetName() for record in records_in(scene)}
    names = (name if n == 1 else f"{name} ({n})" for n in count(1))
    return next(name for name in names if f"Calcium score of {name}" not in titles)


def _new_nodes(
    scene: slicer.vtkMRMLScene,
    content: SceneContent,
    record: ScoreRecord,
    grid: sitk.Image,
    volume: slicer.vtkMRMLScalarVolumeNode | None,
) -> Iterator[tuple[str, slicer.vtkMRMLNode]]:
    """Make and yield the nodes of a result one by one, with their names in `SceneNodes`. grid: the volume's grid."""
    name = content.name
    if volume is None:
        volume = add_volume(scene, content.ct, name)
        yield "volume", volume
    yield "heart", add_outlines(scene, "heart", f"Heart of {name}", volume, _on_grid(content.heart, grid))
    title = f"Candidates of {name} ({record.methods['threshold'].rules.threshold_hu:g} HU)"
    counts = record.methods["threshold"].status == "candidates"
    yield "calcium", add_lesions(scene, title, volume, _on_grid(content.lesions, grid), counts)
    yield "scores", add_table(scene, f"Scores of {name}", score_table(record))
    yield "lesions", add_table(scene, f"Lesions of {name}", lesion_table(record))
    if content.calcium_map is not None and content.healthy is not None and content.map_lesions is not None:
        healthy = add_volume(scene, content.healthy, f"Healthy image of {name}")
        healthy.SetAttribute(DERIVED_ATTRIBUTE, "1")
        yield "healthy", healthy
        calcium_map = add_volume(scene, content.calcium_map, f"Calcium map of {name}")
        calcium_map.SetAttribute(DERIVED_ATTRIBUTE, "1")
        show_as_overlay(calcium_map, MAP_WINDOW_HU, MAP_LEAST_HU)
        yield "calcium_map", calcium_map
        labels = _on_grid(content.map_lesions, grid)
        map_lesions = add_lesions(scene, f"Calcium map lesions of {name}", volume, labels)
        map_lesions.GetDisplayNode().SetVisibility(False)  # overlapping fills cannot be distinguished
        yield "map_lesions", map_lesions
        yield "slices", add_table(scene, f"Slices of {name}", slice_table(content.slices))
    for kind in ("territories", "pericardium"):
        if (labels := getattr(content, kind)) is not None:
            yield kind, add_outlines(scene, kind, f"{kind.capitalize()} of {name}", volume, _on_grid(labels, grid))
    if content.saliency is not None:
        yield "saliency", _add_saliency(scene, content.saliency, f"Saliency of {name}")
    node = scene.AddNewNodeByClass("vtkMRMLTextNode", f"Calcium score of {name}")
    node.SetText(content.record)
    yield "record", node


def _set_references(nodes: dict[str, slicer.vtkMRMLNode], record: ScoreRecord) -> None:
    """Set the references between nodes, by which a saved scene is restored."""
    nodes["record"].SetAttribute(RECORD_ATTRIBUTE, "1")
    for key, node in nodes.items():
        if key != "record":
            nodes["record"].SetNodeReferenceID(_role(key), node.GetID())
    roles = {HEART_ROLE: "heart", CALCIUM_MAP_ROLE: "calcium_map", HEALTHY_ROLE: "healthy"}
    for key, method in LESION_METHODS.items():
        if key in nodes:
            nodes[key].SetAttribute(REVIEWED_ATTRIBUTE, "1" if record.methods[method].reviewed else "0")
            for role, target in roles.items():
                if target in nodes:
                    nodes[key].SetNodeReferenceID(role, nodes[target].GetID())


LESION_METHODS = {"calcium": "threshold", "map_lesions": "decomposition"}
"""Methods by the segmentation of `SceneNodes` that holds their lesions."""


def _role(key: str) -> str:
    return f"CAC.{key}"


def nodes_of_record(scene: slicer.vtkMRMLScene, record: slicer.vtkMRMLTextNode) -> SceneNodes:
    """Return the nodes of a result in a loaded scene.

    record: a text node with RECORD_ATTRIBUTE. Raises UnreadableError if it is no record of a result, or nodes are
    missing.
    """
    try:
        has_map = "decomposition" in record_from_text(record.GetText() or "", "it").methods
    except CTError as error:
        message = f"{record.GetName()} is not a record of a calcium score ({error}). Score the scan again."
        raise UnreadableError(message) from error
    nodes = {key: record.GetNodeReference(_role(key)) for key in _NODE_NAMES if key != "record"}
    required = [key for key in nodes if key not in _OPTIONAL_KEYS and (has_map or key not in _MAP_KEYS)]
    if missing := [key for key in required if nodes[key] is None]:
        names = ", ".join(key.replace("_", " ") for key in missing)
        raise UnreadableError(f"{record.GetName()}: the scene no longer holds its {names}. Score the scan again.")
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)
    folder = hierarchy.GetItemParent(hierarchy.GetItemByDataNode(record))
    return SceneNodes(**nodes, record=record, folder=folder)


def volume_of_record(record: slicer.vtkMRMLTextNode) -> slicer.vtkMRMLScalarVolumeNode | None:
    """Return the CT of a result; None if it was removed from the scene."""
    return record.GetNodeReference(_role("volume"))


def records_in(scene: slicer.vtkMRMLScene) -> list[slicer.vtkMRMLTextNode]:
    """Return the records of all results in a scene, in the order in which they were added."""
    nodes = [
        scene.GetNthNodeByClass(n, "vtkMRMLTextNode") for n in range(scene.GetNumberOfNodesByClass("vtkMRMLTextNode"))
    ]
    return [node for node in nodes if node.GetAttribute(RECORD_ATTRIBUTE) == "1"]


def remove_node(scene: slicer.vtkMRMLScene, node: slicer.vtkMRMLNode) -> None:
    """Remove a node with its display nodes, which would leave outlines in the views."""
    is_displayed = isinstance(node, slicer.vtkMRMLDisplayableNode)
    displays = [node.GetNthDisplayNode(n) for n in range(node.GetNumberOfDisplayNodes())] if is_displayed else []
    for member in (*displays, node):
        scene.RemoveNode(member)


def keep_in_folder(scene: slicer.vtkMRMLScene, nodes: SceneNodes) -> None:
    """Move the segmentations back into the result's folder, because Segment Editor moves them to their volume."""
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)
    for node in (nodes.heart, nodes.calcium, nodes.map_lesions, nodes.pericardium):
        if node is not None and hierarchy.GetItemParent(hierarchy.GetItemByDataNode(node)) != nodes.folder:
            put_under(hierarchy, nodes.folder, node)


def write_scene(path: Path, result: ScoreResult, identify: bool = False) -> None:
    """Write a result as a scene (.mrb) for 3D Slicer, atomically.

    identify: include the patient's name. Raises OutputError.
    """
    path = path.absolute()  # the scene's writer fails with a relative path
    _segmentations_logic()  # registers the conversion rules of segmentations, as the application does on start
    scene = slicer.vtkMRMLScene()
    nodes = add_to_scene(scene, content_of_result(result, identify))
    for view in ("Red", "Green", "Yellow"):
        _show_in_view(scene, view, nodes.volume, nodes.calcium_map)
    _store_fast(nodes)
    messages = slicer.vtkMRMLMessageCollection()
    try:
        with atomic_write(path) as temporary, path_for_itk(temporary) as itk_path:
            if not scene.WriteToMRB(str(itk_path), None, messages):
                raise OutputError(f"The scene {path} cannot be written: {messages.GetAllMessagesAsString()}")
    except OSError as error:
        raise OutputError(f"The scene {path} cannot be written: {error.strerror}.") from error


def _store_fast(nodes: SceneNodes) -> None:
    """Store the CT uncompressed and outlines cropped, which saves seconds."""
    nodes.volume.AddDefaultStorageNode()
    nodes.volume.GetStorageNode().SetUseCompression(False)
    for segmentation in (nodes.heart, nodes.territories, nodes.pericardium):
        # Lesions are not cropped: Slicer crashes when it opens an empty part or one of a single voxel.
        if segmentation is not None and min(segmentation.GetSegmentation().GetLayerDataObject(0).GetDimensions()) > 1:
            segmentation.AddDefaultStorageNode()
            segmentation.GetStorageNode().SetCropToMinimumExtent(True)


def _segmentations_logic() -> slicer.vtkSlicerSegmentationsModuleLogic:
    try:
        return slicer.vtkSlicerSegmentationsModuleLogic()
    except AttributeError:
        # In Slicer's own Python without the application, only this module has the class.
        from vtkSlicerSegmentationsModuleLogicPython import vtkSlicerSegmentationsModuleLogic

        return vtkSlicerSegmentationsModuleLogic()


def _show_in_view(
    scene: slicer.vtkMRMLScene,
    name: str,
    volume: slicer.vtkMRMLScalarVolumeNode,
    over: slicer.vtkMRMLScalarVolumeNode | None,
) -> None:
    # The application copies a singleton's content to its own view of that name.
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
    """Add the saliency of a whole-scan estimate, red to yellow, transparent where it is low."""
    node = add_volume(scene, image, name)
    node.SetAttribute(DERIVED_ATTRIBUTE, "1")
    highest = float(voxels_of(image).max())
    show_as_overlay(node, highest, SALIENCY_LEAST * highest)
    return node


def show_as_overlay(volume: slicer.vtkMRMLScalarVolumeNode, brightest: float, least: float) -> None:
    """Show a volume as an overlay, red to yellow.

    brightest: value from which the colour is brightest. least: value below which the volume is transparent.
    """
    display = volume.GetDisplayNode()
    display.SetAndObserveColorNodeID("vtkMRMLColorTableNodeWarm1")
    display.SetWindowLevel(brightest, brightest / 2)
    display.AutoThresholdOff()
    display.SetLowerThreshold(least)
    display.ApplyThresholdOn()


# Nodes and images


def add_volume(scene: slicer.vtkMRMLScene, image: sitk.Image, name: str) -> slicer.vtkMRMLScalarVolumeNode:
    """Make a volume node from an image, shown with the window of the report's pictures."""
    volume = scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", name)
    # The display node is made before the voxels, which it would search for a window that is not used.
    volume.CreateDefaultDisplayNodes()
    display = volume.GetDisplayNode()
    low, high = WINDOW_HU
    display.SetAndObserveColorNodeID("vtkMRMLColorTableNodeGrey")
    display.SetAutoWindowLevel(False)
    display.SetWindowLevel(high - low, (high + low) / 2)
    set_image(volume, image)
    return volume


def set_image(volume: slicer.vtkMRMLVolumeNode, image: sitk.Image) -> None:
    """Set a volume node's voxels and geometry to those of an image."""
    volume.SetIJKToRASDirections(*_convert_lps_ras(np.reshape(image.GetDirection(), (3, 3))).reshape(-1))
    volume.SetSpacing(image.GetSpacing())
    volume.SetOrigin(_convert_lps_ras(np.array(image.GetOrigin())))
    volume.SetAndObserveImageData(vtk_image(image))


def image_of_volume(volume: slicer.vtkMRMLScalarVolumeNode) -> sitk.Image:
    """Return a scalar volume node's image, with its values, type and geometry.

    Raises NotVolumeError if it holds no scalar image, and as `grid_of_volume`.
    """
    data = volume.GetImageData()
    if data is None or data.GetPointData().GetScalars() is None or data.GetNumberOfScalarComponents() != 1:
        raise NotVolumeError(f"The node {volume.GetName()} holds no grey-level volume. Choose a CT.")
    grid = grid_of_volume(volume)
    return grid.image(vtk_to_numpy(data.GetPointData().GetScalars()).reshape(grid.shape))


def grid_of_volume(volume: slicer.vtkMRMLVolumeNode) -> Grid:
    """Return the voxel grid of a volume node with an image.

    Raises SliceGeometryError if its axes are not at right angles (gantry tilt) or it lies under a transform.
    """
    check_no_transform(volume)
    axes = [[0.0] * 3 for _ in range(3)]
    volume.GetIJKToRASDirections(axes)
    if not np.allclose(np.transpose(axes) @ axes, np.eye(3), atol=1e-3):
        message = f"The axes of {volume.GetName()} are not at right angles (gantry tilt). Correct that before scoring."
        raise SliceGeometryError(message)
    origin, direction = (_convert_lps_ras(np.array(part)).ravel().tolist() for part in (volume.GetOrigin(), axes))
    return Grid(volume.GetImageData().GetDimensions(), volume.GetSpacing(), tuple(origin), tuple(direction))


def _convert_lps_ras(values: np.ndarray) -> np.ndarray:
    """Convert a vector, or a matrix of columns, between LPS and RAS by the sign of its first two components."""
    return (values.T * [-1.0, -1.0, 1.0]).T + 0.0  # adding zero turns -0.0 into 0.0


def image_on_grid_of(volume: slicer.vtkMRMLScalarVolumeNode, ct: sitk.Image) -> sitk.Image:
    """Return an image on a node's grid: the CT, or if its grid differs a copy of the node's image, which is slow.

    Raises like `image_of_volume`.
    """
    data, matrix = volume.GetImageData(), vtkMatrix4x4()
    volume.GetIJKToRASMatrix(matrix)
    is_like_ct = data is not None and data.GetDimensions() == ct.GetSize() and volume.GetParentTransformNode() is None
    is_like_ct = is_like_ct and np.allclose(array_of(matrix), matrix_of_grid(ct), atol=1e-6)
    return ct if is_like_ct else image_of_volume(volume)


def _on_grid(labels: sitk.Image, grid: sitk.Image) -> sitk.Image:
    """Return labels on a node's grid, which may hold the scan's voxels in another axis order."""
    if same_grid(labels, grid) and labels.GetPixelID() == sitk.sitkUInt8:
        return labels
    return sitk.Resample(labels, grid, sitk.Transform(), sitk.sitkNearestNeighbor, 0, sitk.sitkUInt8)


def put_under(hierarchy: slicer.vtkMRMLSubjectHierarchyNode, folder: int, node: slicer.vtkMRMLNode) -> None:
    """Move a node into a folder of the subject hierarchy."""
    # Only the application makes items for new nodes.
    if item := hierarchy.GetItemByDataNode(node):
        hierarchy.SetItemParent(item, folder)
    else:
        hierarchy.CreateItem(folder, node)
