"""Segmentations of heart, territories and lesions: names, colours and codes of their segments."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import SimpleITK as sitk
import slicer

from ..core import labels as sites
from ..core.grid import bounding_box
from ..core.labels import Artery, Site
from ..core.voxels import voxels_of
from .segments import oriented_image, vtk_array

TERMINOLOGY = "Coronary artery calcium"
"""Name of the extension's own terminology: Resources/Terminology/CoronaryArteryCalcium.term.json."""

HEART_ID = "heart"
"""Segment ID of the heart; lesion segments have the IDs of `segment_id` and NOT_CORONARY_ID."""

PERICARDIUM_ID = "pericardium"
_PERICARDIUM_COLOUR = (255, 213, 79)

REJECTED_COLOUR = (110, 110, 110)
LEFT_OUT_OPACITY_3D = 0.3

_ANATOMY = "Segmentation category and type - 3D Slicer General Anatomy list"
_REGIONS = "Anatomic codes - DICOM master list"
_PLAQUE = "SCT^49755003^Morphologically Altered Structure~SCT^29483008^Calcified atheromatous plaque~^^"
# Unassigned candidates are coded as calcium, because neither plaque nor site is confirmed.
_CALCIUM = "SCT^91720002^Body Substance~SCT^5540006^Calcium~^^"
_SITE_REGIONS = {site: f"SCT^{code}^{text}" for site, (code, text) in sites.SITE_CONCEPTS.items()}
_TERRITORY_TYPES = {
    "aortic valve and root": "SCT^8128003^Aortic Root",
    "ascending aorta": "SCT^54247002^Ascending aorta",
    "descending aorta": "SCT^281130003^Descending aorta",
    "pulmonary artery": "SCT^81040000^Pulmonary artery",
    "other": "SCT^80891009^Heart",
}
_TERRITORY_COLOURS = {"descending aorta": (176, 190, 197), "pulmonary artery": (121, 134, 203)}
# Other territories take types and colours from their sites.


def _structure(kind: str) -> str:
    """Return Slicer's terminology entry for an anatomical structure."""
    return f"{_ANATOMY}~SCT^123037004^Anatomical Structure~{kind}~^^~{_REGIONS}~^^~^^"


def site_terminology(site: Site) -> str:
    """Return Slicer's seven-part terminology entry (SNOMED CT) for calcium at a site."""
    morphology = _PLAQUE if isinstance(site, Artery) and site != Artery.UNASSIGNED else _CALCIUM
    return f"{TERMINOLOGY}~{morphology}~{_REGIONS}~{_SITE_REGIONS.get(site, '^^')}~^^"


def segment_name(site: Site) -> str:
    """Return the name of a site's segment."""
    return f"{site.key}: {site.full_name}" if isinstance(site, Artery) else site.full_name


def segment_id(site: Site) -> str:
    """Return the ID of a site's segment."""
    return site.key if isinstance(site, Artery) else site.full_name.replace(" ", "-")


@dataclass(frozen=True)
class _Segment:
    label: int
    id: str
    name: str
    colour: tuple[int, int, int]
    terminology: str


_LESION_SEGMENTS = (
    *(_Segment(s, segment_id(s), segment_name(s), sites.SITE_COLOURS[s], site_terminology(s)) for s in sites.SITES),
    _Segment(
        sites.NOT_CORONARY,
        sites.NOT_CORONARY_ID,
        f"{sites.NOT_CORONARY_ID}: rejected",
        REJECTED_COLOUR,
        f"{TERMINOLOGY}~{_CALCIUM}~{_REGIONS}~^^~^^",
    ),
)


_TERRITORY_SEGMENTS = tuple(
    _Segment(
        label,
        name.replace(" ", "-"),
        name,
        _TERRITORY_COLOURS.get(name, sites.SITE_COLOURS[sites.SITE_OF[name]]),
        _structure(_TERRITORY_TYPES.get(name) or _SITE_REGIONS[sites.SITE_OF[name]]),
    )
    for label, name in enumerate(sites.TERRITORIES)
    if label
)


_PERICARDIUM = _structure("SCT^76848001^Pericardium")
_OUTLINES = {
    "heart": (_Segment(1, HEART_ID, "Heart region", sites.HEART_COLOUR, _structure("SCT^80891009^Heart")),),
    "pericardium": (_Segment(1, PERICARDIUM_ID, "Pericardium", _PERICARDIUM_COLOUR, _PERICARDIUM),),
    "territories": _TERRITORY_SEGMENTS,
}


def add_outlines(
    scene: slicer.vtkMRMLScene, kind: str, name: str, volume: slicer.vtkMRMLScalarVolumeNode, labels: sitk.Image
) -> slicer.vtkMRMLSegmentationNode:
    """Add outlines; all but the heart's are hidden until a user shows them.

    kind: "heart" (1 in the labels), "pericardium" (1: all within it), or "territories" (labels of `TERRITORIES`).
    """
    node = _add_segmentation(scene, name, volume, labels, _OUTLINES[kind])
    node.GetDisplayNode().SetVisibility2DFill(False)
    if kind == "heart":
        node.GetDisplayNode().SetVisibility3D(False)
    else:
        node.GetDisplayNode().SetVisibility(False)
    return node


def add_lesions(
    scene: slicer.vtkMRMLScene,
    name: str,
    volume: slicer.vtkMRMLScalarVolumeNode,
    labels: sitk.Image,
    unassigned_count: bool = True,
) -> slicer.vtkMRMLSegmentationNode:
    """Add lesions (`Site` labels) with a segment for each site and one for rejected lesions, even if they are empty.

    unassigned_count: True if unassigned lesions count as candidates; if not, they are outlines, and faint in 3-D.
    """
    node = _add_segmentation(scene, name, volume, labels, _LESION_SEGMENTS)
    display = node.GetDisplayNode()
    display.SetOpacity2DFill(0.3)
    display.SetSegmentOpacity2DFill(sites.NOT_CORONARY_ID, 0.4)
    display.SetSegmentVisibility3D(sites.NOT_CORONARY_ID, False)
    # Slicer's default smoothing would shrink a lesion of a few voxels to a dot.
    factor = slicer.vtkBinaryLabelmapToClosedSurfaceConversionRule.GetSmoothingFactorParameterName()
    node.GetSegmentation().SetConversionParameter(factor, "0.0")
    if not unassigned_count:
        unassigned = segment_id(Artery.UNASSIGNED)
        display.SetSegmentOpacity2DFill(unassigned, 0.0)
        display.SetSegmentOpacity3D(unassigned, LEFT_OUT_OPACITY_3D)
    return node


def add_lesion_segment(node: slicer.vtkMRMLSegmentationNode, label: int) -> str:
    """Add the empty segment of a `Site` or of NOT_CORONARY, and return its ID."""
    style = next(style for style in _LESION_SEGMENTS if style.label == label)
    new_id = node.GetSegmentation().AddEmptySegment(style.id, style.name, [c / 255 for c in style.colour])
    _set_style(node.GetSegmentation().GetSegment(new_id), style)
    return new_id


def _add_segmentation(
    scene: slicer.vtkMRMLScene,
    name: str,
    volume: slicer.vtkMRMLScalarVolumeNode,
    labels: sitk.Image,
    styles: Iterable[_Segment],
) -> slicer.vtkMRMLSegmentationNode:
    """Add a segmentation with a segment for each style, even if it is empty.

    All segments share one layer with their labels as values, which Slicer reads, writes and edits faster than several.
    """
    node = scene.AddNewNodeByClass("vtkMRMLSegmentationNode", name)
    node.CreateDefaultDisplayNodes()
    node.SetReferenceImageGeometryParameterFromVolumeNode(volume)
    representation = slicer.vtkSegmentationConverter.GetSegmentationBinaryLabelmapRepresentationName()
    values = voxels_of(labels)
    # Slicer makes no surface of a layer one voxel thin, and reports an error at every change.
    box = bounding_box(values) if values.any() else tuple(slice(0, min(2, n)) for n in values.shape)
    start, size = [p.start for p in box[::-1]], [p.stop - p.start for p in box[::-1]]
    data = oriented_image(labels, start, size)
    data.GetPointData().SetScalars(vtk_array(values[box]))
    for style in styles:
        segment = slicer.vtkSegment()
        _set_style(segment, style)
        segment.SetLabelValue(int(style.label))
        segment.AddRepresentation(representation, data)
        node.GetSegmentation().AddSegment(segment, style.id)
    return node


def _set_style(segment: slicer.vtkSegment, style: _Segment) -> None:
    segment.SetName(style.name)
    segment.SetNameAutoGenerated(False)
    segment.SetColor([c / 255 for c in style.colour])
    segment.SetColorAutoGenerated(False)
    segment.SetTag(segment.GetTerminologyEntryTagName(), style.terminology)
