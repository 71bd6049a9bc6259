"""Scans for references that name them by an id only: what lies below a folder, by the names and headers it has."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from CACScoringLib.cohort.scans import CohortScan
from CACScoringLib.cohort.search import scans_of_folder, search
from CACScoringLib.core.ct import CTError
from CACScoringLib.io.reading import find_series, stem

from ..project.importers.sources import patient_in
from .reference import BadReferenceError, Counted

ScansById = dict[str, list[CohortScan]]


def scan_of(id_: str, scans: ScansById) -> CohortScan:
    """The scan of an id, by `scans_below`. Raises BadReferenceError where there is none or several, or it is unfit."""
    found = scans.get(id_.strip().lower(), [])
    if len(found) != 1:
        names = ", ".join(sorted(scan.name for scan in found)[:3])
        raise BadReferenceError(
            f"{len(found)} scans go by this id{names and f' ({names})'}: a folder, a file or a patient ID. Give a "
            "table (CSV) whose column ct names the one that was scored."
        )
    if found[0].fault:
        raise BadReferenceError(found[0].fault)
    return found[0]


def scans_below(folder: Path, progress: Counted | None = None) -> ScansById:
    """Find the scans below a folder, by every name that one goes by, in lower case.

    A scan goes by the id of its patient in the header, and by each part of its path below the folder.

    Args:
        folder: Of DICOM series or image files.
        progress: Is told how many DICOM folders are read of how many.

    Raises:
        BadReferenceError: There is no such folder, or no scan in it.
    """
    if not folder.is_dir():
        raise BadReferenceError(f"There is no folder of scans {folder}. Name it with --scans.")
    found = search(folder, folder / ".cac-no-output")
    series = []
    for n, place in enumerate(found.folders, 1):
        try:
            series.append(find_series(place))
        except (OSError, CTError):
            series.append(None)
        if progress:
            progress(n, len(found.folders))
    scans: dict[str, list[CohortScan]] = {}
    for scan in scans_of_folder(folder, found, series):
        patient = patient_in(scan) if scan.series is not None else None
        own = replace(scan, patient=patient or "")
        below = scan.ct.relative_to(folder)
        for name in {part.lower() for part in (*below.parts[:-1], stem(below), patient) if part}:
            scans.setdefault(name, []).append(own)
    if not scans:
        raise BadReferenceError(f"{folder} holds no CT: no DICOM series and no NIfTI, NRRD or MHA file.")
    return scans
