"""Scans of a downloaded collection, by the readers that `cac project add` and `cac validate` use."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from CACScoringLib.core.ct import CTError
from CACScoringLib.core.grid import Grid
from CACScoringLib.core.labels import Artery
from CACScoringLib.core.tables import read_table
from CACScoringLib.core.text import abbreviated_list
from CACScoringLib.core.voxels import voxels_of
from CACScoringLib.io.reading import read_ct, stem

from ..project.annotation_files import ImportedAnnotations
from ..project.importers.segmentation_labels import slice_labels
from ..project.importers.sources import find_new_scans
from ..project.project import NewScan
from ..validation.formats import read_reference
from ..validation.reference import Outlines, ProgressCallback
from .collection import Collection

VOLUME, CALCIFICATION = "VolumeName", "Coronary artery wall calcification"
"""Columns of CT-RATE-Refined."""

PRESENCE: dict[float | None, str] = {0: "no calcification reported", 1: "calcification reported"}


class CollectionError(CTError):
    """A folder does not hold the collection, or it cannot be fetched. The message says what to do."""


Scans = tuple[list[NewScan], list[str]]
"""Scans, and sentences about what is left out."""


def find_scans(
    collection: Collection, folder: Path, images: Path | None = None, progress: ProgressCallback | None = None
) -> Scans:
    """Find the scans of a downloaded collection.

    Args:
        collection: The collection.
        folder: Its folder, laid out as published.
        images: Folder of the scans, for labels that come without them.
        progress: Function of the numbers of items read and of all items.

    Returns:
        The scans with their annotations, and sentences about what is left out.

    Raises:
        CollectionError: The folder is missing.
        CTError: It holds no scan of the collection.
    """
    if not folder.is_dir():
        raise CollectionError(f"{folder} is no folder. {collection.source} Then give that folder.")
    try:
        return READERS[collection.reader](collection, folder, images, progress)
    except CTError as error:
        raise CollectionError(f"{error} The layout of {collection.title} is: {collection.layout}.") from error


def _series(collection: Collection, folder: Path, images: Path | None, progress: ProgressCallback | None) -> Scans:
    scans, warnings = find_new_scans(folder, progress)
    return [_with_patient(scan, collection, folder) for scan in scans], warnings


def _with_patient(scan: NewScan, collection: Collection, folder: Path) -> NewScan:
    """Return a scan whose header names no patient with the patient's ID in its path, so that a patient has one use."""
    path = scan.ct.relative_to(folder).as_posix() if scan.ct.is_relative_to(folder) else scan.ct.name
    match = re.search(collection.patient, path) if collection.patient and scan.patient == scan.name else None
    return scan if match is None else replace(scan, patient=match[0])


def _reference(collection: Collection, folder: Path, images: Path | None, progress: ProgressCallback | None) -> Scans:
    reference = read_reference(folder, images, progress)
    scans = []
    for scan in reference.scans:
        name = f"{collection.name}-{scan.name}"
        annotations = None
        if scan.outlines is not None:
            annotations = partial(reference_annotations, collection.name, scan.ct, scan.series, scan.outlines)
        scans.append(NewScan(name, name, scan.ct, scan.series, annotations=annotations))
    return scans, [f"{name} is left out. {reason}" for name, reason in reference.refused]


def reference_annotations(annotator: str, ct: Path, series: str | None, outlines: Outlines) -> ImportedAnnotations:
    """Return a reference's outlines as annotations: regions of arteries, and the slices that show calcium.

    Raises CTError if the outlines do not fit the scan.
    """
    labels = outlines(read_ct(ct, series))
    arteries = np.array(voxels_of(labels))
    arteries[arteries > Artery.OTHER] = 0
    regions = Grid.of(labels).image(arteries)
    return ImportedAnnotations(annotator, slice_labels(regions), regions)


def _presence(collection: Collection, folder: Path, images: Path | None, progress: ProgressCallback | None) -> Scans:
    volumes = {path.name: path for path in sorted(folder.rglob("*.nii.gz"))}
    reported: dict[str, float | None] = {}
    for path in sorted(folder.rglob("*.csv")):
        table = read_table(path, short_lines=True)
        if VOLUME in table and CALCIFICATION in table:
            reported |= {line.text(VOLUME): line.number_in(CALCIFICATION, 0) for line in table.lines}
    if not volumes or not reported:
        raise CollectionError(f"{folder} holds {len(volumes)} volumes (.nii.gz) and {len(reported)} labels.")
    scans = [
        NewScan(stem(path), "_".join(stem(path).split("_")[:2]), path, note=note)
        for name, path in volumes.items()
        if (note := PRESENCE.get(reported.get(name)))
    ]
    unlabelled = sorted(volumes.keys() - {scan.ct.name for scan in scans})
    return scans, [f"Volumes without a label are left out: {abbreviated_list(unlabelled)}."] if unlabelled else []


READERS: dict[str, Callable[[Collection, Path, Path | None, ProgressCallback | None], Scans]] = {
    "series": _series,
    "reference": _reference,
    "presence": _presence,
}
"""Readers by `Collection.reader`: scans with labels of any project source, references with outlines, and presence."""
