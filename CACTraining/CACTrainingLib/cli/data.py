"""The command `cac data`: public collections of scans, and their import into a project."""

from __future__ import annotations

import argparse
from collections import Counter
from pathlib import Path
from typing import Annotated

from CACScoringLib.cli.options import command, declare_actions
from CACScoringLib.core.ct import ScanWarning
from CACScoringLib.core.options import argument, option
from CACScoringLib.core.progress import Progress
from CACScoringLib.core.text import printable

from ..references.collection import collections

ENTRIES = collections()

NO_RADIOGRAPHS = (
    "No public collection has chest radiographs with calcium scores: MIMIC-CXR, CheXpert and PadChest have none. Give "
    "your own table to cac evaluate radiograph, or a project of CTs, which are projected."
)

MAX_REASONS = 10
"""Largest number of reasons that an import prints; its inventory has those of all scans."""


Number = Annotated[int | None, option(metavar="N")]


def _list(progress: Progress) -> None:
    """List the collections with content, licence, terms, layout, labels and traps."""
    print("\n\n".join([*(collection.as_text() for collection in ENTRIES.values()), NO_RADIOGRAPHS]))


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
    "import": command(_import, ("studies", "cohort"), RESUME),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's actions."""
    description = (
        "Public collections of CT scans: facts and terms, and import into a project with checks, a split by patient "
        "and an inventory page."
    )
    declare_actions(parser, ACTIONS, description)
