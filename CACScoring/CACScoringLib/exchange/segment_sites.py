"""Site of a segment of any tool, from its codes or else its name."""

from __future__ import annotations

from collections.abc import Iterable

from pydicom import Dataset
from pydicom.sr.coding import Code

from ..core.errors import MaskError
from ..core.labels import SITE_NAMES, SNOMED_CODES, Artery, is_not_coronary, site_called
from ..core.text import printable
from .codes import CORONARY

REJECTED = 0
"""Label of rejected calcium."""

_SITES = {Code(value, "SCT", ""): site for site, values in SNOMED_CODES.items() for value in values}


def label_of(name: str, coded: Iterable[Dataset]) -> int | None:
    """Return the `Site` label of a segment, REJECTED for rejected calcium, None if neither name nor codes state a site.

    coded: Items of code sequences of its anatomy, SNOMED CT or its former codes (SRT). The name decides without such
        codes, and names the artery if the code is that of coronary arteries in general.
    """
    if is_not_coronary(name):
        return REJECTED
    # Comparing codes, pydicom takes those of SRT for their successors in SNOMED CT.
    codes = [
        Code(str(item.get("CodeValue") or ""), str(item.get("CodingSchemeDesignator") or ""), "") for item in coded
    ]
    for code in codes:
        # Not looked up: codes of SRT equal their successors but have other hashes.
        if (site := next((site for site_code, site in _SITES.items() if site_code == code), None)) is not None:
            return int(site)
    if (named := site_called(name)) is not None:
        return int(named)
    return int(Artery.OTHER) if CORONARY in codes else None


def labels_of(kind: str, file_name: str, segments: Iterable[tuple[int, str, list[Dataset]]]) -> dict[int, int]:
    """Return the labels of segments by number.

    Args:
        kind: Word for a segment in messages.
        file_name: Name of the file in messages.
        segments: Number, name and codes of each segment.

    Raises:
        MaskError: A segment states no known site.
    """
    segments = list(segments)
    labels = {number: label_of(name, coded) for number, name, coded in segments}
    unknown = [f"{printable(name) or 'without a name'} ({kind} {n})" for n, name, _ in segments if labels[n] is None]
    if unknown:
        raise MaskError(
            f"{file_name} has {kind}s that name no artery by code or name: "
            f"{', '.join(unknown)}. Code their anatomy, or rename each to one of {SITE_NAMES}."
        )
    return {number: int(label) for number, label in labels.items() if label is not None}


def coded_anatomy(item: Dataset) -> list[Dataset]:
    """Return the items of a segment's code sequences of anatomy, the most specific first."""
    names = ("PrimaryAnatomicStructureSequence", "AnatomicRegionSequence", "SegmentedPropertyTypeCodeSequence")
    return [coded for name in names for coded in item.get(name) or ()]
