"""A scored radiograph in a MRML scene: the network's input picture, the located evidence, and the record of the score.

The record is a text node that holds `scores.json` and refers to all pictures. Every function takes its scene and nodes
as arguments.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
import slicer

from ..core.errors import CTError, UnreadableError
from ..core.files import parse_json, read_file
from ..io.image_files import read_image
from ..networks.configs import STANDARD_MM
from .drr_nodes import slice_axes
from .scene import DERIVED_ATTRIBUTE, add_volume, show_as_overlay

SCHEMA = "cac-radiograph/1"

RECORD_ATTRIBUTE = "CACRadiographRecord"
"""Attribute, "1", of the text node of a scored radiograph."""

EVIDENCE_MOST, EVIDENCE_LEAST, EVIDENCE_OPACITY = 0.5, 0.1, 0.5
"""Probability shown brightest, share of it below which nothing is shown, and opacity over the radiograph."""

_PLANES = {"PA": ((1.0, 0.0, 0.0), (0.0, 0.0, -1.0)), "lateral": ((0.0, 1.0, 0.0), (0.0, 0.0, -1.0))}
"""Directions (LPS) of the rows and columns of a picture from a file, by its view."""


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
        values = _values(folder / files["view_file"])
        picture = add_volume(scene, _placed_image(values[0], *plane), f"{name}, {view} as scored")
        picture.GetDisplayNode().SetWindowLevel(1.0, 0.5)
        nodes = {_role(view): picture}
        evidence = _values(folder / files["evidence_file"])[0]
        node = add_volume(scene, _placed_image(evidence, *plane), f"Evidence of calcium on {name}, {view}")
        show_as_overlay(node, EVIDENCE_MOST, EVIDENCE_LEAST)
        nodes[_role(view, True)] = node
        for role, node in nodes.items():
            node.SetAttribute(DERIVED_ATTRIBUTE, "1")
            record.SetNodeReferenceID(role, node.GetID())
    return record


def document_of(record: slicer.vtkMRMLTextNode) -> dict[str, Any]:
    """Return the content of `scores.json`. Raises UnreadableError if the node is no record of a radiograph."""
    return _document(record.GetText() or "", record.GetName())


def pictures_of(
    record: slicer.vtkMRMLTextNode, view: str
) -> tuple[slicer.vtkMRMLScalarVolumeNode | None, slicer.vtkMRMLScalarVolumeNode | None]:
    """Return the picture of a view and the located evidence; None for removed nodes."""
    return record.GetNodeReference(_role(view)), record.GetNodeReference(_role(view, True))


def picture_image(node: slicer.vtkMRMLScalarVolumeNode) -> sitk.Image:
    """Return a radiograph's node in the format of `cac drr`: one slice, row 0 at the head, pixels in detector mm."""
    values = slicer.util.arrayFromVolume(node)
    image = sitk.GetImageFromArray(values.astype(np.float32))
    image.SetSpacing(node.GetSpacing())
    return image


def _role(view: str, evidence: bool = False) -> str:
    return f"CAC.{view}.evidence" if evidence else f"CAC.{view}"


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
    image = sitk.GetImageFromArray(values[None])
    image.SetSpacing((STANDARD_MM, STANDARD_MM, 1.0))
    corner = (columns - 1) / 2 * right + (rows - 1) / 2 * down
    image.SetOrigin((centre - STANDARD_MM * corner).tolist())
    image.SetDirection(np.stack([right, down, np.cross(right, down)], 1).reshape(-1).tolist())
    return image


def _values(path: Path) -> np.ndarray:
    """Return an image file's values, float32 [slice, row, column]."""
    try:
        values = sitk.GetArrayFromImage(read_image(path)).astype(np.float32)
    except CTError as error:
        raise UnreadableError(f"{path.name} of the result cannot be read. Score the radiograph again.") from error
    return values.reshape(-1, *values.shape[-2:])


def _document(text: str, name: str) -> dict[str, Any]:
    try:
        document = parse_json(text)
        if document["schema"] != SCHEMA:
            raise ValueError(f"its schema is {document['schema']}, not {SCHEMA}")
    except (ValueError, KeyError, TypeError) as error:
        raise UnreadableError(f"{name} holds no score of a radiograph ({error}). Score it again.") from error
    return document
