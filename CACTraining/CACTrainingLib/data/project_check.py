"""Checks of a project before training: missing data, and remedies."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from CACScoringLib.core.errors import CTError, DataError
from CACScoringLib.core.voxels import voxels_of
from CACScoringLib.io.reading import read_mask

from ..project.annotation_files import SliceLabel
from ..project.annotations import annotators, slice_annotations
from ..project.files import ProjectScan
from ..project.project import Project
from ..project.proposals import read_proposal
from ..project.split import USES
from ..project.training import annotated_nothing, painted_regions, painted_slices, training_scan
from ..project.training_scan import TrainingScan, read_truth
from .datasets import find_scans, split_by_patient

NETWORKS = ("slices", "decomposition")
"""Networks that learn from a project alone."""

VALIDATION_SHARE = 0.2


@dataclass(frozen=True)
class ProjectFinding:
    """Problem of a project.

    Attributes:
        severity: "error" if training cannot start, "warning" if it can, or "note".
        message: Description with advice.
        scans: Ids of the affected scans.
        remedy: Action of `cac project` that solves it, "labels" for training from slice labels, "" for none.
    """

    severity: str
    message: str
    scans: tuple[str, ...] = ()
    remedy: str = ""


def check_project(
    project: Project,
    network: str | None = None,
    method: str = "supervised",
    annotator: str | None = None,
    further_data: Sequence[Path] = (),
) -> list[ProjectFinding]:
    """Return findings about a project, errors first.

    Args:
        network: Network to train: "territories", to which outlined hearts are taught, "lesions", to which readers'
            lesions are, or one of NETWORKS. None checks all of these, and lacks are warnings.
        method: Method of the decomposition, "supervised", "labels" or "cyclegan".
        annotator: Annotator whose annotations are used; None for all.
        further_data: Further folders to learn from, as the training takes them.

    Raises:
        ProjectError: The project is damaged.
        DataError: A further folder holds no scans.
    """
    if not project.scans:
        return [ProjectFinding("error", "The project has no scans. Add some.", remedy="add")]
    findings = [*_missing(project), *_uses(project, bool(further_data)), *_annotations(project, annotator)]
    usable, unusable = _usable(project, annotator)
    findings += unusable
    counts = {scan: _count(scan) for scan in (*usable, *(find_scans(further_data) if further_data else ()))}
    for name in [network] if network else NETWORKS:
        severity = "error" if network else "warning"
        findings += [
            ProjectFinding(severity, message, (), remedy) for message, remedy in _lacking(counts, name, method)
        ]

    order = ("error", "warning", "note")
    return sorted(findings, key=lambda finding: order.index(finding.severity))


def _missing(project: Project) -> list[ProjectFinding]:
    missing = project.missing()
    if not missing:
        return []
    message = (
        f"Scans that are not where they were: {len(missing)}, first {missing[0].name} at {missing[0].ct}. Training "
        "does without them. If a folder was moved, give its new place."
    )
    return [ProjectFinding("warning", message, _ids(missing), "relocate")]


def _uses(project: Project, has_further_data: bool) -> list[ProjectFinding]:
    findings = []
    by_patient: dict[str, list[ProjectScan]] = {}
    for scan in project.scans:
        by_patient.setdefault(scan.patient, []).append(scan)
    for patient, scans in by_patient.items():
        if len({scan.use for scan in scans}) > 1:
            message = f"Scans of patient {patient} have different uses. Give the patient one."
            findings.append(ProjectFinding("error", message, _ids(scans), "use"))

    uses = {patient: scans[0].use for patient, scans in by_patient.items()}
    without = [patient for patient, use in uses.items() if not use]
    if len(without) == len(uses):
        message = "No patient has a stored use, so none is kept for the test. Split the patients."
        return [*findings, ProjectFinding("warning", message, remedy="split")]
    if without:
        message = f"Patients without a stored use: {len(without)}. Split them."
        ids = _ids(scan for patient in without for scan in by_patient[patient])
        findings.append(ProjectFinding("warning", message, ids, "split"))
    for use in USES:
        if use not in uses.values() and not without:
            message = f"No patient is stored for {use}. Move some there, or add scans and split them."
            findings.append(
                ProjectFinding("warning" if use == "test" or has_further_data else "error", message, remedy="use")
            )
    return findings


def _annotations(project: Project, annotator: str | None) -> list[ProjectFinding]:
    findings: list[ProjectFinding] = []
    incomplete: list[str] = []
    for scan in project.scans:
        proposal = read_proposal(project, scan.id)
        for name in annotators(project, scan.id, annotator):
            labels = slice_annotations(project, scan.id, name).labels

            # Training on a digital patient uses its truth, unless an annotator is named.
            counts = annotator is not None or scan.truth is None
            if counts and labels and proposal is not None and not labels.keys() >= set(proposal.heart_slices):
                incomplete.append(scan.id)
            wrong = [k for k in painted_slices(project, scan, name) if labels.get(k) is SliceLabel.NOT_VISIBLE]
            if wrong:
                message = (
                    f"{name} painted regions in slices of {scan.name} that they labelled as without visible calcium: "
                    f"{', '.join(map(str, wrong[:10]))}. Correct the label or the region."
                )
                findings.append(ProjectFinding("warning", message, (scan.id,)))
    if annotator is not None and (reason := annotated_nothing(project, annotator)):
        findings.append(ProjectFinding("error", reason))
    if incomplete:
        ids = tuple(dict.fromkeys(incomplete))
        message = f"Scans begun and not finished: {len(ids)}. Slices without a label are left out of training."
        findings.append(ProjectFinding("note", message, ids))

    return findings


def _usable(project: Project, annotator: str | None) -> tuple[list[TrainingScan], list[ProjectFinding]]:
    """Return the usable scans, and findings about the others."""
    missing_ids = {scan.id for scan in project.missing()}
    usable, findings = [], []
    unlabelled: list[ProjectScan] = []
    heartless: list[ProjectScan] = []
    for scan in project.scans:
        if scan.id in missing_ids:
            continue
        try:
            training = training_scan(project, scan, annotator)
        except CTError as error:
            findings.append(ProjectFinding("error", f"{scan.name} cannot be used. {error}", (scan.id,)))
            continue
        if training is not None:
            usable.append(training)
        elif any(slice_annotations(project, scan.id, name).labels for name in annotators(project, scan.id)):
            heartless.append(scan)
        else:
            unlabelled.append(scan)
    if heartless:
        message = f"Labelled scans left out for want of a heart: {len(heartless)}. Propose it."
        findings.append(ProjectFinding("warning", message, _ids(heartless), "prepare"))
    if unlabelled:
        message = f"Scans left out, without labels and outlined heart: {len(unlabelled)}."
        findings.append(ProjectFinding("note", message, _ids(unlabelled)))
    return usable, findings


def _lacking(
    label_counts: Mapping[TrainingScan, Counter[bool | None]], network: str, method: str
) -> list[tuple[str, str]]:
    """Return reasons why a network cannot be trained, with remedies.

    label_counts: by scan, counts of slices with and without visible calcium.
    """
    teaches_hearts = network == "territories"
    usable = [scan for scan in label_counts if scan.heart_known or not teaches_hearts]
    if network == "lesions":
        usable = [scan for scan in usable if scan.annotators]
    if teaches_hearts and not usable:
        return [("The heart is learned from scans with an outlined heart, and there are none. Outline some.", "")]
    if network == "lesions" and not usable:
        return [(f"{_JUDGED} none are.", "")]
    try:
        parts = split_by_patient(usable, VALIDATION_SHARE, 0)
    except DataError as error:
        return [(f"For {_NAMES[network]}: {error}", "")]
    if teaches_hearts:
        return []
    if network == "lesions":
        return [] if any(map(_is_judged, parts[0])) else [(f"{_JUDGED} none of the scans for training are.", "use")]
    lacking: list[tuple[str, str]] = []
    for use, scans in zip(USES, parts, strict=False):
        counts = sum((label_counts[scan] for scan in scans), Counter())
        lacking += [
            (
                f"For {_NAMES[network]}: no slice {'with' if visible else 'without'} visible calcium is labelled in "
                f"the scans for {use}. Label some, or move patients who have them there.",
                "use",
            )
            for visible in (True, False)
            if not counts[visible]
        ]
        mapped = any(scan.calcium_map is not None and label_counts[scan][True] for scan in scans)
        if network == "decomposition" and method == "supervised" and not mapped:
            message = (
                f"The supervised decomposition needs scans whose true calcium is known, and there is none for {use}. "
                "Add digital patients or scans with inserted calcium, or learn from slice labels alone."
            )
            lacking.append((message, "labels"))
    return lacking


def _is_judged(scan: TrainingScan) -> bool:
    """True if an annotator painted regions in a real scan, or judged a slice as free of visible calcium."""
    readings = painted_regions(scan)
    return any(image is not None or SliceLabel.NOT_VISIBLE in labels.values() for image, labels in readings)


def _count(scan: TrainingScan) -> Counter[bool | None]:
    """Count slices by visible calcium, unlabelled ones under None, without annotators' labels outside the heart."""
    labels = read_truth(scan.truth)["slices"] if scan.truth else ()
    if scan.annotators:
        heart_slices = np.flatnonzero(voxels_of(read_mask(scan.heart)).any((1, 2))).tolist()
        labels = [label for label in labels if label["k"] in heart_slices]
    return Counter(label["visible"] for label in labels)


_JUDGED = "Painted lesions are learned from real scans that annotators judged or painted, and"
_NAMES = {
    "territories": "outlined hearts",
    "lesions": "painted lesions",
    "slices": "the slice classifier",
    "decomposition": "the decomposition",
}


def _ids(scans: Iterable[ProjectScan]) -> tuple[str, ...]:
    return tuple(scan.id for scan in scans)
