"""A training project in the review: its scored scans as cases, and reviews as annotations of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from CACScoringLib.cohort import folder as cohort
from CACScoringLib.core.errors import OutputError, ProjectError
from CACScoringLib.core.voxels import voxels_of
from CACScoringLib.readings.cases import ReviewCase, cases_in
from CACScoringLib.scans.table import scans_of_table

from ..project.annotation_files import SliceLabel
from ..project.annotations import check_annotator, slice_annotations, write_mask
from ..project.files import SCANS_FILE, ProjectScan
from ..project.project import Project, is_project
from ..project.scan_identity import content_hash
from ..project.training import RESULTS

if TYPE_CHECKING:
    from .open_reviews import OpenReview


def cases_of(results: Path, ct: Path | None, series: str | None = None) -> list[ReviewCase]:
    """Return the scans of a training project scored by a cohort; else those of `cases_in`, as its errors are."""
    return _project_cases(results, ct) if is_project(results) else cases_in(results, ct, series)


def results_of(folder: Path) -> Path:
    """Return the folder of results: a subfolder of a project, else the folder itself."""
    return folder / RESULTS if is_project(folder) else folder


def _project_cases(folder: Path, ct: Path | None) -> list[ReviewCase]:
    root = results_of(folder)
    scans = folder / SCANS_FILE
    if not (root / cohort.RECORD).is_file():
        raise OutputError(f"The scans of the project are not scored. First: cac cohort {scans} --output {root}")
    by_digest = {case.digest: case for case in cases_in(root, ct)}
    cases = []
    for scan in scans_of_table(scans)[0]:
        if (case := by_digest.get(scan.label)) is not None:
            cases.append(replace(case, ct=scan.ct.resolve(), series=scan.series, patient=scan.patient))
    if not cases:
        raise OutputError(f"No scan of the project is scored as it is. Again: cac cohort {scans} --output {root}")
    return cases


def export_to_project(folder: Path, review: OpenReview, annotator: str) -> str:
    """Write a reviewed clinical score as regions and labels of the heart's slices; return the scan's id in the project.

    annotator: Name of the annotator. Raises ProjectError, also if the scan is not in the project or the review is not
    done.
    """
    check_annotator(annotator)
    if not review.review.reviewed["threshold"]:
        raise ProjectError("The review of this scan is not done. Mark it as reviewed first.")
    project = Project.open(folder)
    scan = _scan_in(project, review)
    lesions = review.review.result("threshold").lesion_set
    regions = lesions.label_image(review.review.scan.image)
    write_mask(project, scan.id, annotator, "regions", regions)
    heart, calcium = (np.any(mask, axis=(1, 2)) for mask in (review.heart, voxels_of(regions)))
    slices = slice_annotations(project, scan.id, annotator)
    for k in np.flatnonzero(heart).tolist():
        label = SliceLabel.VISIBLE if calcium[k] else SliceLabel.NOT_VISIBLE
        if slices.labels.get(k) != label:
            slices.set(k, label)
    return scan.id


def _scan_in(project: Project, review: OpenReview) -> ProjectScan:
    ct = review.case.ct
    matches = [scan for scan in project.scans if scan.ct == ct]
    if len(matches) != 1:
        sha256 = content_hash(ct)
        matches = [scan for scan in project.scans if scan.sha256 == sha256]
    if not matches:
        raise ProjectError(f"The project {project.name} has no scan {review.case.name}. Add it: cac project add.")
    return matches[0]
