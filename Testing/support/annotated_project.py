"""Annotations of the scans of `training_scans` in a project."""

import json

import numpy as np
import SimpleITK as sitk
from images import image_of
from training_scans import HEART_SLICES, SHAPE, SPACING_MM

from CACTrainingLib.project.annotation_files import SliceLabel
from CACTrainingLib.project.annotations import slice_annotations, write_mask

YES, NO, UNSURE = SliceLabel.VISIBLE, SliceLabel.NOT_VISIBLE, SliceLabel.UNSURE


def mask(filled, value=1):
    """Make a label map on the scans' grid, filled at an index of [k, j, i]."""
    array = np.zeros(SHAPE, np.uint8)
    array[filled] = value
    return image_of(array, SPACING_MM)


def heart_mask():
    return mask((HEART_SLICES, slice(10, 38), slice(10, 38)))


def label(project, scan, annotator, labels):
    """Label slices by index k, as by keys."""
    annotations = slice_annotations(project, scan, annotator)
    for k, value in labels.items():
        annotations.set(k, value)


def outline(project, scan, annotator):
    """Save `heart_mask` as an annotator's mask of a scan."""
    write_mask(project, scan, annotator, "heart", heart_mask())


def write_proposal(project, scan, slices, probabilities=None, heart=None):
    """Write a proposal like `cac project prepare`, without its slow networks.

    Args:
        project: The project.
        scan: Id of the scan.
        slices: Slices with heart.
        probabilities: Predicted probability by slice index k.
        heart: Mask as an image; None for `heart_mask`.
    """
    folder = project.scan_folder(scan) / "proposal"
    folder.mkdir(parents=True, exist_ok=True)
    sitk.WriteImage(heart_mask() if heart is None else heart, folder / "heart.nii.gz")
    facts = {"schema": "cac-proposal/1", "heart_source": "territories-compact", "heart_slices": list(slices)}
    facts |= {"probabilities": {str(k): p for k, p in (probabilities or {}).items()}, "models": [], "doubts": []}
    (folder / "proposal.json").write_text(json.dumps(facts), encoding="utf-8")
