"""Counted lesions as a DICOM Segmentation (PS3.3 A.51): one binary segment per artery and per other site."""

from __future__ import annotations

import numpy as np
import SimpleITK as sitk
from highdicom import AlgorithmIdentificationSequence
from highdicom.color import CIELabColor
from highdicom.seg import Segmentation, SegmentDescription
from pydicom.sr.codedict import codes

from ..core.labels import SITE_COLOURS, SITES, Artery, Site
from ..core.version import VERSION
from ..report.files import site_labels
from ..results import ScoreResult
from . import codes as cac
from .source import MANUFACTURER, SourceSeries, with_creator


def counted_labels(result: ScoreResult) -> sitk.Image:
    """Return `Site` labels of counted lesions and of calcium elsewhere, uint8 on the scan's grid."""
    return site_labels(result, only_counted=True)


def segmentation_of(result: ScoreResult, labels: sitk.Image, source: SourceSeries) -> Segmentation | None:
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


def _segment_description(result: ScoreResult, source: SourceSeries, number: int, site: Site) -> SegmentDescription:
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
            "CAC", family, VERSION, MANUFACTURER, parameters=cac.provenance_texts(result) or None
        ),
        tracking_uid=source.uid("tracking", label),
        tracking_id=f"CAC {label}",
        anatomic_regions=[cac.PLACES[site]],
        display_color=CIELabColor.from_rgb(*SITE_COLOURS[site]),
    )
