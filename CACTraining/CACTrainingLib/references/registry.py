"""All references: formats, detected from the content of a file or folder, and public collections by their readers."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from CACScoringLib.core.errors import BadReferenceError, CTError
from CACScoringLib.core.tables import Table, read_table
from CACScoringLib.core.text import abbreviated_list
from CACScoringLib.io.reading import stem

from ..project.project import NewScan, is_project
from .annotated import DEFAULT_USE, DIGITAL, PAIR_COLUMNS, first_pairs, read_pairs, read_project
from .coca import GATED, NONGATED
from .collection import Collection, collections
from .folder import find_new_scans, new_scans
from .label_maps import CAC_LABELS, NAMED_LABELS, declared
from .reference import ProgressCallback, Reference
from .score_table import has_scores, is_table, open_table, table_format

DECLARED = {entry.name: declared(entry) for entry in collections().values() if entry.reader == "label-maps"}
"""Formats that collections declare, by their names."""

FORMATS = (GATED, *DECLARED.values(), CAC_LABELS, NAMED_LABELS, NONGATED, table_format())


def read_reference(
    source: Path,
    scans: Path | None = None,
    progress: ProgressCallback | None = None,
    use: str | None = None,
    annotator: str | None = None,
    columns: str | None = None,
) -> Reference:
    """Read a reference of any known format; scans without a reference are among the refused.

    Args:
        source: File or folder of the reference, or of a project.
        scans: Folder of the scans, for references that name them by an id only.
        progress: Callback for the number of items read.
        use: Use of a project's scans, or "all"; None for those for test.
        annotator: Annotator of a project's scans, where there are several.
        columns: Columns of a table by their meaning, as of --columns.

    Raises:
        BadReferenceError: The format is unknown or ambiguous, or no scan can be used.
        CTError: An annotator has to be named, or is named of what is no project.
        ProjectError: The project cannot be read.
        TableError: The table cannot be read.
    """
    if not source.exists():
        raise BadReferenceError(f"There is no reference {source}. Give a file or folder with reference scores.")
    if columns and not is_table(source):
        raise BadReferenceError(f"{source} is no table, so that it has no columns. Leave --columns out.")
    if is_project(source):
        if scans is not None:
            raise BadReferenceError("A project lists where its scans are. Leave --scans out.")
        return read_project(source, use or DEFAULT_USE, annotator)
    if use is not None or annotator is not None:
        raise CTError(f"{source} is not a project: only a project's scans have a use and annotators.")
    # A scan's folder may hold its truth beside labels of another format, which then counts.
    fitting = [form for form in FORMATS if form.fits(source)] or [form for form in (DIGITAL,) if form.fits(source)]
    if not fitting:
        titles = "; ".join(form.title for form in (*FORMATS, DIGITAL))
        raise BadReferenceError(f"{source} holds no reference of a known format ({titles}).")
    if len(fitting) > 1:
        titles = " and ".join(form.title for form in fitting)
        raise BadReferenceError(f"{source} holds {titles}. Name the folder of one of them.")
    (form,) = [table_format(columns)] if columns else fitting
    if form.holds_scans and scans is not None:
        raise BadReferenceError(f"The scans of {form.title} lie in its own folder. Leave --scans out.")
    reference = form.read(source, scans, progress)
    refused = (*((scan.name, scan.missing) for scan in reference.scans if scan.missing), *reference.refused)
    usable = tuple(scan for scan in reference.scans if not scan.missing)
    if not usable:
        why = abbreviated_list([f"{name}: {reason}" for name, reason in refused]) or "it is empty"
        raise BadReferenceError(f"No scan of {source} ({reference.title}) can be compared. {why}")
    return replace(reference, scans=usable, refused=refused)


def read_study(
    source: Path,
    pairs: int | None = None,
    use: str | None = None,
    annotator: str | None = None,
    scans: Path | None = None,
    columns: str | None = None,
    progress: ProgressCallback | None = None,
) -> Reference:
    """Read the scans of a study, whose reference may be missing.

    Args:
        source: A reference, or a table of pairs (CSV, `annotated.PAIR_COLUMNS`, paths relative to it).
        pairs: Number of patients with both scans, from the first; None for all scans.
        use, annotator, scans, columns, progress: As for `read_reference`.

    Raises CTError as `read_reference`, and if no patient has two scans where pairs are wanted.
    """
    table = read_table(source.resolve(), short_lines=True) if is_table(source) and not columns else None
    if table is not None and _is_of_pairs(table):
        if use is not None or annotator is not None:
            raise CTError(f"{source} is not a project: only a project's scans have a use and annotators.")
        if scans is not None:
            raise BadReferenceError(f"{source} says in its column ct where the scans are. Leave --scans out.")
        reference = read_pairs(table)
    else:
        reference = read_reference(source, scans, progress, use, annotator, columns)
    return reference if pairs is None else first_pairs(reference, pairs)


def _is_of_pairs(table: Table) -> bool:
    """Return True for a table of pairs without scores, whose columns `read_pairs` knows."""
    return all(column in table for column in PAIR_COLUMNS) and not has_scores(table)


def check_study(source: Path, scans: Path | None = None, columns: str | None = None) -> None:
    """Raise CTError as `read_study` if the columns of a study's table are unknown; scans are not read."""
    if is_table(source) and (columns or not _is_of_pairs(read_table(source, short_lines=True))):
        open_table(source, scans, columns)


NewScans = tuple[list[NewScan], list[str]]
"""Scans, and sentences about what is left out."""


def find_scans(
    collection: Collection, folder: Path, images: Path | None = None, progress: ProgressCallback | None = None
) -> NewScans:
    """Find the scans of a downloaded collection.

    Args:
        collection: The collection.
        folder: Its folder, laid out as published.
        images: Folder of the scans, for labels that come without them.
        progress: Function of the numbers of items read and of all items.

    Returns:
        The scans with their annotations, and sentences about what is left out.

    Raises:
        CTError: The folder is missing, or holds no scan of the collection.
    """
    if not folder.is_dir():
        raise CTError(f"{folder} is no folder. {collection.source} Then give that folder.")
    try:
        return READERS[collection.reader](collection, folder, images, progress)
    except CTError as error:
        raise CTError(f"{error} The layout of {collection.title} is: {collection.layout}.") from error


def _series(collection: Collection, folder: Path, images: Path | None, progress: ProgressCallback | None) -> NewScans:
    scans, warnings = find_new_scans(folder, progress)
    return [_with_patient(scan, collection, folder) for scan in scans], warnings


def _with_patient(scan: NewScan, collection: Collection, folder: Path) -> NewScan:
    """Return a scan whose header names no patient with the patient's ID in its path, so that a patient has one use."""
    path = scan.ct.relative_to(folder).as_posix() if scan.ct.is_relative_to(folder) else scan.ct.name
    match = re.search(collection.patient, path) if collection.patient and scan.patient == scan.name else None
    return scan if match is None else replace(scan, patient=match[0])


def _labels(collection: Collection, folder: Path, images: Path | None, progress: ProgressCallback | None) -> NewScans:
    form = DECLARED.get(collection.name, NAMED_LABELS)
    if not form.fits(folder):
        raise BadReferenceError(f"{folder} holds no labels of it.")
    reference = replace(form.read(folder, images, progress), gated=collection.gated)
    return new_scans(reference, collection.name, collection.name)


def _presence(collection: Collection, folder: Path, images: Path | None, progress: ProgressCallback | None) -> NewScans:
    """Read volumes with a table of what reports state of each, as a note."""
    volume, presence = collection.places["scan"], collection.places["presence"]
    volumes = {path.name: path for path in sorted(folder.rglob("*.nii.gz"))}
    reported: dict[str, float | None] = {}
    for path in sorted(folder.rglob("*.csv")):
        table = read_table(path, short_lines=True)
        if volume in table and presence in table:
            reported |= {line.text(volume): line.number_in(presence, 0) for line in table.lines}
    if not volumes or not reported:
        raise BadReferenceError(f"{folder} holds {len(volumes)} volumes (.nii.gz) and {len(reported)} labels.")
    scans = [
        _with_patient(NewScan(stem(path), stem(path), path, note=note), collection, folder)
        for name, path in volumes.items()
        if (note := PRESENCE.get(reported.get(name)))
    ]
    unlabelled = sorted(volumes.keys() - {scan.ct.name for scan in scans})
    return scans, [f"Volumes without a label are left out: {abbreviated_list(unlabelled)}."] if unlabelled else []


PRESENCE: dict[float | None, str] = {0: "no calcification reported", 1: "calcification reported"}

READERS: dict[str, Callable[[Collection, Path, Path | None, ProgressCallback | None], NewScans]] = {
    "series": _series,
    "label-maps": _labels,
    "named-labels": _labels,
    "presence": _presence,
}
"""Readers by `Collection.reader`: scans with labels of any source, label maps as declared or named, and presence."""
