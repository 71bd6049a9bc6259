"""List of the scans to annotate: how far each is, and in which order they are best taken."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass

from .annotations import MASK_KINDS, SliceLabel, annotators, slice_annotations
from .project import Project, ProjectError, ProjectScan
from .proposals import read_proposal

ORDERS = ("added", "uncertain", "blind")


@dataclass(frozen=True)
class WorkItem:
    """A scan and what one annotator has done with it.

    slices_done: slices of the heart with a label; any slice's while the heart is unknown. slices: of the heart; None
    before a proposal. unsure: labels that say so. regions, heart: whether there is a mask.
    state: "new"; "begun"; "done", when all slices of the heart have a label; or "missing", when the CT is not there.
    uncertainty: mean entropy, in bits from 0 to 1, of the classifier's probability of slices without a label; None
    when there is no classifier or nothing left to label.
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
    """All scans of a project with what an annotator has done.

    annotator: "" for nobody yet. order: "added"; "uncertain", the scan first of which the classifier knows least, those
    without its word after them and those that are done last; or "blind", mixed, the same for an annotator every time.
    Raises ProjectError.
    """
    if order not in ORDERS:
        raise ProjectError(f"{order!r} is not an order of the work list. Orders are {', '.join(ORDERS)}.")
    missing = {scan.id for scan in project.missing()}
    items = [_item(project, scan, annotator, scan.id in missing) for scan in project.scans]
    if order == "uncertain":
        return sorted(items, key=_least_sure_first)
    if order == "blind":
        return sorted(items, key=lambda item: hashlib.sha256(f"{annotator}:{item.scan.id}".encode()).hexdigest())
    return items


def shown_name(item: WorkItem, number: int, blind: bool) -> str:
    """Name of a scan in the list. number: its place in the list, from 1. blind: without a hint of what it is."""
    return f"Case {number}" if blind else item.scan.name


def binary_entropy(probability: float) -> float:
    """Entropy of a probability in bits: 1 for one half, 0 for 0 and 1."""
    return -sum(p * math.log2(p) for p in (probability, 1 - probability) if p > 0)


def _least_sure_first(item: WorkItem) -> tuple[bool, bool, float]:
    return item.state == "done", item.uncertainty is None, -(item.uncertainty or 0.0)


def _item(project: Project, scan: ProjectScan, annotator: str, missing: bool) -> WorkItem:
    proposal = read_proposal(project, scan.id)
    labels: dict[int, SliceLabel] = {}
    masks = dict.fromkeys(MASK_KINDS, False)
    for own in annotators(project, scan.id, annotator):
        labels = slice_annotations(project, scan.id, own).labels
        folder = project.scan_folder(scan.id) / "annotators" / own
        masks = {kind: (folder / f"{kind}.nii.gz").is_file() for kind in MASK_KINDS}
    heart = None if proposal is None else proposal.heart_slices
    done = [k for k in labels if heart is None or k in heart]
    open_ = {} if proposal is None else {k: p for k, p in proposal.probabilities.items() if k in heart}
    unsure = [probability for k, probability in open_.items() if k not in labels]
    state = "begun" if labels or any(masks.values()) else "new"
    if missing:
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
