"""References with annotations: the scans of a project, cohorts of digital patients, and tables of scan pairs.

A project's reference has the scans of one use, with their truth or the annotations of one annotator. Annotators paint
generous regions around coronary calcium, so only voxels of 130 HU that form a lesion of the clinical rule count; a
region without any is visible calcium with a score of 0. A slice shows calcium by its label, or without a label if a
region was painted in it; in a scan without any slice labels the other slices count as negative. Without regions the
score is 0 if every slice with heart is labelled and none shows calcium.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from CACScoringLib.core.errors import CTError
from CACScoringLib.core.files import read_json
from CACScoringLib.core.tables import Table
from CACScoringLib.io.reading import read_mask
from CACScoringLib.scans.folder import natural_key
from CACScoringLib.scans.table import scan_of_line

from ..project.annotation_files import SliceLabel
from ..project.annotations import annotators, check_annotator, slice_annotations
from ..project.files import ProjectScan
from ..project.project import Project
from ..project.proposals import read_proposal
from ..project.split import USES
from ..project.training import slice_labels
from .reference import BY_RULE, VESSELS, Format, ProgressCallback, Reference, ReferenceScan
from .segmentations import lesions_on_grid

DEFAULT_USE, ALL_USES = "test", "all"
PAIR_COLUMNS = ("patient", "scan", "ct")
"""Columns of a table of pairs; series, heart and lesions are optional."""

TRUTH = "truth.json"

Refused = list[tuple[str, str]]
"""Scans that are left out, or what is doubtful, each with the reason."""


def read_project(folder: Path, use: str = DEFAULT_USE, annotator: str | None = None) -> Reference:
    """Read the scans of a project.

    Args:
        folder: Folder of the project.
        use: Use of the scans, or ALL_USES.
        annotator: Annotator whose regions, hearts and slice labels count; may be None if no scan has two. Digital scans
            are left out if other scans are present.

    Raises:
        CTError: No scan can be used, or an annotator has to be named.
        ProjectError: The project cannot be read.
    """
    project = Project.open(folder)
    scans = [scan for scan in project.scans if use in (ALL_USES, scan.use)]
    if not scans:
        raise CTError(
            f"The project {project.name} has no scans for {use} ({_uses(project)}). Evaluate on scans of another use, "
            "or split its patients."
        )
    refused = [(project.name, warning) for warning in project.warnings]
    lost = {scan.id for scan in project.missing()}
    usable: list[ReferenceScan] = []
    names = Counter(scan.name for scan in scans)
    for scan in scans:
        name = scan.name if names[scan.name] == 1 else f"{scan.name} ({scan.id})"
        if scan.id in lost or (scan.truth is not None and not scan.truth.is_file()):
            moved = scan.ct if scan.id in lost else scan.truth
            refused.append((name, f"{moved} is no longer where it was. Relocate the project's scans."))
            continue
        base = ReferenceScan(name, scan.patient, scan.ct, scan.series, truth=scan.truth)
        usable.append(_annotated(project, scan, base, annotator) if scan.truth is None else _with_regions(base))
    if not usable:
        raise CTError(f"No scan of {folder} can be studied: {': '.join(refused[0])}")
    usable = _numbered(usable)
    if any(scan.truth is None for scan in usable):
        digital = [scan.name for scan in usable if scan.truth is not None]
        refused += [(name, "Digital patients are studied apart, by their truth.") for name in digital]
        usable = [scan for scan in usable if scan.truth is None]
    about = _about(project, use, usable)
    return Reference(f"the project {project.name}", about, VESSELS, tuple(usable), tuple(refused))


def _about(project: Project, use: str, scans: Sequence[ReferenceScan]) -> str:
    patients = len({scan.patient for scan in scans})
    text = (
        f"They are those for {use} of the project “{project.name}”, {_plural(len(scans), 'scan')} of "
        f"{_plural(patients, 'patient')} ({_uses(project)})."
    )
    if all(scan.truth is not None for scan in scans):
        return text
    return (
        f"{text} The regions that an annotator painted are the reference for coronary calcium. Regions are drawn "
        "generously, so only voxels of at least 130 HU in them are scored. A slice counts as showing calcium "
        "where its label is positive, or where a region was painted in it without a label."
    )


def _plural(count: int, name: str) -> str:
    return f"{count} {name}" if count == 1 else f"{count} {name}s"


def _with_regions(scan: ReferenceScan) -> ReferenceScan:
    """Add the regions that a reader would paint in a digital scan."""
    regions = scan.truth_file("regions.nii.gz")
    return replace(scan, outlines=partial(lesions_on_grid, regions), files=(regions,))


def _by_patient(scans: Iterable[ReferenceScan]) -> dict[str, list[ReferenceScan]]:
    by_patient: dict[str, list[ReferenceScan]] = {}
    for scan in scans:
        by_patient.setdefault(scan.patient, []).append(scan)
    return by_patient


def lone_patients(scans: Iterable[ReferenceScan]) -> list[str]:
    """List patients without a complete pair."""
    return [patient for patient, group in _by_patient(scans).items() if not {1, 2} <= {scan.number for scan in group}]


def first_pairs(reference: Reference, pairs: int) -> Reference:
    """Return the first patients with both scans. Raises CTError if there are none."""
    if pairs < 1:
        raise CTError(f"A study has at least one pair; {pairs} were asked for. Give --pairs 1 or more.")
    numbered = [{scan.number: scan for scan in group} for group in _by_patient(reference.scans).values()]
    complete = [(group[1], group[2]) for group in numbered if {1, 2} <= set(group)]
    if not complete:
        raise CTError(f"No patient of {reference.title} has two scans. Leave --pairs out to study single scans.")
    return replace(reference, scans=tuple(scan for pair in complete[:pairs] for scan in pair))


def _read_digital(folder: Path, _scans: Path | None, _progress: ProgressCallback | None) -> Reference:
    scans: dict[tuple[str, int], ReferenceScan] = {}
    refused: Refused = []
    for path in sorted(folder.rglob(TRUTH), key=lambda path: natural_key(path.relative_to(folder).as_posix())):
        place, name = path.parent, path.parent.relative_to(folder).as_posix()
        if not (place / "ct.nii.gz").is_file():
            refused.append((name, "It has a truth.json but no ct.nii.gz."))
            continue
        try:
            truth = read_json(path)
            key = str(truth["patient"]), int(truth["scan"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            refused.append((name, f"Its truth.json cannot be read ({type(error).__name__}: {error})."))
            continue
        if key[1] not in (1, 2) or key in scans:
            refused.append((name, f"Scan {key[1]} of patient {key[0]} is not a scan of a pair, or is listed twice."))
            continue
        scans[key] = _with_regions(ReferenceScan(name, key[0], place / "ct.nii.gz", truth=path, number=key[1]))
    about = f"Digital patients, whose calcium is known. {BY_RULE}"
    return Reference(DIGITAL.title, about, VESSELS, tuple(scans.values()), tuple(refused))


DIGITAL = Format(
    "digital patients",
    lambda source: source.is_dir() and next(source.rglob(TRUTH), None) is not None,
    _read_digital,
    holds_scans=True,
)


def read_pairs(table: Table) -> Reference:
    """Read a table of pairs (PAIR_COLUMNS). Raises CTError if no line can be used."""
    scans: dict[tuple[str, str], ReferenceScan] = {}
    refused: Refused = []
    for line in table.lines:
        patient, number = key = line.text("patient"), line.text("scan")
        if not patient or number not in ("1", "2") or not line.text("ct"):
            refused.append((f"Line {line.number}", "It needs a patient, a scan number 1 or 2, and a ct."))
            continue
        if key in scans:
            refused.append((f"Line {line.number}", f"Scan {number} of {patient} is listed above."))
            continue
        scan = ReferenceScan(**vars(scan_of_line(line)) | {"name": f"{patient}/{number}", "number": int(number)})
        scans[key] = _outlined(scan)
    if not scans:
        why = "; ".join(": ".join(item) for item in refused[:3])
        raise CTError(
            f"{table.path} holds no scan that can be studied: {why}. It needs the columns {', '.join(PAIR_COLUMNS)}."
        )
    return Reference("a table of scan pairs", BY_RULE, VESSELS, tuple(scans.values()), tuple(refused))


def _outlined(scan: ReferenceScan) -> ReferenceScan:
    """Add the outlines in a scan's file of lesions."""
    return scan if scan.lesions is None else replace(scan, outlines=partial(lesions_on_grid, scan.lesions))


def _uses(project: Project) -> str:
    counts = Counter({scan.patient: scan.use for scan in project.scans}.values())
    numbers = [f"{use}: {counts[use]}" for use in USES] + ([f"without a use: {counts['']}"] if counts[""] else [])
    return f"patients by use: {', '.join(numbers)}"


def _annotated(project: Project, scan: ProjectScan, base: ReferenceScan, annotator: str | None) -> ReferenceScan:
    """Add an annotator's masks and labels to a scan, as far as there are any."""
    names = annotators(project, scan.id, annotator and check_annotator(annotator))
    if len(names) > 1:
        raise CTError(
            f"{base.name} was annotated by {', '.join(names)}. Name with --annotator whose annotations are used."
        )
    if not names:
        return base
    folder = project.scan_folder(scan.id) / "annotators" / names[0]
    files = (folder / f"{kind}.nii.gz" for kind in ("heart", "regions"))
    heart, regions = (file if file.is_file() else None for file in files)
    labels = {}
    if slice_annotations(project, scan.id, names[0]).labels:
        labels = slice_labels(project, scan, names[0])
    visible = {k: label == SliceLabel.VISIBLE for k, label in sorted(labels.items()) if label != SliceLabel.UNSURE}
    slices = _heart_slices(project, scan, heart)
    excludes_calcium = regions is None and bool(slices) and slices <= set(visible) and not any(visible.values())
    total = 0.0 if excludes_calcium else None
    return _outlined(replace(base, heart=heart, lesions=regions, labels=tuple(visible.items()) or None, total=total))


def _heart_slices(project: Project, scan: ProjectScan, heart: Path | None) -> set[int]:
    """Slices that an annotator had to label; empty if unknown."""
    proposal = read_proposal(project, scan.id)
    if proposal is not None:
        return set(proposal.heart_slices)
    if heart is None:
        return set()
    return set(np.flatnonzero(sitk.GetArrayFromImage(read_mask(heart)).any((1, 2))).tolist())


def _numbered(scans: Sequence[ReferenceScan]) -> list[ReferenceScan]:
    """Number the scans of each patient, by their truths or else in the order they were added."""
    numbered = []
    for group in _by_patient(scans).values():
        numbers = [number for scan in group if (number := _number(scan)) in (1, 2)]
        if len(set(numbers)) < len(group):
            numbers = list(range(1, len(group) + 1))
        numbered += [replace(scan, number=number) for scan, number in zip(group, numbers, strict=True)]
    return numbered


def _number(scan: ReferenceScan) -> int | None:
    """Number of a digital scan by its truth; None for other scans, or if the truth cannot be read."""
    try:
        return None if scan.truth is None else scan.read_truth().get("scan")
    except (OSError, ValueError, AttributeError):
        return None
