"""Segmentations of heart, territories and lesions: their segments with names, colours and codes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import SimpleITK as sitk
import slicer

from ..core.grid import bounding_box
from ..core.labels import (
    NOT_CORONARY,
    NOT_CORONARY_ID,
    SITES,
    TERRITORIES,
    Artery,
    NonCoronary,
    Site,
)
from ..report.pictures import HEART_COLOUR, SITE_COLOURS
from ..scoring.evidence import SITE_OF
from .segments import oriented_image, vtk_array

TERMINOLOGY = "Coronary artery calcium"
"""Name of the extension's own terminology: Resources/Terminology/CoronaryArteryCalcium.term.json."""

HEART_ID = "heart"
"""Segment id of the heart; the lesion segments' ids are those of `segment_id` and NOT_CORONARY_ID."""

REJECTED_COLOUR = (110, 110, 110)
LEFT_OUT_OPACITY_3D = 0.3

_ANATOMY = "Segmentation category and type - 3D Slicer General Anatomy list"
_REGIONS = "Anatomic codes - DICOM master list"
_PLAQUE = "SCT^49755003^Morphologically Altered Structure~SCT^29483008^Calcified atheromatous plaque~^^"
# Nobody has said that an unassigned candidate is a plaque, nor where it lies.
_CALCIUM = "SCT^91720002^Body Substance~SCT^5540006^Calcium~^^"
_SITE_REGIONS = {
    Artery.LM: "SCT^3227004^Left Main Coronary Artery",
    Artery.LAD: "SCT^59438005^Left Anterior Descending Coronary Artery",
    Artery.LCX: "SCT^57396003^Circumflex Coronary Artery",
    Artery.RCA: "SCT^13647002^Right Coronary Artery",
    Artery.OTHER: "SCT^41801008^Coronary artery",
    NonCoronary.AORTIC_VALVE: "SCT^34202007^Aortic Valve",
    NonCoronary.MITRAL_ANNULUS: "SCT^65197004^Mitral Annulus",
    NonCoronary.THORACIC_AORTA: "SCT^113262008^Thoracic aorta",
}
_TERRITORY_TYPES = {
    "aortic valve and root": "SCT^8128003^Aortic Root",
    "ascending aorta": "SCT^54247002^Ascending aorta",
    "descending aorta": "SCT^281130003^Descending aorta",
    "pulmonary artery": "SCT^81040000^Pulmonary artery",
    "other": "SCT^80891009^Heart",
}
_TERRITORY_COLOURS = {"descending aorta": (176, 190, 197), "pulmonary artery": (121, 134, 203)}
# The other territories have types and colours of their sites.
_HEART_TERMINOLOGY = (
    f"{_ANATOMY}~SCT^123037004^Anatomical Structure~SCT^80891009^Heart~^^~Anatomic codes - DICOM master list~^^~^^"
)


def site_terminology(site: Site) -> str:
    """Slicer's seven-part terminology entry (SNOMED CT) of the segment of calcium at a site."""
    morphology = _PLAQUE if isinstance(site, Artery) and site != Artery.UNASSIGNED else _CALCIUM
    return f"{TERMINOLOGY}~{morphology}~{_REGIONS}~{_SITE_REGIONS.get(site, '^^')}~^^"


def segment_name(site: Site) -> str:
    """Name of a site's segment."""
    return f"{site.key}: {site.full_name}" if isinstance(site, Artery) else site.full_name


def segment_id(site: Site) -> str:
    """The id of the segment of a site."""
    return site.key if isinstance(site, Artery) else site.full_name.replace(" ", "-")


@dataclass(frozen=True)
class _Segment:
    label: int
    id: str
    name: str
    colour: tuple[int, int, int]
    terminology: str


_LESION_SEGMENTS = (
    *(_Segment(s, segment_id(s), segment_name(s), SITE_COLOURS[s], site_terminology(s)) for s in SITES),
    _Segment(
        NOT_CORONARY,
        NOT_CORONARY_ID,
        f"{NOT_CORONARY_ID}: rejected",
        REJECTED_COLOUR,
        f"{TERMINOLOGY}~{_CALCIUM}~{_REGIONS}~^^~^^",
    ),
)


_TERRITORY_SEGMENTS = tuple(
    _Segment(
        label,
        name.replace(" ", "-"),
        name,
        _TERRITORY_COLOURS.get(name, SITE_COLOURS[SITE_OF[name]]),
        f"{_ANATOMY}~SCT^123037004^Anatomical Structure~{_TERRITORY_TYPES.get(name) or _SITE_REGIONS[SITE_OF[name]]}"
        f"~^^~{_REGIONS}~^^~^^",
    )
    for label, name in enumerate(TERRITORIES)
    if label
)


def add_heart(
    scene: slicer.vtkMRMLScene, name: str, volume: slicer.vtkMRMLScalarVolumeNode, mask: sitk.Image
) -> slicer.vtkMRMLSegmentationNode:
    """The heart (1 in the mask) as an outline."""
    style = _Segment(1, HEART_ID, "Heart region", HEART_COLOUR, _HEART_TERMINOLOGY)
    node = _add_segmentation(scene, name, volume, mask, [style])
    node.GetDisplayNode().SetVisibility2DFill(False)
    node.GetDisplayNode().SetVisibility3D(False)
    return node


def add_territories(
    scene: slicer.vtkMRMLScene, name: str, volume: slicer.vtkMRMLScalarVolumeNode, labels: sitk.Image
) -> slicer.vtkMRMLSegmentationNode:
    """The territories (labels of `TERRITORIES`) as outlines, hidden until a user wants to see them."""
    node = _add_segmentation(scene, name, volume, labels, _TERRITORY_SEGMENTS)
    node.GetDisplayNode().SetVisibility2DFill(False)
    node.GetDisplayNode().SetVisibility(False)
    return node


def add_lesions(
    scene: slicer.vtkMRMLScene,
    name: str,
    volume: slicer.vtkMRMLScalarVolumeNode,
    labels: sitk.Image,
    unassigned_count: bool = True,
) -> slicer.vtkMRMLSegmentationNode:
    """Lesions (`Site` labels) with a segment for each site and one for what a reader will reject, empty or not.

    unassigned_count: whether unassigned lesions count as candidates; else they are outlines, and clear in 3-D.
    """
    node = _add_segmentation(scene, name, volume, labels, _LESION_SEGMENTS)
    display = node.GetDisplayNode()
    display.SetOpacity2DFill(0.3)
    display.SetSegmentOpacity2DFill(NOT_CORONARY_ID, 0.4)
    display.SetSegmentVisibility3D(NOT_CORONARY_ID, False)
    # Smoothing as for organs would shrink a lesion of a few voxels to a dot in 3-D.
    factor = slicer.vtkBinaryLabelmapToClosedSurfaceConversionRule.GetSmoothingFactorParameterName()
    node.GetSegmentation().SetConversionParameter(factor, "0.0")
    if not unassigned_count:
        unassigned = segment_id(Artery.UNASSIGNED)
        display.SetSegmentOpacity2DFill(unassigned, 0.0)
        display.SetSegmentOpacity3D(unassigned, LEFT_OUT_OPACITY_3D)
    return node


def add_lesion_segment(node: slicer.vtkMRMLSegmentationNode, label: int) -> str:
    """Add the segment of a `Site` or of NOT_CORONARY that a user has removed; returns its id."""
    style = next(style for style in _LESION_SEGMENTS if style.label == label)
    added = node.GetSegmentation().AddEmptySegment(style.id, style.name, [c / 255 for c in style.colour])
    _dress(node.GetSegmentation().GetSegment(added), style)
    return added


def _add_segmentation(
    scene: slicer.vtkMRMLScene,
    name: str,
    volume: slicer.vtkMRMLScalarVolumeNode,
    labels: sitk.Image,
    styles: Iterable[_Segment],
) -> slicer.vtkMRMLSegmentationNode:
    """A segment for each style, with voxels or without.

    They share one layer, which Slicer reads, writes and edits faster than one each, and whose values are the labels.
    """
    node = scene.AddNewNodeByClass("vtkMRMLSegmentationNode", name)
    node.CreateDefaultDisplayNodes()
    node.SetReferenceImageGeometryParameterFromVolumeNode(volume)
    representation = slicer.vtkSegmentationConverter.GetSegmentationBinaryLabelmapRepresentationName()
    values = sitk.GetArrayViewFromImage(labels)
    # Of a layer that is one voxel thin Slicer makes no surface, and an error at every change.
    part = bounding_box(values) if values.any() else tuple(slice(0, min(2, n)) for n in values.shape)
    start, size = [p.start for p in part[::-1]], [p.stop - p.start for p in part[::-1]]
    data = oriented_image(labels, start, size)
    data.GetPointData().SetScalars(vtk_array(values[part]))
    for style in styles:
        segment = slicer.vtkSegment()
        _dress(segment, style)
        segment.SetLabelValue(int(style.label))
        segment.AddRepresentation(representation, data)
        node.GetSegmentation().AddSegment(segment, style.id)
    return node


def _dress(segment: slicer.vtkSegment, style: _Segment) -> None:
    segment.SetName(style.name)
    segment.SetNameAutoGenerated(False)
    segment.SetColor([c / 255 for c in style.colour])
    segment.SetColorAutoGenerated(False)
    segment.SetTag(segment.GetTerminologyEntryTagName(), style.terminology)
