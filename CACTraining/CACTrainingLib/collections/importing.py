"""Import of a downloaded collection into a project: checks, split by patient, and the inventory.

Checks are stored in `inventory/checked.jsonl` of the project, and scans are added one by one, so that an interrupted
import resumes, and a full disk leaves a project of the scans added until then.
"""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from CACScoringLib.anatomy.between_lungs import heart_region
from CACScoringLib.cohort.workers import sensible_count
from CACScoringLib.core.ct import CTScan
from CACScoringLib.core.errors import CTError, OutputError
from CACScoringLib.core.files import write_text_atomically
from CACScoringLib.core.labels import ARTERIES, HEART_COLOUR, MAIN_ARTERIES, SITE_COLOURS, SITES
from CACScoringLib.core.progress import Progress
from CACScoringLib.core.tables import read_table, write_table
from CACScoringLib.core.text import counted
from CACScoringLib.core.warning_codes import ADVICE
from CACScoringLib.io.reading import read_ct
from CACScoringLib.io.series_rule import is_soft_kernel
from CACScoringLib.quality.examination import examine, measure_blood, named_agent
from CACScoringLib.record.rules import rules_for_tube_voltage
from CACScoringLib.record.scores import MethodScore
from CACScoringLib.report.page import rendered
from CACScoringLib.report.pictures import patch_picture
from CACScoringLib.scoring.labels import reader_labels
from CACScoringLib.scoring.lesions import score_labels

from ..data.scan_table import LABELS, PROJECT_COLUMNS, PROJECT_TABLE, score_column
from ..evaluation.jobs import JobSettings, job_key, kept_records
from ..project.annotations import patient_kinds
from ..project.files import absolute
from ..project.project import NewScan, Project, is_project
from ..project.proposals import propose_waiting
from ..project.split import USES
from ..references.collection import Collection
from ..references.registry import find_scans

INVENTORY, CHECKED = "inventory", "checked.jsonl"
"""Folder in the project, and its file of checks."""

CHECK_VERSION = 2
"""Version of `check_scan`; stored checks of another version are made again."""


@dataclass(frozen=True)
class ImportResult:
    """Result of an import.

    Attributes:
        project: The project.
        page: Path of the inventory page.
        entries: All scans of the collection.
        warnings: Sentences about files that are no scans.
        scored: Number of scans in the project's table of scores, for studies and trainings; those with the score of
            every artery.
    """

    project: Project
    page: Path
    entries: tuple[Entry, ...]
    warnings: tuple[str, ...]
    scored: tuple[int, int]


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
        pairs = zip(scans, checks, strict=True)
        calcified = {scan.patient for scan, check in pairs if not isinstance(check, str) and any(check.scores.values())}
        project.split(kinds=patient_kinds(project) | dict.fromkeys(calcified, 2))
    with progress.step("inventory"):
        reasons = dict(added.failed) | {name: f"It is the same scan as {id_}." for name, id_ in added.duplicates}
        entries = _entries(project, scans, checks, reasons)
        page = write_inventory(inventory, collection, entries)
        scored = write_scores(project, {entry.id: _scores(entry, collection) for entry in entries if entry.id})
    if not any(entry.id for entry in entries):
        raise CTError(f"No scan of {folder} can be used. The reasons are in {page}.")
    if prepare:
        with progress.step("proposals"):
            propose_waiting(project, project.scans, progress)
    return ImportResult(project, page, entries, tuple(warnings), scored)


def _scores(entry: Entry, collection: Collection) -> dict[str, object]:
    """Return the scores of a scan by column of PROJECT_COLUMNS, without those of arteries that share a label."""
    shared = {artery for group in collection.vessels.values() if len(group) > 1 for artery in group}
    scores = {} if entry.check is None else entry.check.scores
    columns: dict[str, object] = {score_column(name): score for name, score in scores.items() if name not in shared}
    return columns and columns | {"gated": "" if entry.scan.gated is None else int(entry.scan.gated)}


def write_scores(project: Project, scores: Mapping[str, Mapping[str, object]]) -> tuple[int, int]:
    """Write the scores of a project's scans into its table, in place of earlier ones of the same scans.

    Args:
        project: The project.
        scores: Cells by column of PROJECT_COLUMNS, by the scan's id; those of scans without any are empty.

    Returns:
        Number of scans in the table, and of those with the score of every artery.

    Raises:
        OutputError: The table cannot be written.
    """
    file = project.folder / PROJECT_TABLE
    lines = read_table(file).lines if file.is_file() else ()
    rows: dict[str, dict[str, object]] = {
        line.text("id"): {name: line.text(name) for name in PROJECT_COLUMNS} for line in lines
    }
    scans = {scan.id: scan for scan in project.scans}
    rows |= {id_: {**vars(scans[id_]), **cells} for id_, cells in scores.items() if cells}
    if rows:
        _write(file, lambda: write_table(file, PROJECT_COLUMNS, rows.values()))
    complete = sum(all(row.get(score_column(artery), "") != "" for artery in ARTERIES) for row in rows.values())
    return len(rows), complete


def _write(path: Path, write: Callable[[], None]) -> None:
    try:
        write()
    except OSError as error:
        raise OutputError(f"Cannot write {path}: {error.strerror}. Make room there, and rerun the command.") from error


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


PICTURE_MM = 200.0
"""Width of the picture."""

EXPECTED = frozenset({"kvp-unknown", "thickness-unknown", "blood-unmeasured", "labels-empty", "reviewed-empty"})
"""Codes of warnings that are no doubt about a scan of a collection."""


@dataclass(frozen=True)
class ScanCheck:
    """Facts of a usable scan.

    Attributes:
        slices: Number of slices.
        spacing_mm: Distance of the slices.
        thickness_mm: Slice thickness.
        kernel: Convolution kernel.
        noise_hu: Noise in the heart; None if it was not measured.
        labelled_slices: Number of slices with a labelled lesion; None without labels.
        scores: Agatston scores by artery, and the total as "agatston": those that came with the scan, or else those of
            the labels by the clinical rule; empty without either.
        doubts: Codes of warnings.
        picture: JPEG in base64 of the slice with most labels, or through the heart's middle.
    """

    slices: int
    spacing_mm: float
    thickness_mm: float | None
    kernel: str | None
    noise_hu: float | None
    labelled_slices: int | None
    scores: dict[str, float]
    doubts: tuple[str, ...]
    picture: str


def check_scan(new_scan: NewScan) -> ScanCheck:
    """Read a scan with its annotations, and check contrast, heart, kernel and labels.

    Raises:
        CTError: The scan cannot be read, as with missing slices; it has contrast; or the labels are of another scan.
    """
    scan = read_ct(new_scan.ct, new_scan.series)
    doubts = {warning.code for warning in scan.warnings}
    heart, blood = None, None
    try:
        region = heart_region(scan)
    except CTError:
        doubts.add("heart-not-found")
    else:
        heart, blood = region.mask, measure_blood(scan, region.mask)
        doubts |= {warning.code for warning in region.warnings}
    if agent := named_agent(scan.acquisition):
        raise CTError(f"Its header names a contrast agent ({agent}).")
    if blood is not None and blood.enhanced:
        raise CTError(f"It has contrast: blood measures {blood.bright_hu:.0f} HU (unenhanced: 30 to 60).")
    doubts |= {warning.code for warning in examine(scan, blood)}
    if is_soft_kernel(scan.acquisition.kernel) is False:
        doubts.add("kernel-sharp")
    regions = new_scan.annotations().regions if new_scan.annotations else None
    scores = dict(new_scan.scores)
    if regions is not None:
        reader = reader_labels(regions, scan, rules_for_tube_voltage(scan.acquisition))
        codes = {warning.code: warning.message for warning in reader.warnings}
        if "labels-off-calcium" in codes:
            raise CTError(f"Its labels are of another scan. {codes['labels-off-calcium']}")
        scores = scores or _scores_of(score_labels(scan, reader.sites))
    labels = None if regions is None else sitk.GetArrayFromImage(regions)
    return ScanCheck(
        slices=len(scan.hu),
        spacing_mm=round(scan.slice_spacing_mm, 3),
        thickness_mm=scan.acquisition.slice_thickness_mm,
        kernel=scan.acquisition.kernel,
        noise_hu=None if blood is None else round(blood.noise_hu, 1),
        labelled_slices=None if labels is None else int(labels.any((1, 2)).sum()),
        scores=scores,
        doubts=tuple(sorted(doubts - EXPECTED)),
        picture=base64.b64encode(_picture(scan, heart, labels)).decode("ascii"),
    )


def _scores_of(method: MethodScore) -> dict[str, float]:
    """Return the Agatston score of each main artery, and of all as "agatston"."""
    parts = {**{artery.key: method.arteries[artery] for artery in MAIN_ARTERIES}, LABELS[0]: method.total}
    return {name: round(score.agatston, 2) for name, score in parts.items()}


def _picture(scan: CTScan, heart: np.ndarray | None, labels: np.ndarray | None) -> bytes:
    """Draw the slice with most labels, else through the middle of the heart, else of the scan."""
    mask = np.zeros(scan.hu.shape, bool) if heart is None else heart
    places = np.nonzero(mask) if mask.any() else [(0, size - 1) for size in scan.hu.shape]
    k, j, i = ((np.min(place) + np.max(place)) / 2 for place in places)
    outlines = [(mask, HEART_COLOUR)]
    if labels is not None and labels.any():
        k = int((labels > 0).sum((1, 2)).argmax())
        outlines += [(labels == site, SITE_COLOURS[site]) for site in SITES if (labels[k] == site).any()]
    return patch_picture(scan, (k, j, i), outlines, PICTURE_MM)


COLUMNS = (
    *("id", "name", "patient", "use", "slices", "spacing_mm", "thickness_mm", "kernel", "noise_hu", "labelled_slices"),
    *("note", "doubts", "left_out"),
)
"""Columns of the table."""


@dataclass(frozen=True)
class Entry:
    """Scan of a collection in the inventory.

    Attributes:
        scan: The scan.
        id: Id in the project; empty if it was left out.
        use: Use in the project.
        reason: Reason why it was left out; empty if it was not.
        check: Its facts; None if it could not be checked.
    """

    scan: NewScan
    id: str
    use: str
    reason: str
    check: ScanCheck | None

    def row(self) -> dict[str, object]:
        """Return the cells of the table by column."""
        facts = {} if self.check is None else vars(self.check) | {"doubts": " ".join(self.check.doubts)}
        return facts | vars(self.scan) | vars(self) | {"left_out": self.reason}

    def caption(self) -> str:
        """Return the facts below the picture."""
        check = self.check
        assert check is not None
        labels = "no labels" if check.labelled_slices is None else f"{check.labelled_slices} slices with labels"
        facts = (
            f"{check.slices} slices of {check.thickness_mm or check.spacing_mm:g} mm",
            check.kernel or "kernel unknown",
            "" if check.noise_hu is None else f"noise {check.noise_hu:.0f} HU",
            labels,
            self.scan.note,
            self.use,
        )
        return ", ".join(filter(None, facts))

    def jpeg(self) -> bytes:
        """Return the picture."""
        return b"" if self.check is None else base64.b64decode(self.check.picture)


def write_inventory(folder: Path, collection: Collection, entries: Sequence[Entry]) -> Path:
    """Write NAME.html and NAME.csv of a collection, and return the page. Raises OutputError."""
    added = [entry for entry in entries if entry.id]
    doubts = Counter(code for entry in added if entry.check for code in entry.check.doubts)
    uses = Counter(entry.use for entry in {entry.scan.patient: entry for entry in added}.values())
    page = folder / f"{collection.name}.html"
    html = rendered(
        "inventory.html",
        f"Inventory: {collection.title}",
        collection=collection,
        added=added,
        left_out={entry.scan.name: entry.reason for entry in entries if not entry.id},
        patients=sum(uses.values()),
        counted=counted,
        uses=[(use, uses[use]) for use in USES],
        doubts=[(code, count, ADVICE[code]) for code, count in doubts.most_common()],
    )
    rows = [entry.row() for entry in entries]
    _write(page, lambda: write_table(page.with_suffix(".csv"), COLUMNS, rows, guarded=True))
    _write(page, lambda: write_text_atomically(page, html))
    return page
