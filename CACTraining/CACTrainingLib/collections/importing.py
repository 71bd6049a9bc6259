"""Import of a downloaded collection into a project: checks, split by patient, and the inventory.

Checks are stored in `inventory/checked.jsonl` of the project, and scans are added one by one, so that an interrupted
import resumes, and a full disk leaves a project of the scans added until then.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from CACScoringLib.cohort.workers import sensible_count
from CACScoringLib.core.errors import CTError
from CACScoringLib.core.progress import Progress

from ..evaluation.jobs import JobSettings, job_key, kept_records
from ..project.annotations import patient_kinds
from ..project.places import absolute
from ..project.project import NewScan, Project, is_project
from ..project.proposals import propose_waiting
from ..references.collection import Collection
from ..references.registry import find_scans
from .checks import Entry, ScanCheck, check_scan, write_inventory

INVENTORY, CHECKED = "inventory", "checked.jsonl"
"""Folder in the project, and its file of checks."""

CHECK_VERSION = 1
"""Version of `check_scan`; stored checks of another version are made again."""


@dataclass(frozen=True)
class ImportResult:
    """Result of an import.

    Attributes:
        project: The project.
        page: Path of the inventory page.
        entries: All scans of the collection.
        warnings: Sentences about files that are no scans.
    """

    project: Project
    page: Path
    entries: tuple[Entry, ...]
    warnings: tuple[str, ...]


def import_collection(
    collection: Collection,
    folder: Path,
    output: Path,
    images: Path | None = None,
    workers: int | None = None,
    prepare: bool = False,
    progress: Progress | None = None,
) -> ImportResult:
    """Check the scans of a collection, add the usable ones to a project, split it by patient and write the inventory.

    Args:
        collection: The collection.
        folder: Folder of the download.
        output: Folder of the project, new or existing.
        images: Folder of the scans, for labels that come without them.
        workers: Number of processes; None for as many as fit.
        prepare: True to propose the heart and the slices of the scans.
        progress: Progress of its steps.

    Raises:
        CTError: The folder does not hold the collection, or no scan can be used.
        ProjectError: The project is damaged, or cannot be written.
        OutputError: The inventory cannot be written.
    """
    progress = progress or Progress()
    steps = ["finding scans", "checking scans", "adding scans", "inventory"]
    progress.begin([*steps, "proposals"] if prepare else steps)
    with progress.step("finding scans"):
        scans, warnings = find_scans(collection, folder, images, progress.counted)
    project = Project.open(output) if is_project(output) else Project.create(output)
    collection.write_terms(project.folder)
    inventory = project.folder / INVENTORY
    with progress.step("checking scans"):
        jobs = [(_key(scan), scan) for scan in scans]
        work = JobSettings(workers or sensible_count(), progress=progress)
        checks = kept_records(jobs, inventory / CHECKED, check_scan, ScanCheck, work)
    with progress.step("adding scans"):
        usable = [scan for scan, check in zip(scans, checks, strict=True) if not isinstance(check, str)]
        present = {(scan.ct, scan.series) for scan in project.scans}
        waiting = [scan for scan in usable if (absolute(scan.ct), scan.series) not in present]
        added = project.add(waiting, progress.counted)
        project.split(kinds=patient_kinds(project))
    with progress.step("inventory"):
        reasons = dict(added.failed) | {name: f"It is the same scan as {id_}." for name, id_ in added.duplicates}
        entries = _entries(project, scans, checks, reasons)
        page = write_inventory(inventory, collection, entries)
    if not any(entry.id for entry in entries):
        raise CTError(f"No scan of {folder} can be used. The reasons are in {page}.")
    if prepare:
        with progress.step("proposals"):
            propose_waiting(project, project.scans, progress)
    return ImportResult(project, page, entries, tuple(warnings))


def _key(scan: NewScan) -> str:
    return job_key(scan.name, CHECK_VERSION, scan.series, files=[scan.ct])


def _entries(
    project: Project, scans: Sequence[NewScan], checks: Sequence[ScanCheck | str], reasons: dict[str, str]
) -> tuple[Entry, ...]:
    """Return an entry for each scan of the collection. reasons: Why usable scans were not added, by name."""
    stored = {(scan.ct, scan.series): scan for scan in project.scans}
    entries = []
    for scan, check in zip(scans, checks, strict=True):
        row = stored.get((absolute(scan.ct), scan.series))
        reason = check if isinstance(check, str) else "" if row else reasons.get(scan.name, "It was not added.")
        id_, use = ("", "") if row is None else (row.id, row.use)
        facts = None if isinstance(check, str) else check
        entries.append(Entry(scan, "" if reason else id_, use, reason, facts))
    return tuple(entries)
