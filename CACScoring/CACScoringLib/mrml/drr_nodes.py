"""Radiographs of a CT in a MRML scene, and the stand that makes them: source, detector and beam in 3-D views.

Every function takes its scene and nodes as arguments.
"""

from __future__ import annotations

import numpy as np
import SimpleITK as sitk
import slicer
import vtk
from vtk.util.numpy_support import vtk_to_numpy

from ..drr.job import CALCIUM_FULL, PlacedRadiograph, Stand
from .scene import DERIVED_ATTRIBUTE, RADIOGRAPH_ATTRIBUTE, add_volume, put_under, set_image, show_as_overlay
from .segments import matrix_of_grid, vtk_image

CT_ROLE, CALCIUM_ROLE, HEART_ROLE = "CACCT", "CACCalciumPicture", "CACHeartPicture"
"""References of a radiograph to the CT that it was made of, and to what lies over it."""

CALCIUM_LEAST = 0.001
"""∫μ ds of calcium below which nothing is shown of it."""

_BODY_HU = -300.0
_BODY_OPACITY, _DETECTOR_OPACITY = 0.35, 0.9
_BODY_COLOUR, _DETECTOR_COLOUR, _BEAM_COLOUR = (0.87, 0.73, 0.66), (1.0, 1.0, 1.0), (1.0, 0.76, 0.03)
_HEART_COLOUR = (0.31, 0.76, 0.97)
_SOURCE_MM = 25.0


def add_radiograph(
    scene: slicer.vtkMRMLScene,
    made: PlacedRadiograph,
    volume: slicer.vtkMRMLScalarVolumeNode,
    title: str,
    view: str,
) -> slicer.vtkMRMLScalarVolumeNode:
    """Bring a radiograph and what lies over it into a scene, as new nodes beside the CT's.

    title: such as "PA radiograph", which follows the CT's name. view: for RADIOGRAPH_ATTRIBUTE. Returns the picture's
    node, which refers to the others.
    """
    name = scene.GenerateUniqueName(f"{volume.GetName()} {title}")
    node = add_volume(scene, made.picture, name)
    low, high = made.window
    node.GetDisplayNode().SetWindowLevel(high - low, (high + low) / 2)
    node.SetAttribute(RADIOGRAPH_ATTRIBUTE, view)
    node.SetNodeReferenceID(CT_ROLE, volume.GetID())
    nodes = [node]
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)
    item = hierarchy.GetItemByDataNode(volume)
    if made.calcium is not None:
        calcium = add_volume(scene, made.calcium, f"Calcium on {name}")
        show_as_overlay(calcium, CALCIUM_FULL, CALCIUM_LEAST)
        node.SetNodeReferenceID(CALCIUM_ROLE, calcium.GetID())
        nodes.append(calcium)
    if made.heart is not None:
        heart = _add_outline(scene, made.heart, f"Heart on {name}")
        node.SetNodeReferenceID(HEART_ROLE, heart.GetID())
        nodes.append(heart)
    for each in nodes:
        each.SetAttribute(DERIVED_ATTRIBUTE, "1")
        if item:
            put_under(hierarchy, hierarchy.GetItemParent(item), each)
    return node


def slice_axes(node: slicer.vtkMRMLScalarVolumeNode) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Normal and rightward axis (RAS) of a slice view that shows a picture upright, and the picture's centre, mm."""
    axes = [[0.0] * 3 for _ in range(3)]
    node.GetIJKToRASDirections(axes)
    right, down = np.array(axes)[:, 0], np.array(axes)[:, 1]
    matrix = vtk.vtkMatrix4x4()
    node.GetIJKToRASMatrix(matrix)
    columns, rows, _ = node.GetImageData().GetDimensions()
    centre = matrix.MultiplyPoint(((columns - 1) / 2, (rows - 1) / 2, 0, 1))
    return np.cross(right, -down), right, np.array(centre[:3])


def is_radiograph(node: slicer.vtkMRMLNode | None) -> bool:
    """True if a node is a picture that `add_radiograph` made."""
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
    """Source, detector with its picture, beam and body as models of a scene, while they are shown.

    They are no part of the scene's content: they are neither saved nor listed, and `remove` takes them away.
    """

    def __init__(self, scene: slicer.vtkMRMLScene) -> None:
        self._scene = scene
        self._nodes: dict[str, slicer.vtkMRMLModelNode] = {}
        self._texture = vtk.vtkTrivialProducer()

    @property
    def shown(self) -> bool:
        return bool(self._nodes)

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
        """Take all models out of the scene."""
        nodes, self._nodes = self._nodes, {}
        for node in nodes.values():
            display = node.GetDisplayNode()
            for each in (node, display):
                if each is not None and self._scene.IsNodePresent(each):
                    self._scene.RemoveNode(each)

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
    """LPS [n, 3] to RAS."""
    return points * [-1.0, -1.0, 1.0] + 0.0


def _beam(stand: Stand) -> vtk.vtkPolyData:
    """The source as a ball, and lines from it."""
    both = vtk.vtkAppendPolyData()
    ball = vtk.vtkSphereSource()
    ball.SetCenter(_ras(stand.source[None])[0])
    ball.SetRadius(_SOURCE_MM)
    both.AddInputConnection(ball.GetOutputPort())
    for begin, end in stand.beams():
        line = vtk.vtkLineSource()
        line.SetPoint1(_ras(begin[None])[0])
        line.SetPoint2(_ras(end[None])[0])
        both.AddInputConnection(line.GetOutputPort())
    both.Update()
    return both.GetOutput()


def _rectangle(corners: np.ndarray) -> vtk.vtkPolyData:
    """corners: LPS, from the picture's top left clockwise, as of `Stand`."""
    top_left, _, bottom_right, bottom_left = _ras(corners)
    plane = vtk.vtkPlaneSource()  # its texture's first row is that of its origin
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
    """Return the surface of the body in a CT, RAS, without what lies within. Fast for a CT of few voxels."""
    inside = body > _BODY_HU
    filled = sitk.JoinSeries([sitk.BinaryFillhole(inside[:, :, k]) for k in range(body.GetDepth())])
    filled.CopyInformation(body)
    solid = sitk.Mask(body, filled == inside, 0)  # lungs as water
    # Air about it, so that the surface is closed where the scan ends.
    image = sitk.ConstantPad(solid, [1, 1, 1], [1, 1, 1], -1000)
    surface = vtk.vtkFlyingEdges3D()
    surface.SetInputData(vtk_image(image))
    surface.SetValue(0, _BODY_HU)
    transform = vtk.vtkTransform()
    transform.SetMatrix(matrix_of_grid(image).reshape(-1).tolist())
    moved = vtk.vtkTransformPolyDataFilter()
    moved.SetTransform(transform)
    moved.SetInputConnection(surface.GetOutputPort())
    moved.Update()
    return moved.GetOutput()
