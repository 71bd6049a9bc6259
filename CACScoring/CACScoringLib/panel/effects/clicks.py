"""Decisions of the effect CAC Lesion about a click: what it adds, what a second one would add, and what is reported.

A message is a text with the values of its placeholders; it is translated on display.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from ...review.picking import Pick, Voxels


class Message(NamedTuple):
    """Text, and the values of its placeholders by name."""

    text: str
    values: Mapping[str, object] = {}


@dataclass(frozen=True)
class Offer:
    """What a second click would add.

    Attributes:
        segment: ID of the segment that was selected at the first click.
        lesion: Lesion across sites, with the voxels of the first click.
        parts_mm3: Volume of each part that the first click left, by ID of its segment; "" for voxels without one.
    """

    segment: str
    lesion: Voxels
    parts_mm3: Mapping[str, float]

    def is_taken(self, segment: str, kji: Sequence[int] | None) -> bool:
        """True if a click with this selected segment, at this voxel, takes the offer."""
        return segment == self.segment and kji is not None and self.lesion.holds(kji)


def offer_across(
    pick: Pick, across: Pick | None, segment: str, sites_of: Callable[[Voxels], dict[str, int]], voxel_mm3: float
) -> Offer | None:
    """Return what a second click would add; None if the lesion ends with its site, or leaks across sites.

    Args:
        pick: Lesion of the first click, within its site.
        across: The same lesion across sites.
        segment: ID of the selected segment.
        sites_of: Function that counts voxels by ID of their segment, without those that have none.
        voxel_mm3: Volume of a voxel.
    """
    if across is None or across.leaked:
        return None
    lesion = across.united(pick)
    counts = sites_of(lesion)
    counts = {**counts, "": lesion.count - sum(counts.values())}
    parts = {site: count * voxel_mm3 for site, count in counts.items() if count and site != segment}
    return Offer(segment, lesion, parts) if parts else None


def leak_message(pick: Pick) -> Message:
    """Return why a leaked lesion is not added."""
    return Message("Not added. {reason} Drag from the lesion to add a sphere of it.", {"reason": pick.reason})


def refusal(pick: Pick, segment: str) -> Message | None:
    """Return why a lesion cannot be added to the selected segment; None if it can. segment: empty for none."""
    if pick.leaked:
        return leak_message(pick)
    return None if segment else Message("Choose an artery first: keys 1 to 9, or a button.")


def outcome(artery: str, former_sites: Sequence[str], lesion: str, changed: int) -> Message:
    """Return what a click has done.

    Args:
        artery: Name of the selected segment.
        former_sites: Names of the other sites that the lesion belonged to.
        lesion: Description of the lesion.
        changed: Number of voxels that changed.
    """
    text = "Moved to {artery} from {sites}: {lesion}." if former_sites else "Added to {artery}: {lesion}."
    text = text if changed else "It belongs to {artery} already, or is masked."
    return Message(text, {"artery": artery, "sites": ", ".join(former_sites), "lesion": lesion})


def nothing_there(hu: float | None, threshold_hu: float) -> Message:
    """Return why there is no lesion at a position. hu: value of its voxel; None outside the scan."""
    if hu is None:
        return Message("Nothing to add: the scan ends here.")
    if hu < threshold_hu:
        text = "{value:.0f} HU, below the threshold of {threshold:g} HU. CAC Region paints without a threshold."
        return Message(text, {"value": hu, "threshold": threshold_hu})
    return Message("Outside the heart. Switch the limit to the heart outline off, or correct the heart.")
