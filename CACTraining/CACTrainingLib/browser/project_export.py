"""Export a review as annotations of a training project."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from CACScoringLib.core.voxels import voxels_of

from ..project.annotation_files import SliceLabel
from ..project.annotations import check_annotator, slice_annotations, write_mask
from ..project.files import ProjectError, ProjectScan
from ..project.project import Project
from ..project.scan_identity import content_hash
from .open_reviews import OpenReview


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
    lesions = review.review.result("threshold").lesions
    regions = lesions.label_image(review.review.scan.image)
    write_mask(project, scan.id, annotator, "regions", regions)
    heart, calcium = (np.any(voxels_of(image), axis=(1, 2)) for image in (review.heart, regions))
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
