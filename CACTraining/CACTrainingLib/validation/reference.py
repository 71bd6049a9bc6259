"""A reference, whatever files it came in: scans, and a reader's scores or labels of each."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import SimpleITK as sitk

from CACScoringLib.cohort.scans import CohortScan
from CACScoringLib.cohort.search import scans_of_folder, search
from CACScoringLib.core.ct import CTError, CTScan
from CACScoringLib.core.labels import MAIN_ARTERIES, Artery, site_called
from CACScoringLib.io.reading import find_series, stem

from ..project.importers.sources import patient_in

VESSELS = {"LM": ("LM",), "LAD": ("LAD",), "LCX": ("LCX",), "RCA": ("RCA",)}
"""Keys of arteries by the vessel that a reference distinguishes."""

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

    title: of its format. about: a paragraph for the page: what a score is here. vessels: which vessels it keeps
    apart, and the arteries of each. refused: scans, or lines of a table, that cannot be used, with the reason.
    """

    title: str
    about: str
    vessels: Mapping[str, tuple[str, ...]]
    scans: tuple[ReferenceScan, ...]
    refused: tuple[tuple[str, str], ...] = ()


Counted = Callable[[int, int], None]
"""Takes how many are done of how many."""


@dataclass(frozen=True)
class Format:
    """A format of references.

    fits: whether a file or folder is of it. read: makes the reference, of the file or folder, the folder of its scans
    (None where it is not given) and the progress. holds_scans: whether the folder of the scans must not be given.
    """

    title: str
    fits: Callable[[Path], bool]
    read: Callable[[Path, Path | None, Counted | None], Reference]
    holds_scans: bool = False


def read_each(
    items: Sequence[tuple[str, Any]], read: Callable[[str, Any], ReferenceScan], progress: Counted | None = None
) -> tuple[tuple[ReferenceScan, ...], tuple[tuple[str, str], ...]]:
    """The scans of a reference, and the names of those that cannot be used with the reason.

    Args:
        items: name of each scan, and what `read` takes.
        read: makes the scan of a name and an item; raises CTError where it cannot.
        progress: counts the items.
    """
    scans, refused = [], []
    for number, (name, item) in enumerate(items, 1):
        try:
            scans.append(read(name, item))
        except CTError as error:
            refused.append((name, str(error)))
        if progress:
            progress(number, len(items))
    return tuple(scans), tuple(refused)


BY_RULE = (
    "The reference score is that of the clinical rule (130 HU at 120 kVp, lesions of at least 1 mm², Agatston 1990) "
    "within what was outlined."
)


def artery_of_column(column: str) -> str | None:
    """Return the key of the main artery that a column is called by, None for another column.

    COCA's LCA is what is left of the left coronary artery beside its branches, the left main.
    """
    artery = Artery.LM if column.lower() == "lca" else site_called(column)
    return artery.key if artery in MAIN_ARTERIES else None


ScansById = dict[str, list[CohortScan]]


def scan_of(id_: str, scans: ScansById) -> CohortScan:
    """The scan of an id, by `scans_below`. Raises BadReferenceError where there is none or several, or it is unfit."""
    matches = scans.get(id_.strip().lower(), [])
    if len(matches) != 1:
        names = ", ".join(sorted(scan.name for scan in matches)[:3])
        raise BadReferenceError(
            f"{len(matches)} scans go by this id{names and f' ({names})'}: a folder, a file or a patient ID. Give a "
            "table (CSV) whose column ct names the one that was scored."
        )
    if matches[0].fault:
        raise BadReferenceError(matches[0].fault)
    return matches[0]


def scans_below(folder: Path, progress: Counted | None = None) -> ScansById:
    """Find the scans below a folder, by every name that one goes by, in lower case.

    A scan goes by the id of its patient in the header, and by each part of its path below the folder.

    Args:
        folder: Of DICOM series or image files.
        progress: Takes how many DICOM folders are read of how many.

    Raises:
        BadReferenceError: There is no such folder, or no scan in it.
    """
    if not folder.is_dir():
        raise BadReferenceError(f"There is no folder of scans {folder}. Name it with --scans.")
    places = search(folder, folder / ".cac-no-output")
    series = []
    for n, place in enumerate(places.folders, 1):
        try:
            series.append(find_series(place))
        except (OSError, CTError):
            series.append(None)
        if progress:
            progress(n, len(places.folders))
    scans: dict[str, list[CohortScan]] = {}
    for scan in scans_of_folder(folder, places, series):
        patient = patient_in(scan) if scan.series is not None else None
        named = replace(scan, patient=patient or "")
        below = scan.ct.relative_to(folder)
        for name in {part.lower() for part in (*below.parts[:-1], stem(below), patient) if part}:
            scans.setdefault(name, []).append(named)
    if not scans:
        raise BadReferenceError(f"{folder} holds no CT: no DICOM series and no NIfTI, NRRD or MHA file.")
    return scans
