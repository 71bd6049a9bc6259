"""Find the scans of a study: a cohort of digital patients, a table of pairs, or the scans of a project.

`write_reference` lists a project's scans as a reference of `cac validate`.

A project's study has the scans of one use, with their truth or the annotations of one annotator. Annotators paint
generous regions around coronary calcium, so only voxels of 130 HU that form a lesion of the clinical rule count; a
region without any is visible calcium with a score of 0. A slice shows calcium by its label, or without a label if a
region was painted in it; in a scan without any slice labels the other slices count as negative.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk

from CACScoringLib.core.errors import CTError
from CACScoringLib.core.files import read_json
from CACScoringLib.core.tables import read_table, write_table
from CACScoringLib.core.voxels import voxels_of
from CACScoringLib.io.reading import read_mask
from CACScoringLib.scans.folder import natural_key
from CACScoringLib.scans.source import ScanSource
from CACScoringLib.scans.table import source_of

from ..evaluation.parts import count
from ..project.annotation_files import SliceLabel
from ..project.annotations import annotators, check_annotator, slice_annotations
from ..project.files import ProjectScan
from ..project.project import Project, is_project
from ..project.proposals import read_proposal
from ..project.split import USES
from ..project.training import slice_labels

DEFAULT_USE, ALL_USES = "test", "all"
TABLE_COLUMNS = ("patient", "scan", "ct", "series", "heart", "lesions")
"""Columns of a table of pairs; the first three are required."""

Scans = tuple[list["StudyScan"], list[str]]
"""Scans of a study by patient, and a sentence about each unusable one."""


@dataclass(frozen=True)
class StudyScan(ScanSource):
    """One scan of a study. Scoring does not use the reader's masks and labels.

    Heart and lesions are a reader's. Lesions are labels of arteries (`labels.Artery`), drawn generously: only voxels
    of 130 HU that form a lesion of the clinical rule count. An empty map means that the reader saw no calcium.

    Attributes:
        number: 1 or 2; more for further scans of a patient, which are in no pair.
        labels: Slice index, counted from the feet, and visibility of coronary calcium; None to use `lesions`.
        labelled_whole: True if every slice with heart is labelled, so that a scan without a positive label is negative.
    """

    number: int = 1
    labels: tuple[tuple[int, bool], ...] | None = None
    labelled_whole: bool = False

    def truth_file(self, name: str = "truth.json") -> Path:
        """Return the path of a digital scan's file."""
        assert self.truth is not None
        return self.truth.with_name(name)

    def read_truth(self) -> dict[str, Any]:
        """Read a digital scan's `truth.json`. Raises OSError or ValueError if it cannot be read."""
        return read_json(self.truth_file())

    def hu_mm3_per_mass(self) -> float:
        """HU·mm³ for one unit of mass: for 1 mg in a digital scan, else 1.

        Raises OSError, ValueError or KeyError if the truth cannot be read.
        """
        return 1.0 if self.truth is None else 1000 * float(self.read_truth()["calcium_hu_per_mg_cm3"])


def find_study_scans(
    source: Path, pairs: int | None = None, use: str | None = None, annotator: str | None = None
) -> Scans:
    """Find the scans of a study.

    Args:
        source: Folder as `cac phantom` writes it, a table (CSV, TABLE_COLUMNS, paths relative to it), or a project.
        pairs: Number of patients with both scans, from the first; None for all scans.
        use: Use of a project's scans, or ALL_USES; None for DEFAULT_USE.
        annotator: Annotator whose regions, hearts and slice labels count in a project; may be None if no scan has two.
            Digital scans are left out if other scans are present.

    Raises:
        CTError: There is nothing to study, or an annotator has to be named.
        TableError: The table cannot be read.
        ProjectError: The project cannot be read.
    """
    if is_project(source):
        scans, warnings = _of_project(source, use or DEFAULT_USE, annotator)
        if not scans:
            raise CTError(f"No scan of {source} can be studied: {warnings[0]}")
    elif use is not None or annotator is not None:
        raise CTError(f"{source} is not a project: only a project's scans have a use and annotators.")
    elif source.is_dir():
        scans, warnings = _digital(source)
    elif source.is_file():
        scans, warnings = _listed(source)
    else:
        raise CTError(f"{source} does not exist. Give the folder of a cohort, or a table of scan pairs (CSV).")
    if not scans:
        raise CTError(
            f"{source} holds no scan that can be studied{': ' + warnings[0] if warnings else ''}. Give a cohort as cac "
            f"phantom writes it, or a table (CSV) with the columns {', '.join(TABLE_COLUMNS)}."
        )
    return (scans if pairs is None else _first_pairs(scans, pairs, source)), warnings


def lone_patients(scans: Iterable[StudyScan]) -> list[str]:
    """List patients without a complete pair."""
    return [patient for patient, group in _by_patient(scans).items() if not {1, 2} <= {scan.number for scan in group}]


def project_notes(folder: Path, use: str, scans: Sequence[StudyScan]) -> list[str]:
    """Sentences on the origin of a project's scans, for a study's page. Raises ProjectError."""
    project = Project.open(folder)
    patients = count({scan.patient for scan in scans}, "patient")
    notes = [
        f"They are those for {use} of the project “{project.name}”, {count(scans, 'scan')} of {patients} "
        f"({_uses(project)})."
    ]
    if any(scan.truth is None for scan in scans):
        notes.append(
            "The regions that an annotator painted are the reference for coronary calcium. Regions are drawn "
            "generously, so only voxels of at least 130 HU in them are scored. A slice counts as showing calcium "
            "where its label is positive, or where a region was painted in it without a label."
        )
    return notes


def write_reference(
    folder: Path, table: Path, use: str | None = None, annotator: str | None = None
) -> tuple[int, list[str]]:
    """Write a project's annotated scans as a table that `cac validate` reads.

    Args:
        folder: Folder of the project.
        table: File to write.
        use, annotator: As in `find_study_scans`.

    Returns:
        Number of scans in the table, and a sentence about each scan left out.

    Raises:
        CTError: No scan has a reference, or an annotator has to be named.
        ProjectError: The project cannot be read.
        OSError: The table cannot be written.
    """
    scans, warnings = find_study_scans(folder, use=use, annotator=annotator)
    lines: list[tuple[object, ...]] = []
    for scan in scans:
        regions = scan.lesions if scan.truth is None else scan.truth_file("regions.nii.gz")
        is_painted = regions is not None and bool(voxels_of(read_mask(regions)).any())
        is_negative = (regions is not None or scan.labelled_whole) and not any(shows for _, shows in scan.labels or ())
        if not is_painted and not is_negative:
            warnings.append(f"{scan.name} is left out: it has no regions, and its labels do not exclude calcium.")
            continue
        lesions, total = (regions, None) if is_painted else (None, 0)
        lines.append((scan.name, scan.patient, scan.ct, scan.series, lesions, total))
    if not lines:
        raise CTError(f"No scan of {folder} has regions, or labels that exclude calcium. Annotate more scans.")
    write_table(table, ("name", "patient", "ct", "series", "lesions", "total"), lines)
    return len(lines), warnings


def _by_patient(scans: Iterable[StudyScan]) -> dict[str, list[StudyScan]]:
    by_patient: dict[str, list[StudyScan]] = {}
    for scan in scans:
        by_patient.setdefault(scan.patient, []).append(scan)
    return by_patient


def _first_pairs(scans: Sequence[StudyScan], pairs: int, source: Path) -> list[StudyScan]:
    if pairs < 1:
        raise CTError(f"A study has at least one pair; {pairs} were asked for. Give --pairs 1 or more.")
    numbered = [{scan.number: scan for scan in group} for group in _by_patient(scans).values()]
    complete = [(group[1], group[2]) for group in numbered if {1, 2} <= set(group)]
    if not complete:
        raise CTError(f"No patient in {source} has two scans. Leave --pairs out to study single scans.")
    return [scan for pair in complete[:pairs] for scan in pair]


def _digital(folder: Path) -> Scans:
    scans: dict[tuple[str, int], StudyScan] = {}
    warnings = []
    for path in sorted(folder.rglob("truth.json"), key=lambda path: natural_key(path.relative_to(folder).as_posix())):
        place, name = path.parent, path.parent.relative_to(folder).as_posix()
        if not (place / "ct.nii.gz").is_file():
            warnings.append(f"{name} has a truth.json but no ct.nii.gz.")
            continue
        try:
            truth = read_json(path)
            key = str(truth["patient"]), int(truth["scan"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            warnings.append(f"{name} is left out: its truth.json cannot be read ({type(error).__name__}: {error}).")
            continue
        if key[1] not in (1, 2) or key in scans:
            warnings.append(
                f"{name} is left out: scan {key[1]} of patient {key[0]} is not a scan of a pair, or is listed twice."
            )
            continue
        scans[key] = StudyScan(name, key[0], place / "ct.nii.gz", truth=path, number=key[1])
    return list(scans.values()), warnings


def _listed(path: Path) -> Scans:
    scans: dict[tuple[str, str], StudyScan] = {}
    warnings = []
    for line in read_table(path.resolve(), TABLE_COLUMNS[:3], short_lines=True).lines:
        patient, number = key = line.text("patient"), line.text("scan")
        if not patient or number not in ("1", "2") or not line.text("ct"):
            warnings.append(f"Line {line.number} is left out: it needs a patient, a scan number 1 or 2, and a ct.")
            continue
        if key in scans:
            warnings.append(f"Line {line.number} is left out: scan {number} of {patient} is listed above.")
            continue
        named = {"name": f"{patient}/{number}", "number": int(number)}
        scans[key] = StudyScan(**vars(source_of(line)) | named)
    return list(scans.values()), warnings


def _of_project(folder: Path, use: str, annotator: str | None) -> Scans:
    project = Project.open(folder)
    scans = [scan for scan in project.scans if use in (ALL_USES, scan.use)]
    if not scans:
        raise CTError(
            f"The project {project.name} has no scans for {use} ({_uses(project)}). Evaluate on scans of another use, "
            "or split its patients."
        )
    warnings = list(project.warnings)
    lost = {scan.id for scan in project.missing()}
    usable: list[StudyScan] = []
    names = Counter(scan.name for scan in scans)
    for scan in scans:
        name = scan.name if names[scan.name] == 1 else f"{scan.name} ({scan.id})"
        if scan.id in lost or (scan.truth is not None and not scan.truth.is_file()):
            moved = scan.ct if scan.id in lost else scan.truth
            warnings.append(f"{name} is left out: {moved} is no longer where it was. Relocate the project's scans.")
            continue
        study_scan = StudyScan(name, scan.patient, scan.ct, scan.series, truth=scan.truth)
        usable.append(_annotated(project, scan, study_scan, annotator) if scan.truth is None else study_scan)
    usable = _numbered(usable)
    if any(study_scan.truth is None for study_scan in usable):
        digital = [study_scan.name for study_scan in usable if study_scan.truth is not None]
        warnings += [f"{name} is left out: digital patients are studied apart, by their truth." for name in digital]
        usable = [study_scan for study_scan in usable if study_scan.truth is None]
    return usable, warnings


def _uses(project: Project) -> str:
    counts = Counter({scan.patient: scan.use for scan in project.scans}.values())
    numbers = [f"{use}: {counts[use]}" for use in USES] + ([f"without a use: {counts['']}"] if counts[""] else [])
    return f"patients by use: {', '.join(numbers)}"


def _annotated(project: Project, scan: ProjectScan, base: StudyScan, annotator: str | None) -> StudyScan:
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
    return replace(
        base,
        heart=heart,
        lesions=regions,
        labels=tuple(visible.items()) or None,
        labelled_whole=bool(slices) and slices <= set(visible),
    )


def _heart_slices(project: Project, scan: ProjectScan, heart: Path | None) -> set[int]:
    """Slices that an annotator had to label; empty if unknown."""
    proposal = read_proposal(project, scan.id)
    if proposal is not None:
        return set(proposal.heart_slices)
    if heart is None:
        return set()
    return set(np.flatnonzero(sitk.GetArrayFromImage(read_mask(heart)).any((1, 2))).tolist())


def _numbered(scans: Sequence[StudyScan]) -> list[StudyScan]:
    """Number the scans of each patient, by their truths or else in the order they were added."""
    numbered = []
    for group in _by_patient(scans).values():
        numbers = [number for scan in group if (number := _number(scan)) in (1, 2)]
        if len(set(numbers)) < len(group):
            numbers = list(range(1, len(group) + 1))
        numbered += [replace(scan, number=number) for scan, number in zip(group, numbers, strict=True)]
    return numbered


def _number(scan: StudyScan) -> int | None:
    """Number of a digital scan by its truth; None for other scans, or if the truth cannot be read."""
    try:
        return None if scan.truth is None else scan.read_truth().get("scan")
    except (OSError, ValueError, AttributeError):
        return None
