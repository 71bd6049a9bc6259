"""The command `cac data`: public collections of scans, from a download to a project."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from CACScoringLib.cli.main import require
from CACScoringLib.cli.options import add_progress_argument
from CACScoringLib.core.ct import ScanWarning
from CACScoringLib.core.files import OutputError
from CACScoringLib.core.progress import Progress

from ..collections.collection import collections

RESUME = "Interrupted. Finished scans are kept; rerun the command to resume."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's actions."""
    parser.description = (
        "Public collections of CT scans: facts and terms, download, and import into a project with checks, a split by "
        "patient and an inventory page."
    )
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    entries = collections()

    text = "list the collections with content, licence, terms, layout, labels and traps"
    listing = actions.add_parser("list", help=text, description=text)
    listing.set_defaults(run=_list, interrupted="Interrupted.")

    for name, collection in entries.items():
        if collection.idc is None:
            continue
        text = f"fetch scans of {collection.title}"
        fetch = actions.add_parser(name, help=text, description=f"{text}. {collection.content}")
        fetch.add_argument("--output", type=Path, required=True, metavar="DIR", help="folder for the scans")
        text = "number of acquisitions (default: 20), or of a table's first lines (default: all)"
        fetch.add_argument("--scans", type=int, metavar="N", help=text)
        if name == "nlst":
            text = (
                "table (CSV) with a column PID, patient or patient_id, as DeepCAC's Results_NLST.csv, or series: fetch "
                "the baseline scan of these participants that DeepCAC's rule chooses, or these series, with a manifest"
            )
            fetch.add_argument("--table", type=Path, metavar="TABLE", help=text)
            fetch.add_argument("--yes", action="store_true", help="fetch gigabytes of a table without asking")
        fetch.set_defaults(run=_fetch, collection=collection, interrupted=RESUME)

    text = "check the scans of a downloaded collection, and add them to a project"
    importing = actions.add_parser("import", help=text, description=text)
    importing.add_argument("collection", choices=entries, help="name of the collection, as cac data list shows it")
    importing.add_argument("folder", type=Path, metavar="FOLDER", help="folder of the download")
    importing.add_argument("--output", type=Path, required=True, metavar="PROJECT", help="project, new or existing")
    text = "folder of the scans, for labels that come without them (coca-nongated)"
    importing.add_argument("--scans", type=Path, metavar="DIR", help=text)
    text = "also propose the heart and the slices that may show calcium, to annotate from"
    importing.add_argument("--prepare", action="store_true", help=text)
    importing.add_argument("--workers", type=int, metavar="N", help="number of processes (default: one per core)")
    importing.set_defaults(run=_import, extras=lambda options: ("studies", "cohort"), interrupted=RESUME)

    for subparser in actions.choices.values():
        add_progress_argument(subparser)


def _list(options: argparse.Namespace, progress: Progress) -> None:
    print("\n\n".join(collection.as_text() for collection in collections().values()))


def _fetch(options: argparse.Namespace, progress: Progress) -> None:
    from ..collections.download import by_hand, fetch

    try:
        require("data")
    except OutputError as error:
        raise OutputError(f"{error} {by_hand(options.collection, options.output)}") from error
    print(options.collection.as_text(), flush=True)
    if table := getattr(options, "table", None):
        _fetch_table(options, table, progress)
        return
    count = fetch(options.collection, options.output, 20 if options.scans is None else options.scans, progress)
    progress.done(options.output)
    print(f"{options.output}: {count} series. Next: cac data import {options.collection.name} {options.output} …")


def _fetch_table(options: argparse.Namespace, table: Path, progress: Progress) -> None:
    from ..collections.participants import fetch_participants
    from ..validation.manifest import MANIFEST

    def agrees(size: str) -> bool:
        if options.yes:
            return True
        if not sys.stdin.isatty():
            raise OutputError(f"{size} Add --yes to fetch them; {options.output / MANIFEST} lists them.")
        return input(f"{size} Fetch them? [y/N] ").strip().lower() in ("y", "yes")

    there, wanted = fetch_participants(options.collection, table, options.output, progress, agrees, options.scans)
    progress.done(options.output)
    print(f"{options.output}: {there} of {wanted} scans; {MANIFEST} has the reason of each that is missing")
    print(f"Next: cac validate {table} --scans {options.output} --output STUDY")


def _import(options: argparse.Namespace, progress: Progress) -> None:
    from ..collections.importing import ImportSettings, import_collection

    collection = collections()[options.collection]
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
