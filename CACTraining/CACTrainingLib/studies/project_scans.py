"""Which scans of a project a study has: those of one use, with their truth or with what an annotator said of them.

What an annotator painted is generous: it says where coronary calcium is, not where it ends. Studies therefore count in
a region only voxels that reach the clinical rule's 130 HU and make up a lesion of its least area; a region in which
none does counts as seen, with a score of 0. Whether a slice shows calcium is what its label says, and without one it
does where a region was painted; in a scan without any labels of slices those without a region count as showing none.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from CACScoringLib.io.reading import read_mask

from ..experiments.configuration import StudyError
from ..project import annotations
from ..project.annotations import SliceLabel
from ..project.project import USES, Project, ProjectScan
from ..project.proposals import read_proposal
from ..project.training import painted_slices
from ..report.parts import count
from .study_scan import StudyScan

DEFAULT_USE = "test"


def find_project_scans(folder: Path, use: str, annotator: str | None) -> tuple[list[StudyScan], list[str]]:
    """The scans of a project with this use, and what is wrong with others, a sentence each.

    annotator: whose regions, hearts and labels of slices count; None where no scan has those of two. A digital scan
    counts by its truth; among scans of which none is known it is left out.
    Raises StudyError when there is nothing to study or an annotator has to be named, ProjectError.
    """
    project = Project.open(folder)
    chosen = [scan for scan in project.scans if scan.use == use]
    if not chosen:
        raise StudyError(
            f"The project {project.name} has no scans for {use} ({_uses(project)}). Choose another --use, or split its "
            "patients with: cac project split."
        )
    warnings = list(project.warnings)
    lost = {scan.id for scan in project.missing()}
    found: list[StudyScan] = []
    names = Counter(scan.name for scan in chosen)
    for scan in chosen:
        name = scan.name if names[scan.name] == 1 else f"{scan.name} ({scan.id})"
        if scan.id in lost or (scan.truth is not None and not scan.truth.is_file()):
            moved = scan.ct if scan.id in lost else scan.truth
            warnings.append(
                f"{name} is left out: {moved} is no longer where it was. Give its new place with: cac project relocate."
            )
            continue
        own = StudyScan(name, scan.patient, 1, scan.ct, scan.series)
        if scan.truth is not None:
            found.append(replace(own, truth=scan.truth.parent))
        else:
            found.append(_annotated(project, scan, own, annotator))
    found = _numbered(found)
    if any(own.truth is None for own in found):
        digital = [own.name for own in found if own.truth is not None]
        warnings += [f"{name} is left out: digital patients are studied apart, by their truth." for name in digital]
        found = [own for own in found if own.truth is None]
    return found, warnings


def project_notes(folder: Path, use: str, scans: Sequence[StudyScan]) -> list[str]:
    """What a reader of a study has to know of where its scans are from. Raises ProjectError."""
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


def _uses(project: Project) -> str:
    patients = {scan.patient: scan.use for scan in project.scans}
    counts = Counter(patients.values())
    named = [f"{use}: {counts[use]}" for use in USES] + ([f"without a use: {counts['']}"] if counts[""] else [])
    return f"patients by use: {', '.join(named)}"


def _annotated(project: Project, scan: ProjectScan, own: StudyScan, annotator: str | None) -> StudyScan:
    there = annotations.annotators(project, scan.id, annotator and annotations.check_annotator(annotator))
    if len(there) > 1:
        raise StudyError(
            f"{own.name} was annotated by {', '.join(there)}. Name with --annotator the one whose annotations are used."
        )
    if not there:
        return own
    folder = project.scan_folder(scan.id) / "annotators" / there[0]
    masks = {kind: folder / f"{kind}.nii.gz" for kind in annotations.MASK_KINDS}
    heart = masks["heart"] if masks["heart"].is_file() else None
    labels = annotations.slice_annotations(project, scan.id, there[0]).labels
    if labels:
        labels = {**dict.fromkeys(painted_slices(project, scan, there[0]), SliceLabel.VISIBLE), **labels}
    known = {k: label == SliceLabel.VISIBLE for k, label in sorted(labels.items()) if label != SliceLabel.UNSURE}
    slices = _heart_slices(project, scan, heart)
    return replace(
        own,
        heart=heart,
        lesions=masks["regions"] if masks["regions"].is_file() else None,
        labels=tuple(known.items()) if known else None,
        labelled_whole=bool(slices) and slices <= set(known),
    )


def _heart_slices(project: Project, scan: ProjectScan, heart: Path | None) -> set[int]:
    """Slices that an annotator had to look at; empty where that is not known."""
    proposal = read_proposal(project, scan.id)
    if proposal is not None:
        return set(proposal.heart_slices)
    if heart is None:
        return set()
    return set(np.flatnonzero(sitk.GetArrayFromImage(read_mask(heart)).any((1, 2))).tolist())


def _truth_of(own: StudyScan) -> dict:
    """A digital scan's truth; empty where it cannot be read, which is said when the scan's record is made."""
    try:
        truth = json.loads((own.truth / "truth.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return truth if isinstance(truth, dict) else {}


def _numbered(scans: Sequence[StudyScan]) -> list[StudyScan]:
    """Scans by patient with their numbers: those that their truths give, else in the order they were added."""
    by_patient: dict[str, list[StudyScan]] = {}
    for scan in scans:
        by_patient.setdefault(scan.patient, []).append(scan)
    numbered = []
    for own in by_patient.values():
        numbers = [None if scan.truth is None else _truth_of(scan).get("scan") for scan in own]
        if not set(numbers) <= {1, 2} or len(set(numbers)) < len(numbers):
            numbers = list(range(1, len(own) + 1))
        numbered += [replace(scan, number=number) for scan, number in zip(own, numbers, strict=True)]
    return numbered
