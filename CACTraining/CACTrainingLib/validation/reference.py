"""What a reference is, whatever files it came in: scans, and what a reader said of the calcium in each."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk

from CACScoringLib.core.ct import CTError, CTScan
from CACScoringLib.core.labels import Artery

VESSELS = {"LM": ("LM",), "LAD": ("LAD",), "LCX": ("LCX",), "RCA": ("RCA",)}
"""Keys of arteries by the vessel that a reference tells apart."""

VESSELS_LM_WITH_LAD = {"LM and LAD": ("LM", "LAD"), "LCX": ("LCX",), "RCA": ("RCA",)}


class BadReferenceError(CTError):
    """A reference cannot be used. The message says which file, why, and what to do."""


Outlines = Callable[[CTScan], sitk.Image]
"""A reader's outlines on the grid of the scan: uint8 `Site` labels. Raises CTError where they do not fit it."""


@dataclass(frozen=True)
class ReferenceScan:
    """A scan with its reference.

    name: unique in the reference. ct, series: as `read_ct` takes them. total: Agatston score; None where it follows
    from the outlines. vessels: Agatston score by vessel, where the reference has it; without what it leaves open.
    outlines: where calcium was outlined; picklable. files: that the outlines are read from.
    """

    name: str
    patient: str
    ct: Path
    series: str | None = None
    total: float | None = None
    vessels: Mapping[str, float] = field(default_factory=dict)
    outlines: Outlines | None = None
    files: tuple[Path, ...] = ()


@dataclass(frozen=True)
class Reference:
    """All scans of a reference.

    title: of its format. about: a paragraph for the page: what a score is here. vessels: which vessels it tells
    apart, and the arteries of each. refused: scans, or lines of a table, that cannot be used, with the reason.
    """

    title: str
    about: str
    vessels: Mapping[str, tuple[str, ...]]
    scans: tuple[ReferenceScan, ...]
    refused: tuple[tuple[str, str], ...] = ()


Counted = Callable[[int, int], None]
"""Takes how many are done of how many."""


def read_each(
    items: Sequence[tuple[str, Any]], read: Callable[[str, Any], ReferenceScan], progress: Counted | None = None
) -> tuple[tuple[ReferenceScan, ...], tuple[tuple[str, str], ...]]:
    """The scans of a reference, and the names of those that cannot be used with the reason.

    Args:
        items: name of each scan, and what `read` takes.
        read: makes the scan of a name and an item; raises CTError where it cannot.
        progress: counts the items.
    """
    found, refused = [], []
    for done, (name, item) in enumerate(items, 1):
        try:
            found.append(read(name, item))
        except CTError as error:
            refused.append((name, str(error)))
        if progress:
            progress(done, len(items))
    return tuple(found), tuple(refused)


BY_RULE = (
    "The reference score is that of the clinical rule (130 HU, lesions of at least 1 mm², Agatston 1990) within what "
    "was outlined."
)


def relabelled(image: sitk.Image, sites: Mapping[int, int], path: Path) -> sitk.Image:
    """A label map with other labels. sites: the new label by the old one, without 0. Raises BadReferenceError."""
    check_labels(image, {old: str(new) for old, new in sites.items()}, path)
    changed = {float(old): float(new) for old, new in sites.items()}
    return sitk.ChangeLabel(sitk.Cast(image, sitk.sitkUInt8), changed)


def check_labels(image: sitk.Image, known: Mapping[int, str], path: Path) -> None:
    """Raises BadReferenceError where a label map holds another label. known: what each means, without 0."""
    labels = set(np.unique(sitk.GetArrayViewFromImage(image)).tolist()) - {0, *known}
    if labels:
        meant = ", ".join(f"{label} {meaning}" for label, meaning in known.items())
        raise BadReferenceError(f"{path.name} holds the label {max(labels):g}. Its labels can be {meant}.")


ARTERY_NAMES = {artery.key.lower(): artery.key for artery in Artery if artery <= Artery.RCA} | {
    "lca": "LM",
    "lmca": "LM",
    "cx": "LCX",
}
"""Keys of arteries by what columns call them: COCA's LCA is what is left of the left coronary artery, the left main."""
