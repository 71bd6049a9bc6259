"""All references: formats, detected from the content of a file or folder, and public collections by their readers.

A table of scores (CSV) has a line per scan: `ct` (file or DICOM folder, relative to the table) or `id`, which is looked
up below --scans; `total` (or agatston), or the arteries LM (or LCA), LAD, LCX, RCA, or both; or `lesions`, a label map
with CAC's own labels instead (`label_maps`). Columns `name`, `series` and `patient` are optional, as for `cac cohort`,
and so is `comparator`, the score of another program. Published tables have other columns: `Collection.tables`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

from CACScoringLib.core.errors import BadReferenceError, CTError, TableError
from CACScoringLib.core.tables import Line, Table, read_table
from CACScoringLib.core.text import abbreviated_list, printable
from CACScoringLib.io.reading import stem

from ..project.project import NewScan, is_project
from .annotated import DEFAULT_USE, DIGITAL, PAIR_COLUMNS, first_pairs, read_pairs, read_project
from .coca import GATED, NONGATED
from .collection import OWN_TABLE, Collection, Layout, collections
from .folder import find_new_scans, new_scans
from .label_maps import ABOUT, CAC_LABELS, NAMED_LABELS, declared
from .reference import (
    VESSELS,
    Format,
    ProgressCallback,
    Reference,
    ReferenceScan,
    ScansById,
    artery_of_column,
    read_each,
    scan_of,
    scans_below,
)
from .segmentations import lesions_on_grid, read_lesions

ROUNDING = 0.5
"""Error of a score that was rounded to a whole number."""
AGATSTON_UNITS = ("agatston", "agatston score", "agatston units", "agatston unit", "au")
"""Values of a column unit, in lower case."""
ENDINGS = (".csv", ".tsv", ".txt")


def _read_table(source: Path, scans: Path | None, progress: ProgressCallback | None) -> Reference:
    """Read a table; ids are looked up below `scans`. Raises BadReferenceError, TableError."""
    table = read_table(source, short_lines=True)
    layout = layout_of(table)
    total = next((column for column in layout.totals if column in table), None)
    arteries = {column: key for column in table.columns if (key := artery_of_column(column))}
    _check_columns(table, layout, total, arteries)
    by_id = None
    if "ct" not in table:
        if scans is None:
            raise BadReferenceError(
                f"{source} names scans by {layout.id} only. Name the folder they lie in with --scans."
            )
        by_id = scans_below(scans, progress)
    elif scans is not None:
        raise BadReferenceError(f"{source} says in its column ct where the scans are. Leave --scans out.")
    names = [printable(layout.name_of(line)) or f"line {line.number}" for line in table.lines]
    table.need_distinct(names, "scan")
    vessels = VESSELS if set(arteries.values()) == set(VESSELS) or "lesions" in table else {}
    lesions = f" {ABOUT}" if "lesions" in table else ""
    scores = layout.about or ("Agatston scores as the table has them." if total or arteries else "")
    items = list(zip(names, table.lines, strict=True))
    results = read_each(items, lambda name, line: _line_scan(name, line, layout, arteries, by_id))
    return Reference(layout.title, f"{scores}{lesions}".strip(), vessels, *results, layout)


def layout_of(table: Table) -> Layout:
    """Return the published layout whose columns a table has, else that of the user's own."""
    published = (layout for collection in collections().values() for layout in collection.tables)
    fitting = (entry for entry in published if all(c in table for c in (entry.id, *entry.totals, *entry.name)))
    return next(fitting, OWN_TABLE)


def _check_columns(table: Table, layout: Layout, total: str | None, arteries: dict[str, str]) -> None:
    if "ct" not in table and layout.id not in table:
        table.need("ct")
    keys = list(arteries.values())
    if twice := sorted({key for key in keys if keys.count(key) > 1}):
        raise TableError(f"The table {table.path} has two columns for {', '.join(twice)}. Remove one.")
    if total is None and "lesions" not in table and (missing := set(VESSELS) - set(keys)):
        raise TableError(
            f"The table {table.path} has neither a column total nor one for {', '.join(sorted(missing))}, nor label "
            f"maps in a column lesions; it has {', '.join(map(printable, table.columns))}."
        )


def _check_scores(line: Line, totals: Mapping[str, float], vessels: Mapping[str, float]) -> None:
    """Raise TableError if totals differ, or the arteries exceed a total; other branches may make a total larger."""
    tolerance = ROUNDING * (1 + len(vessels))
    if len(totals) > 1 and max(totals.values()) - min(totals.values()) > 2 * ROUNDING:
        listed = " and ".join(f"{column} {value:g}" for column, value in totals.items())
        raise TableError(f"The scores in {line.where} contradict each other: {listed}. Correct one.")
    artery_sum = sum(vessels.values())
    for column, value in totals.items():
        if artery_sum > value + tolerance:
            listed = ", ".join(f"{key} {score:g}" for key, score in vessels.items() if score)
            raise TableError(f"The scores in {line.where} contradict each other: {column} {value:g}, but {listed}.")


def _line_scan(
    name: str, line: Line, layout: Layout, arteries: dict[str, str], by_id: ScansById | None
) -> ReferenceScan:
    """Read a line of the table. Raises CTError."""
    if (unit := line.text("unit") or line.text("units")) and unit.casefold() not in AGATSTON_UNITS:
        raise TableError(f"The unit in {line.where} is {unit}. Only Agatston scores are compared: leave the line out.")
    totals = {column: value for column in layout.totals if (value := line.number_in(column, 0)) is not None}
    scores = {key: line.number_in(column, 0) for column, key in arteries.items()}
    vessels = {key: value for key, value in scores.items() if value is not None}
    _check_scores(line, totals, vessels)
    score = next(iter(totals.values()), None)
    if score is None and set(vessels) == set(VESSELS):
        score = sum(vessels.values())
    lesions = line.file("lesions")
    if score is None and lesions is None:
        raise TableError(f"There is no total in {line.where}.")
    if lesions is not None:
        read_lesions(lesions)
    if by_id is None:
        line.need("ct")
        ct, series = line.need_file("ct"), line.text("series") or None
    else:
        line.need(layout.id)
        scan = scan_of(line.text(layout.id), by_id)
        ct, series = scan.ct, scan.series
    patient = printable(line.text(layout.patient)) or name
    comparator = line.number_in(layout.comparator, 0)
    reference = ReferenceScan(name, patient, ct, series, total=score, vessels=vessels, comparator=comparator)
    if lesions is None:
        return reference
    return replace(reference, outlines=partial(lesions_on_grid, lesions), files=(lesions,))


TABLE = Format(
    "a table of scores", lambda source: source.is_file() and source.name.lower().endswith(ENDINGS), _read_table
)

DECLARED = {entry.name: declared(entry) for entry in collections().values() if entry.reader == "label-maps"}
"""Formats that collections declare, by their names."""

FORMATS = (GATED, *DECLARED.values(), CAC_LABELS, NAMED_LABELS, NONGATED, TABLE)


def read_reference(
    source: Path,
    scans: Path | None = None,
    progress: ProgressCallback | None = None,
    use: str | None = None,
    annotator: str | None = None,
) -> Reference:
    """Read a reference of any known format; scans without a reference are among the refused.

    Args:
        source: File or folder of the reference, or of a project.
        scans: Folder of the scans, for references that name them by an id only.
        progress: Callback for the number of items read.
        use: Use of a project's scans, or "all"; None for those for test.
        annotator: Annotator of a project's scans, where there are several.

    Raises:
        BadReferenceError: The format is unknown or ambiguous, or no scan can be used.
        CTError: An annotator has to be named, or is named of what is no project.
        ProjectError: The project cannot be read.
        TableError: The table cannot be read.
    """
    if not source.exists():
        raise BadReferenceError(f"There is no reference {source}. Give a file or folder with reference scores.")
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
    (form,) = fitting
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
    source: Path, pairs: int | None = None, use: str | None = None, annotator: str | None = None
) -> Reference:
    """Read the scans of a study, whose reference may be missing.

    Args:
        source: A reference, or a table of pairs (CSV, `annotated.PAIR_COLUMNS`, paths relative to it).
        pairs: Number of patients with both scans, from the first; None for all scans.
        use, annotator: As for `read_reference`.

    Raises CTError as `read_reference`, and if no patient has two scans where pairs are wanted.
    """
    table = read_table(source.resolve(), short_lines=True) if source.suffix.lower() in ENDINGS else None
    if table is not None and all(column in table for column in PAIR_COLUMNS):
        if use is not None or annotator is not None:
            raise CTError(f"{source} is not a project: only a project's scans have a use and annotators.")
        reference = read_pairs(table)
    else:
        reference = read_reference(source, use=use, annotator=annotator)
    return reference if pairs is None else first_pairs(reference, pairs)


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
