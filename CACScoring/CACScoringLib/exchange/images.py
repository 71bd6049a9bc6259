"""Images of a result as DICOM objects: Segmentation, and Secondary Captures.

Segmentation (PS3.3 A.51): counted lesions in one binary segment per artery and per other site.

Secondary Captures (PS3.3 A.8): slices with most of the score, for archives that show no other objects.
"""

from __future__ import annotations

import heapq
import io
from collections import defaultdict

import numpy as np
import SimpleITK as sitk
from highdicom import AlgorithmIdentificationSequence
from highdicom.color import CIELabColor
from highdicom.sc import SCImage
from highdicom.seg import Segmentation, SegmentDescription
from PIL import Image, ImageDraw
from pydicom import Dataset
from pydicom.sr.codedict import codes

from ..core.labels import SITE_COLOURS, SITES, Artery, Site
from ..core.text import RESEARCH_ONLY
from ..core.version import VERSION
from ..record.scores import STATUSES
from ..report.files import site_labels
from ..report.pictures import slice_picture
from ..results import CalciumResult
from ..scoring.doubt import listed_lesions, number_of
from . import codes as cac
from .source import MANUFACTURER, SourceSeries, with_creator

_BAND = 38
"""Height of the text above a slice in pixels."""

MOST = 4
"""Largest number of key slices; `core.files.RESULT_FILES` names them."""


def counted_labels(result: CalciumResult) -> sitk.Image:
    """Return `Site` labels of counted lesions and of calcium elsewhere, uint8 on the scan's grid."""
    return site_labels(result, only_counted=True)


def segmentation_of(result: CalciumResult, labels: sitk.Image, source: SourceSeries) -> Segmentation | None:
    """Return the segmentation of `counted_labels`, or None without calcium, because segments must not be empty.

    Only slices with calcium have frames.
    """
    stored = source.stored(labels)
    sites = [site for site in SITES if (stored == site).any()]
    if not sites:
        return None
    slices = np.flatnonzero(stored.any(axis=(1, 2)))
    frames = np.stack([stored[slices] == site for site in sites], axis=-1)
    segmentation = Segmentation(
        source_images=[source.images[k] for k in slices],
        pixel_array=frames,
        segmentation_type="BINARY",
        segment_descriptions=[_segment_description(result, source, n, site) for n, site in enumerate(sites, 1)],
        content_label="CALCIUM",
        content_description="Calcium by artery and site, by the clinical rule",
        series_description="CAC: calcium by artery",
        **source.identity("segmentation"),
    )
    _identify_segment_in_frames(segmentation)
    return with_creator(source.complete(segmentation))


def _identify_segment_in_frames(segmentation: Segmentation) -> None:
    """Move the segment's identification to each frame: highdicom shares that of a single segment, but does not read it
    there."""
    shared = segmentation.SharedFunctionalGroupsSequence[0]
    if "SegmentIdentificationSequence" in shared:
        for frame in segmentation.PerFrameFunctionalGroupsSequence:
            frame.SegmentIdentificationSequence = shared.SegmentIdentificationSequence
        del shared.SegmentIdentificationSequence


def segment_numbers(segmentation: Segmentation | None) -> dict[str, int]:
    """Return the segments' numbers by label."""
    items = () if segmentation is None else segmentation.SegmentSequence
    return {item.SegmentLabel: int(item.SegmentNumber) for item in items}


def segment_label(site: Site) -> str:
    """Return the name of a site's segment, which `core.labels.site_called` recognises."""
    return site.key if isinstance(site, Artery) else site.full_name


def _segment_description(result: CalciumResult, source: SourceSeries, number: int, site: Site) -> SegmentDescription:
    label = segment_label(site)
    elsewhere = result.record.non_coronary if not isinstance(site, Artery) else None
    reviewed = (elsewhere or result.methods["threshold"]).reviewed
    by_networks = bool(result.record.models)
    family = codes.cid7162.ArtificialIntelligence if by_networks else codes.cid7162.MorphologicalOperations
    return SegmentDescription(
        segment_number=number,
        segment_label=label,
        segmented_property_category=cac.CATEGORY,
        segmented_property_type=cac.CALCIFICATION,
        # A reader assigns a lesion to its artery, but its voxels are selected by the rule.
        algorithm_type="SEMIAUTOMATIC" if reviewed else "AUTOMATIC",
        algorithm_identification=AlgorithmIdentificationSequence(
            "CAC", family, VERSION, MANUFACTURER, parameters=cac.origin_of(result) or None
        ),
        tracking_uid=source.uid("tracking", label),
        tracking_id=f"CAC {label}",
        anatomic_regions=[cac.PLACES[site]],
        display_color=CIELabColor.from_rgb(*SITE_COLOURS[site]),
    )


def key_slices(result: CalciumResult) -> list[int]:
    """Return indices of the scan's slices with most of the clinical score, from head to feet; none without lesions."""
    points: dict[int, float] = defaultdict(float)
    for lesion in result.methods["threshold"].lesions:
        for component in lesion.components:
            points[component.slice] += component.agatston
    return sorted(heapq.nlargest(MOST, points, key=points.__getitem__), reverse=True)


def key_picture(result: CalciumResult, k: int) -> Image.Image:
    """Draw a slice with its lesions outlined and numbered, below the status of the score and the research notice."""
    method = result.methods["threshold"]
    numbers = {lesion.id: number_of(method, lesion) for lesion in listed_lesions(method)}
    jpeg = slice_picture(result.scan, result.region.mask, method.lesion_set, k, numbers)
    drawing = Image.open(io.BytesIO(jpeg))
    picture = Image.new("RGB", (drawing.width, drawing.height + _BAND))
    picture.paste(drawing, (0, _BAND))
    text = f"{STATUSES[method.status].capitalize()}\n{RESEARCH_ONLY}"
    ImageDraw.Draw(picture).text((6, 4), text, fill="white", font_size=12)
    return picture


def key_images_of(result: CalciumResult, source: SourceSeries) -> list[SCImage]:
    """Return a colour picture per key slice that refers to the slice's image."""
    images = []
    for number, k in enumerate(key_slices(result), 1):
        instance = {"sop_instance_uid": source.uid(f"key slice {number}"), "instance_number": number}
        origin = source.images[source.slice_of(k)]
        image = SCImage.from_ref_dataset(
            origin,
            np.asarray(key_picture(result, k)),
            photometric_interpretation="RGB",
            bits_allocated=8,
            coordinate_system="PATIENT",
            patient_orientation=("L", "P"),
            transfer_syntax_uid="1.2.840.10008.1.2.1",
            series_description="CAC: key slices",
            **source.identity("key slices") | instance,
        )
        image.ImageType = ["DERIVED", "SECONDARY"]
        image.BurnedInAnnotation, image.Laterality = "NO", ""
        image.DerivationDescription = "Slice with outlines of calcium by artery"
        reference = Dataset()
        reference.ReferencedSOPClassUID, reference.ReferencedSOPInstanceUID = origin.SOPClassUID, origin.SOPInstanceUID
        image.SourceImageSequence = [reference]
        images.append(source.complete(image))
    return images
