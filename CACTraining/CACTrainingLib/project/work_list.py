"""List the scans to annotate with their progress, in the order of annotation."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass

from CACScoringLib.core.errors import ProjectError

from .annotation_files import MASK_KINDS, SliceLabel
from .annotations import annotators, slice_annotations
from .files import ProjectScan
from .project import Project
from .proposals import read_proposal

ORDERS = ("added", "uncertain", "blind")


@dataclass(frozen=True)
class WorkItem:
    """Scan and an annotator's progress with it.

    Attributes:
        scan: The scan.
        slices_done: Labelled slices of the heart, or of the scan without a proposal of the heart.
        slices: Slices of the heart; None without a proposal.
        unsure: Number of labels "unsure".
        regions: True if there is a mask of regions.
        heart: True if there is a mask of the heart.
        state: "new"; "begun"; "done" if all slices of the heart have a label; "missing" if the CT is missing.
        uncertainty: Mean entropy of the classifier's probabilities of unlabelled slices, in bits from 0 to 1; None
            without a classifier or without unlabelled slices.
    """

    scan: ProjectScan
    slices_done: int
    slices: int | None
    unsure: int
    regions: bool
    heart: bool
    state: str
    uncertainty: float | None


def work_list(project: Project, annotator: str, order: str = "added") -> list[WorkItem]:
    """Return all scans of a project with an annotator's progress.

    annotator: Name of the annotator, or "" for none yet. order: "added"; "uncertain", by falling uncertainty, then
    scans without one, then finished ones; or "blind", shuffled, always alike for an annotator. Raises ProjectError.
    """
    if order not in ORDERS:
        raise ProjectError(f"{order!r} is not an order of the work list. Orders are {', '.join(ORDERS)}.")
    missing = {scan.id for scan in project.missing()}
    items = [_item(project, scan, annotator, scan.id in missing) for scan in project.scans]
    if order == "uncertain":
        return sorted(
            items, key=lambda item: (item.state == "done", item.uncertainty is None, -(item.uncertainty or 0))
        )
    if order == "blind":
        return sorted(items, key=lambda item: hashlib.sha256(f"{annotator}:{item.scan.id}".encode()).hexdigest())
    return items


def shown_name(item: WorkItem, number: int, blind: bool) -> str:
    """Return a scan's name in the list. number: Place in the list, from 1. blind: True for a name without a hint."""
    return f"Case {number}" if blind else item.scan.name


def binary_entropy(probability: float) -> float:
    """Return the entropy of a probability in bits: 1 for one half, 0 for 0 and 1."""
    return -sum(p * math.log2(p) for p in (probability, 1 - probability) if p > 0)


def _item(project: Project, scan: ProjectScan, annotator: str, is_missing: bool) -> WorkItem:
    proposal = read_proposal(project, scan.id)
    labels: dict[int, SliceLabel] = {}
    masks = dict.fromkeys(MASK_KINDS, False)
    for name in annotators(project, scan.id, annotator):
        labels = slice_annotations(project, scan.id, name).labels
        folder = project.scan_folder(scan.id) / "annotators" / name
        masks = {kind: (folder / f"{kind}.nii.gz").is_file() for kind in MASK_KINDS}
    heart = None if proposal is None else proposal.heart_slices
    done = [k for k in labels if heart is None or k in heart]
    probabilities = {}
    if proposal is not None:
        probabilities = {k: p for k, p in proposal.probabilities.items() if k in proposal.heart_slices}
    unsure = [probability for k, probability in probabilities.items() if k not in labels]
    state = "begun" if labels or any(masks.values()) else "new"
    if is_missing:
        state = "missing"
    elif heart is not None and 0 < len(done) == len(heart):
        state = "done"
    return WorkItem(
        scan=scan,
        slices_done=len(done),
        slices=None if heart is None else len(heart),
        unsure=sum(labels[k] is SliceLabel.UNSURE for k in done),
        **masks,
        state=state,
        uncertainty=sum(map(binary_entropy, unsure)) / len(unsure) if unsure else None,
    )
