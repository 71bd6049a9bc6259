"""The command `cac data`: public collections of scans, from a download to a project."""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Annotated

from CACScoringLib.cli.main import require
from CACScoringLib.cli.options import command, confirms, declare_actions
from CACScoringLib.core.ct import ScanWarning
from CACScoringLib.core.errors import OutputError
from CACScoringLib.core.options import argument, option
from CACScoringLib.core.progress import Progress
from CACScoringLib.core.text import printable

from ..references.collection import Collection, collections

ENTRIES = collections()

NO_RADIOGRAPHS = (
    "No public collection has chest radiographs with calcium scores: MIMIC-CXR, CheXpert and PadChest have none. Give "
    "your own table to cac evaluate radiograph, or a project of CTs, which are projected."
)

MAX_REASONS = 10
"""Largest number of reasons that an import prints; its inventory has those of all scans."""


Folder = Annotated[Path, option(metavar="DIR")]
Number = Annotated[int | None, option(metavar="N")]


def _list(progress: Progress) -> None:
    """List the collections with content, licence, terms, layout, labels and traps."""
    print("\n\n".join([*(collection.as_text() for collection in ENTRIES.values()), NO_RADIOGRAPHS]))


def _fetch(collection: Collection, output: Folder, progress: Progress, scans: Number = None) -> None:
    """Fetch scans of a collection.

    Args:
        output: Folder for the scans.
        scans: Number of acquisitions (default: 20).
    """
    from ..collections.commons import fetch_sample

    _begin_fetch(collection, output, scans)
    count = fetch_sample(collection, output, 20 if scans is None else scans, progress)
    progress.done(output)
    print(f"{output}: {count} series. Next: cac data import {collection.name} {output} …")


def _fetch_or_list(
    collection: Collection,
    *,
    table: Annotated[Path | None, option(metavar="TABLE")] = None,
    yes: bool = False,
    output: Folder,
    scans: Number = None,
    progress: Progress,
) -> None:
    """Fetch scans of a collection.

    Args:
        table: Table (CSV) with a column PID, patient or patient_id, as DeepCAC's Results_NLST.csv, or series: fetch the
            baseline scan of these participants that DeepCAC's rule chooses, or these series, with a manifest.
        yes: Fetch gigabytes of a table without asking.
        output: Folder for the scans.
        scans: Number of acquisitions (default: 20), or of a table's first lines (default: all).
    """
    from ..collections.participants import fetch_participants
    from ..references.manifest import MANIFEST

    def agrees(size: str) -> bool:
        if yes:
            return True
        if not sys.stdin.isatty():
            raise OutputError(f"{size} Add --yes to fetch them; {output / MANIFEST} lists them.")
        return confirms(f"{size} Fetch them?")

    if table is None:
        _fetch(collection, output, progress, scans)
        return
    _begin_fetch(collection, output, scans)
    fetched, listed = fetch_participants(collection, table, output, progress, agrees, scans)
    progress.done(output)
    print(f"{output}: {fetched} of {listed} scans; {MANIFEST} has the reason of each that is missing")
    print(f"Next: cac validate {table} --scans {output} --output STUDY")


def _begin_fetch(collection: Collection, output: Path, scans: int | None) -> None:
    """Check the number of scans and the extra for downloads, and print the collection's terms. Raises OutputError."""
    from ..collections.commons import by_hand

    try:
        require("data")
    except OutputError as error:
        raise OutputError(f"{error} {by_hand(collection, output)}") from error
    if scans is not None and scans < 1:
        raise OutputError(f"At least one scan is fetched, not {scans}: give --scans 1 or more.")
    print(collection.as_text(), flush=True)


def _import(
    collection: Annotated[str, argument(choices=ENTRIES)],
    folder: Annotated[Path, argument(metavar="FOLDER")],
    *,
    output: Annotated[Path, option(metavar="PROJECT")],
    scans: Annotated[Path | None, option(metavar="DIR")] = None,
    prepare: bool = False,
    workers: Number = None,
    progress: Progress,
) -> None:
    """Check the scans of a downloaded collection, and add them to a project.

    Args:
        collection: Name of the collection, as cac data list shows it.
        folder: Folder of the download.
        output: Project, new or existing.
        scans: Folder of the scans, for labels that come without them (coca-nongated).
        prepare: Also propose the heart and the slices that may show calcium, to annotate from.
        workers: Number of processes (default: one per core).
    """
    from ..collections.importing import import_collection

    entry = ENTRIES[collection]
    print(f"{entry.title}: {entry.licence}. {entry.terms}", flush=True)
    result = import_collection(entry, folder, output, scans, workers, prepare, progress)
    for warning in result.warnings:
        progress.warning(ScanWarning("source-doubt", warning))
    added = sum(bool(scan.id) for scan in result.entries)
    progress.done(output)
    print(f"{output}: {added} scans in the project, {len(result.entries) - added} left out")
    reasons = Counter(scan.reason.splitlines()[0] for scan in result.entries if scan.reason)
    for reason, count in reasons.most_common(MAX_REASONS):
        print(f"  {count} left out: {printable(reason, message=True)}")
    scored, complete = result.scored
    if scored:
        print(
            f"{output}: {scored} scans with a score, {complete} with that of every artery, for cac evaluate and train"
        )
    print(f"{result.page}: the inventory")


RESUME = "Interrupted. Finished scans are kept; rerun the command to resume."
ACTIONS = {
    "list": command(_list, (), "Interrupted."),
    **{
        name: command(
            partial(_fetch_or_list if name == "nlst" else _fetch, entry),
            (),
            RESUME,
            f"Fetch scans of {entry.title}. {entry.content}",
        )
        for name, entry in ENTRIES.items()
        if entry.idc is not None
    },
    "import": command(_import, ("studies", "cohort"), RESUME),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's actions."""
    description = (
        "Public collections of CT scans: facts and terms, download, and import into a project with checks, a split by "
        "patient and an inventory page."
    )
    declare_actions(parser, ACTIONS, description)
