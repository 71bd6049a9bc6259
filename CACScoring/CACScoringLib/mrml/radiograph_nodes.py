"""Radiographs in a MRML scene: those made of a CT, scored ones with their record, and the radiographic stand.

A picture refers to the pictures shown over it. A scored radiograph consists of the network's input pictures with the
located evidence, and of a text node that holds `scores.json` and refers to the pictures. The stand is source, detector
and beam in 3-D views. Every function takes its scene and nodes as arguments.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
import slicer
import vtk
from vtk.util.numpy_support import vtk_to_numpy

from ..core.errors import CTError, UnreadableError
from ..core.files import parse_json, read_file
from ..core.grid import Grid
from ..core.slice_checks import BODY_HU
from ..drr.pictures import CALCIUM_FULL, PlacedRadiograph, Stand
from ..io.image_files import read_image
from ..networks.configs import STANDARD_MM
from .scene import DERIVED_ATTRIBUTE, RADIOGRAPH_ATTRIBUTE, add_volume, put_under, set_image, show_as_overlay
from .segments import matrix_of_grid, vtk_image

SCHEMA = "cac-radiograph/1"

RECORD_ATTRIBUTE = "CACRadiographRecord"
"""Attribute, "1", of the text node of a scored radiograph."""

EVIDENCE_MOST, EVIDENCE_LEAST, EVIDENCE_OPACITY = 0.5, 0.1, 0.5
"""Probability shown brightest, share of it below which nothing is shown, and opacity over the radiograph."""

_PLANES = {"PA": ((1.0, 0.0, 0.0), (0.0, 0.0, -1.0)), "lateral": ((0.0, 1.0, 0.0), (0.0, 0.0, -1.0))}
"""Directions (LPS) of the rows and columns of a picture from a file, by its view."""

CT_ROLE, OVERLAY_ROLE, OUTLINE_ROLE = "CACCT", "CACCalciumPicture", "CACHeartPicture"
"""Roles of a radiograph's references to its CT, to the picture shown over it and to the outline drawn on it."""

CALCIUM_LEAST = 0.001
"""Line integral of calcium's attenuation, ∫μ ds, below which calcium is not shown."""

_BODY_OPACITY, _DETECTOR_OPACITY = 0.35, 0.9
_BODY_COLOUR, _DETECTOR_COLOUR, _BEAM_COLOUR = (0.87, 0.73, 0.66), (1.0, 1.0, 1.0), (1.0, 0.76, 0.03)
_HEART_COLOUR = (0.31, 0.76, 0.97)
_SOURCE_MM = 25.0


def add_scored(
    scene: slicer.vtkMRMLScene, folder: Path, name: str, source: slicer.vtkMRMLScalarVolumeNode | None = None
) -> slicer.vtkMRMLTextNode:
    """Add the result of scoring a radiograph to a scene as new nodes.

    Args:
        scene: The scene.
        folder: Folder of the result.
        name: Name of the radiograph.
        source: Node of the scored radiograph, in whose plane the pictures are placed; None for a radiograph from a
            file, whose pictures are centred on the scene's origin.

    Returns:
        The record.

    Raises:
        UnreadableError: A file of the result is missing or damaged.
    """
    try:
        text = read_file(folder / "scores.json").decode()
    except OSError as error:
        raise UnreadableError("scores.json of the result is missing. Score the radiograph again.") from error
    document = _document(text, folder.name)
    record = scene.AddNewNodeByClass("vtkMRMLTextNode", scene.GenerateUniqueName(f"Calcium on {name}"))
    record.SetText(text)
    record.SetAttribute(RECORD_ATTRIBUTE, "1")
    for view, files in document["views"].items():
        plane = _plane(view, source)
        pixels = _pixels(folder / files["view_file"])
        picture = add_volume(scene, _placed_image(pixels, *plane), f"{name}, {view} as scored")
        picture.GetDisplayNode().SetWindowLevel(1.0, 0.5)
        evidence = _placed_image(_pixels(folder / files["evidence_file"]), *plane)
        overlay = add_volume(scene, evidence, f"Evidence of calcium on {name}, {view}")
        show_as_overlay(overlay, EVIDENCE_MOST, EVIDENCE_LEAST)
        picture.SetNodeReferenceID(OVERLAY_ROLE, overlay.GetID())
        record.SetNodeReferenceID(_role(view), picture.GetID())
        for node in (picture, overlay):
            node.SetAttribute(DERIVED_ATTRIBUTE, "1")
    return record


def document_of(record: slicer.vtkMRMLTextNode) -> dict[str, Any]:
    """Return the content of `scores.json`. Raises UnreadableError if the node is no record of a radiograph."""
    return _document(record.GetText() or "", record.GetName())


def picture_of(record: slicer.vtkMRMLTextNode, view: str) -> slicer.vtkMRMLScalarVolumeNode | None:
    """Return the picture of a view, which refers to the located evidence; None if it was removed."""
    return record.GetNodeReference(_role(view))


def picture_image(node: slicer.vtkMRMLScalarVolumeNode) -> sitk.Image:
    """Return a radiograph's node in the format of `cac drr`: one slice, row 0 at the head, pixels in detector mm."""
    values = slicer.util.arrayFromVolume(node)
    image = sitk.GetImageFromArray(values.astype(np.float32))
    image.SetSpacing(node.GetSpacing())
    return image


def _role(view: str) -> str:
    return f"CAC.{view}"


def _plane(view: str, source: slicer.vtkMRMLScalarVolumeNode | None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the rightward and downward directions and the centre of a view's pictures, LPS."""
    if source is None:
        right, down = map(np.array, _PLANES.get(view, _PLANES["PA"]))
        return right, down, np.zeros(3)
    to_lps = np.array([-1.0, -1.0, 1.0])
    normal, right, centre = slice_axes(source)
    return right * to_lps, -np.cross(normal, right) * to_lps, centre * to_lps


def _placed_image(values: np.ndarray, right: np.ndarray, down: np.ndarray, centre: np.ndarray) -> sitk.Image:
    """Return an image of values [row, column] with pixels of STANDARD_MM around a centre."""
    rows, columns = values.shape
    corner = centre - STANDARD_MM * ((columns - 1) / 2 * right + (rows - 1) / 2 * down)
    direction = np.stack([right, down, np.cross(right, down)], 1).ravel()
    grid = Grid((columns, rows, 1), (STANDARD_MM, STANDARD_MM, 1.0), tuple(corner.tolist()), tuple(direction.tolist()))
    return grid.image(values[None])


def _pixels(path: Path) -> np.ndarray:
    """Return the pixels of an image file, float32 [row, column]."""
    try:
        values = sitk.GetArrayFromImage(read_image(path)).astype(np.float32)
    except CTError as error:
        raise UnreadableError(f"{path.name} of the result cannot be read. Score the radiograph again.") from error
    return values.reshape(-1, *values.shape[-2:])[0]


def _document(text: str, name: str) -> dict[str, Any]:
    try:
        document = parse_json(text)
        if document["schema"] != SCHEMA:
            raise ValueError(f"its schema is {document['schema']}, not {SCHEMA}")
    except (ValueError, KeyError, TypeError) as error:
        raise UnreadableError(f"{name} holds no score of a radiograph ({error}). Score it again.") from error
    return document


def add_radiograph(
    scene: slicer.vtkMRMLScene,
    radiograph: PlacedRadiograph,
    volume: slicer.vtkMRMLScalarVolumeNode,
    title: str,
    view: str,
) -> slicer.vtkMRMLScalarVolumeNode:
    """Add a radiograph with its calcium and its heart outline to a scene, beside the CT.

    Args:
        scene: The scene.
        radiograph: The radiograph.
        volume: Node of the CT.
        title: Second part of the node's name, such as "PA radiograph", after the CT's name.
        view: Value of RADIOGRAPH_ATTRIBUTE.

    Returns:
        Node of the picture, which refers to the others.
    """
    name = scene.GenerateUniqueName(f"{volume.GetName()} {title}")
    node = add_volume(scene, radiograph.picture, name)
    low, high = radiograph.window
    node.GetDisplayNode().SetWindowLevel(high - low, (high + low) / 2)
    node.SetAttribute(RADIOGRAPH_ATTRIBUTE, view)
    node.SetNodeReferenceID(CT_ROLE, volume.GetID())
    nodes = [node]
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)
    item = hierarchy.GetItemByDataNode(volume)
    if radiograph.calcium is not None:
        calcium = add_volume(scene, radiograph.calcium, f"Calcium on {name}")
        show_as_overlay(calcium, CALCIUM_FULL, CALCIUM_LEAST)
        node.SetNodeReferenceID(OVERLAY_ROLE, calcium.GetID())
        nodes.append(calcium)
    if radiograph.heart is not None:
        heart = _add_outline(scene, radiograph.heart, f"Heart on {name}")
        node.SetNodeReferenceID(OUTLINE_ROLE, heart.GetID())
        nodes.append(heart)
    for new_node in nodes:
        new_node.SetAttribute(DERIVED_ATTRIBUTE, "1")
        if item:
            put_under(hierarchy, hierarchy.GetItemParent(item), new_node)
    return node


def slice_axes(node: slicer.vtkMRMLScalarVolumeNode) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return normal and rightward axis, RAS, of a slice view that shows a picture upright, and the centre in mm."""
    axes = [[0.0] * 3 for _ in range(3)]
    node.GetIJKToRASDirections(axes)
    right, down = np.array(axes)[:, 0], np.array(axes)[:, 1]
    matrix = vtk.vtkMatrix4x4()
    node.GetIJKToRASMatrix(matrix)
    columns, rows, _ = node.GetImageData().GetDimensions()
    centre = matrix.MultiplyPoint(((columns - 1) / 2, (rows - 1) / 2, 0, 1))
    return np.cross(right, -down), right, np.array(centre[:3])


def is_radiograph(node: slicer.vtkMRMLNode | None) -> bool:
    """Return True if a node is a picture from `add_radiograph`."""
    return node is not None and node.GetAttribute(RADIOGRAPH_ATTRIBUTE) is not None


def _add_outline(scene: slicer.vtkMRMLScene, mask: sitk.Image, name: str) -> slicer.vtkMRMLLabelMapVolumeNode:
    node = scene.AddNewNodeByClass("vtkMRMLLabelMapVolumeNode", name)
    colours = scene.AddNewNodeByClass("vtkMRMLColorTableNode", f"Colour of {name}")
    colours.SetTypeToUser()
    colours.SetNumberOfColors(2)
    colours.SetColor(0, "background", 0.0, 0.0, 0.0, 0.0)
    colours.SetColor(1, "heart", *_HEART_COLOUR, 1.0)
    colours.SetHideFromEditors(True)
    node.CreateDefaultDisplayNodes()
    node.GetDisplayNode().SetAndObserveColorNodeID(colours.GetID())
    set_image(node, mask)
    return node


class StandNodes:
    """Temporary models of a scene: source, detector with its picture, beam and body.

    They are neither saved nor listed, and `remove` deletes them.
    """

    def __init__(self, scene: slicer.vtkMRMLScene) -> None:
        self._scene = scene
        self._nodes: dict[str, slicer.vtkMRMLModelNode] = {}
        self._texture = vtk.vtkTrivialProducer()

    def show(self, stand: Stand, picture: np.ndarray | None, skin: vtk.vtkPolyData | None) -> None:
        """Move the models to a stand. picture: uint8 [row, column, RGB] for the detector. skin: see `skin_of`."""
        self._model("beam", _BEAM_COLOUR, 1.0).SetAndObservePolyData(_beam(stand))
        detector = self._model("detector", _DETECTOR_COLOUR, _DETECTOR_OPACITY)
        detector.SetAndObservePolyData(_rectangle(stand.corners))
        if picture is not None:
            self._texture.SetOutput(_texture_of(picture))
            detector.GetDisplayNode().SetTextureImageDataConnection(self._texture.GetOutputPort())
        if skin is not None:
            self._model("body", _BODY_COLOUR, _BODY_OPACITY).SetAndObservePolyData(skin)

    def remove(self) -> None:
        """Remove all models from the scene."""
        nodes, self._nodes = self._nodes, {}
        for node in nodes.values():
            display = node.GetDisplayNode()
            for part in (node, display):
                if part is not None and self._scene.IsNodePresent(part):
                    self._scene.RemoveNode(part)

    def _model(self, key: str, colour: tuple[float, float, float], opacity: float) -> slicer.vtkMRMLModelNode:
        node = self._nodes.get(key)
        if node is None or not self._scene.IsNodePresent(node):
            node = slicer.vtkMRMLModelNode()
            node.SetName(f"Radiograph {key}")
            node.SetHideFromEditors(True)
            node.SetSaveWithScene(False)
            node = self._scene.AddNode(node)
            node.CreateDefaultDisplayNodes()
            display = node.GetDisplayNode()
            display.SetSaveWithScene(False)
            display.SetColor(*colour)
            display.SetOpacity(opacity)
            display.SetBackfaceCulling(False)
            display.SetVisibility2D(False)
            if key != "body":
                display.SetLighting(False)
                display.SetLineWidth(2)
            self._nodes[key] = node
        return node


def _ras(points: np.ndarray) -> np.ndarray:
    """Convert points [n, 3] from LPS to RAS."""
    return points * [-1.0, -1.0, 1.0] + 0.0


def _beam(stand: Stand) -> vtk.vtkPolyData:
    """Return the source as a sphere, with lines to the detector."""
    combined = vtk.vtkAppendPolyData()
    ball = vtk.vtkSphereSource()
    ball.SetCenter(_ras(stand.source[None])[0])
    ball.SetRadius(_SOURCE_MM)
    combined.AddInputConnection(ball.GetOutputPort())
    for begin, end in stand.beams():
        line = vtk.vtkLineSource()
        line.SetPoint1(_ras(begin[None])[0])
        line.SetPoint2(_ras(end[None])[0])
        combined.AddInputConnection(line.GetOutputPort())
    combined.Update()
    return combined.GetOutput()


def _rectangle(corners: np.ndarray) -> vtk.vtkPolyData:
    """Return the detector. corners: LPS, clockwise from the picture's top left, see `Stand`."""
    top_left, _, bottom_right, bottom_left = _ras(corners)
    plane = vtk.vtkPlaneSource()  # the texture's first row lies at the origin
    plane.SetOrigin(bottom_left)
    plane.SetPoint1(bottom_right)
    plane.SetPoint2(top_left)
    plane.Update()
    return plane.GetOutput()


def _texture_of(picture: np.ndarray) -> vtk.vtkImageData:
    rows, columns, _ = picture.shape
    data = vtk.vtkImageData()
    data.SetDimensions(columns, rows, 1)
    data.AllocateScalars(vtk.VTK_UNSIGNED_CHAR, 3)
    vtk_to_numpy(data.GetPointData().GetScalars()).reshape(picture.shape)[:] = picture[::-1]
    return data


def skin_of(body: sitk.Image) -> vtk.vtkPolyData:
    """Return the outer surface of the body in a CT, RAS. Fast for a CT of few voxels."""
    inside = body > BODY_HU
    filled = sitk.JoinSeries([sitk.BinaryFillhole(inside[:, :, k]) for k in range(body.GetDepth())])
    filled.CopyInformation(body)
    solid = sitk.Mask(body, filled == inside, 0)  # lungs as water
    # A margin of air closes the surface at the ends of the scan.
    image = sitk.ConstantPad(solid, [1, 1, 1], [1, 1, 1], -1000)
    surface = vtk.vtkFlyingEdges3D()
    surface.SetInputData(vtk_image(image))
    surface.SetValue(0, BODY_HU)
    transform = vtk.vtkTransform()
    transform.SetMatrix(matrix_of_grid(image).reshape(-1).tolist())
    placed_surface = vtk.vtkTransformPolyDataFilter()
    placed_surface.SetTransform(transform)
    placed_surface.SetInputConnection(surface.GetOutputPort())
    placed_surface.Update()
    return placed_surface.GetOutput()
