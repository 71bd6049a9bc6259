"""Checks of a scan before it is added: contrast, gaps, kernel, labels, and its picture."""

import base64
import io

import numpy as np
import pytest
from collection_files import chest, labels, write_image, write_scan
from PIL import Image

from CACScoringLib.anatomy.heart_region import HeartRegion
from CACScoringLib.core.errors import CTError
from CACScoringLib.core.grid import Grid
from CACScoringLib.io.reading import read_ct
from CACTrainingLib.collections import checks
from CACTrainingLib.collections.checks import check_scan
from CACTrainingLib.project.annotation_files import ImportedAnnotations
from CACTrainingLib.project.project import NewScan


def new_scan(ct, values=None):
    """A scan, with regions as an array."""

    def annotations():
        return ImportedAnnotations("reader", {}, Grid.of(read_ct(ct).image).image(values))

    return NewScan("scan", "patient", ct, annotations=None if values is None else annotations)


def test_facts_and_picture(tmp_path):
    write_scan(tmp_path, "P1", ConvolutionKernel="B70f")
    check = check_scan(new_scan(tmp_path, labels(2)))
    assert (check.slices, check.spacing_mm, check.thickness_mm, check.kernel) == (8, 3.0, 3.0, "B70f")
    assert check.labelled_slices == 2
    assert {"heart-not-found", "kernel-sharp"} <= set(check.doubts)
    picture = np.asarray(Image.open(io.BytesIO(base64.b64decode(check.picture))), int)
    assert np.ptp(picture, axis=2).max() > 60, "the label is outlined in colour"


def test_contrast_is_refused_by_header_and_by_blood(tmp_path, monkeypatch):
    write_scan(tmp_path / "a", "P1", ContrastBolusAgent="Ultravist")
    with pytest.raises(CTError, match="contrast agent \\(Ultravist\\)"):
        check_scan(new_scan(tmp_path / "a"))
    values = np.random.default_rng(0).normal(250, 8, (20, 60, 60)).astype(np.int16)
    values[:, :9] -= 1250
    ct = write_image(tmp_path / "b.nii.gz", values)
    heart = np.ones(values.shape, bool)
    monkeypatch.setattr(checks, "heart_region", lambda scan: HeartRegion(heart, None, "lungs", ()))
    with pytest.raises(CTError, match=r"It has contrast: blood measures 2[45]\d HU"):
        check_scan(new_scan(ct))


def test_missing_slices_are_refused(tmp_path):
    for path in write_scan(tmp_path, "P1")[3:5]:
        path.unlink()
    with pytest.raises(CTError, match="slices"):
        check_scan(new_scan(tmp_path))


def test_labels_of_another_scan_are_refused(tmp_path):
    ct = write_image(tmp_path / "ct.nii.gz", chest())
    assert check_scan(new_scan(ct, labels(2))).labelled_slices == 2
    with pytest.raises(CTError, match="Its labels are of another scan"):
        check_scan(new_scan(ct, labels(2, shift=6)))
    assert check_scan(new_scan(ct, labels(0))).labelled_slices == 0
