"""The command `cac data`: public collections of scans, from a download to a project."""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from CACScoringLib.cli.main import require
from CACScoringLib.cli.options import Command, declare_actions
from CACScoringLib.core.ct import ScanWarning
from CACScoringLib.core.errors import OutputError
from CACScoringLib.core.options import argument, option
from CACScoringLib.core.progress import Progress

from ..references.collection import Collection, collections

ENTRIES = collections()


@dataclass(frozen=True)
class ListOptions:
    """List the collections with content, licence, terms, layout, labels and traps."""


@dataclass(frozen=True)
class FetchOptions:
    """Fetch scans of a collection.

    Attributes:
        output: Folder for the scans.
        scans: Number of acquisitions (default: 20).
    """

    output: Path = option(metavar="DIR")
    scans: int | None = option(None, metavar="N")


@dataclass(frozen=True)
class FetchTableOptions(FetchOptions):
    """Fetch scans of a collection.

    Attributes:
        output: Folder for the scans.
        scans: Number of acquisitions (default: 20), or of a table's first lines (default: all).
        table: Table (CSV) with a column PID, patient or patient_id, as DeepCAC's Results_NLST.csv, or series: fetch the
            baseline scan of these participants that DeepCAC's rule chooses, or these series, with a manifest.
        yes: Fetch gigabytes of a table without asking.
    """

    table: Path | None = option(None, metavar="TABLE")
    yes: bool = False


@dataclass(frozen=True, kw_only=True)
class ImportOptions:
    """Check the scans of a downloaded collection, and add them to a project.

    Attributes:
        collection: Name of the collection, as cac data list shows it.
        folder: Folder of the download.
        output: Project, new or existing.
        scans: Folder of the scans, for labels that come without them (coca-nongated).
        prepare: Also propose the heart and the slices that may show calcium, to annotate from.
        workers: Number of processes (default: one per core).
    """

    collection: str = argument(choices=ENTRIES)
    folder: Path = argument(metavar="FOLDER")
    output: Path = option(metavar="PROJECT")
    scans: Path | None = option(None, metavar="DIR")
    prepare: bool = False
    workers: int | None = option(None, metavar="N")


def _list(options: ListOptions, progress: Progress) -> None:
    print("\n\n".join(collection.as_text() for collection in ENTRIES.values()))


def _fetch(collection: Collection, options: FetchOptions, progress: Progress) -> None:
    from ..collections.commons import by_hand, fetch_sample

    try:
        require("data")
    except OutputError as error:
        raise OutputError(f"{error} {by_hand(collection, options.output)}") from error
    if options.scans is not None and options.scans < 1:
        raise OutputError(f"At least one scan is fetched, not {options.scans}: give --scans 1 or more.")
    print(collection.as_text(), flush=True)
    if isinstance(options, FetchTableOptions) and options.table is not None:
        _fetch_table(collection, options, options.table, progress)
        return
    count = fetch_sample(collection, options.output, 20 if options.scans is None else options.scans, progress)
    progress.done(options.output)
    print(f"{options.output}: {count} series. Next: cac data import {collection.name} {options.output} …")


def _fetch_table(collection: Collection, options: FetchTableOptions, table: Path, progress: Progress) -> None:
    from ..collections.participants import fetch_participants
    from ..references.manifest import MANIFEST

    def agrees(size: str) -> bool:
        if options.yes:
            return True
        if not sys.stdin.isatty():
            raise OutputError(f"{size} Add --yes to fetch them; {options.output / MANIFEST} lists them.")
        return input(f"{size} Fetch them? [y/N] ").strip().lower() in ("y", "yes")

    fetched, listed = fetch_participants(collection, table, options.output, progress, agrees, options.scans)
    progress.done(options.output)
    print(f"{options.output}: {fetched} of {listed} scans; {MANIFEST} has the reason of each that is missing")
    print(f"Next: cac validate {table} --scans {options.output} --output STUDY")


def _import(options: ImportOptions, progress: Progress) -> None:
    from ..collections.importing import ImportSettings, import_collection

    collection = ENTRIES[options.collection]
    print(f"{collection.title}: {collection.licence}. {collection.terms}", flush=True)
    settings = ImportSettings(
        collection, options.folder, options.output, options.scans, options.workers, options.prepare
    )
    result = import_collection(settings, progress)
    for warning in result.warnings:
        progress.warning(ScanWarning("source-doubt", warning))
    added = sum(bool(entry.id) for entry in result.entries)
    progress.done(options.output)
    print(f"{options.output}: {added} scans in the project, {len(result.entries) - added} left out")
    print(f"{result.page}: the inventory")


RESUME = "Interrupted. Finished scans are kept; rerun the command to resume."
ACTIONS: dict[str, Command[Any]] = {
    "list": Command(ListOptions, _list, interrupted="Interrupted."),
    **{
        name: Command(
            FetchTableOptions if name == "nlst" else FetchOptions,
            partial(_fetch, entry),
            (),
            RESUME,
            f"Fetch scans of {entry.title}. {entry.content}",
        )
        for name, entry in ENTRIES.items()
        if entry.idc is not None
    },
    "import": Command(ImportOptions, _import, ("studies", "cohort"), RESUME),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's actions."""
    description = (
        "Public collections of CT scans: facts and terms, download, and import into a project with checks, a split by "
        "patient and an inventory page."
    )
    declare_actions(parser, ACTIONS, description)
