"""Test the agreement of annotators against values by hand and by scikit-learn."""

import json
import math

import numpy as np
import pytest
import SimpleITK as sitk
from chest_ct import write_ct
from images import image_of
from sklearn.metrics import cohen_kappa_score

from CACTrainingLib.project.agreement import agreement
from CACTrainingLib.project.annotation_files import SliceLabel
from CACTrainingLib.project.annotations import slice_annotations, write_mask
from CACTrainingLib.project.project import NewScan, Project

LETTERS = {"V": SliceLabel.VISIBLE, "N": SliceLabel.NOT_VISIBLE, "U": SliceLabel.UNSURE}


def make_project(folder, patients):
    """Make a project with one scan per entry of `patients`."""
    project = Project.create(folder / "project")
    new_scans = []
    for n, patient in enumerate(patients):
        ct = folder / f"scan{n}.nii"
        write_ct(ct, n)
        new_scans.append(NewScan(f"scan{n}", patient, ct))
    assert len(project.add(new_scans).added) == len(patients)
    return project


@pytest.fixture
def project(tmp_path):
    return make_project(tmp_path, ["p", "q"])


def label(project, scan_id, annotator, letters, first=0):
    """Label slices one by one; a dot skips a slice."""
    slices = slice_annotations(project, scan_id, annotator)
    for k, letter in enumerate(letters, first):
        if letter != ".":
            slices.set(k, LETTERS[letter])


def box(*bounds, label_value=1, spacing=1.0):
    """Make a label map of 8×8×8 voxels with a box [k, j, i]; empty without bounds."""
    array = np.zeros((8, 8, 8), np.uint8)
    if bounds:
        array[tuple(slice(*bounds_on_axis) for bounds_on_axis in bounds)] = label_value
    return image_of(array, (spacing,) * 3)


def test_kappa_ignores_unsure_slices(project):
    label(project, "0001", "Anna", "VVVVNNNNU.VN")
    label(project, "0001", "Ben", "VVVNNNNVVVU.")
    (row,), warnings = agreement(project)
    assert (row.first, row.second, row.scans, row.slices, row.unsure) == ("Anna", "Ben", 1, 8, 2)
    assert row.kappa.value == pytest.approx(0.5)  # 6 of 8 agree, 4 by chance
    assert row.same.value == 0.75
    assert math.isnan(row.kappa.low)
    assert math.isnan(row.regions.value)
    assert math.isnan(row.heart.value)
    assert warnings == ()


def test_kappa_over_all_scans_equals_scikit_learn_with_an_interval_over_patients(tmp_path):
    project = make_project(tmp_path, [f"p{n // 2}" for n in range(16)])
    generator = np.random.default_rng(3)
    labels = []
    for scan in project.scans:
        first = generator.random(10) < 0.4
        second = first ^ (generator.random(10) < 0.2)
        labels.append((first, second))
        for annotator, is_visible in (("Anna", first), ("Ben", second)):
            label(project, scan.id, annotator, np.where(is_visible, "V", "N"))
    (row,), _ = agreement(project)
    first, second = (np.concatenate(part) for part in zip(*labels, strict=True))
    assert (row.slices, row.kappa.value) == (160, pytest.approx(cohen_kappa_score(first, second)))
    assert row.same.value == pytest.approx((first == second).mean())
    for estimate in (row.kappa, row.same):
        assert estimate.low < estimate.value < estimate.high
        assert estimate.n == 160
    # Resampling patients gives about the interval of independent slices here.
    error = math.sqrt(row.same.value * (1 - row.same.value) / 160)
    assert (row.same.high - row.same.low) / 2 == pytest.approx(1.96 * error, rel=0.5)
    (first_scan,), _ = agreement(project, ["0001"])
    assert first_scan.slices == 10


def test_dice_ignores_arteries_and_empty_pairs(project):
    write_mask(project, "0001", "Anna", "regions", box((0, 4), (0, 4), (0, 4), label_value=2))
    write_mask(project, "0001", "Ben", "regions", box((2, 6), (0, 4), (0, 4), label_value=3))
    write_mask(project, "0001", "Anna", "heart", box((0, 8), (0, 8), (0, 4)))
    write_mask(project, "0001", "Ben", "heart", box((0, 8), (0, 8), (0, 8)))
    write_mask(project, "0002", "Anna", "regions", box((0, 4), (0, 4), (0, 4)))
    write_mask(project, "0002", "Ben", "regions", box())
    (row,), warnings = agreement(project)
    assert (row.regions.value, row.regions.n) == (pytest.approx((0.5 + 0) / 2), 2)
    assert row.heart.value == pytest.approx(2 / 3)
    assert (row.scans, row.slices) == (2, 0)
    assert warnings == ()


def test_every_pair_is_compared_and_the_truth_comes_last(tmp_path):
    ct = tmp_path / "d" / "ct.nii"
    ct.parent.mkdir()
    write_ct(ct)
    slices = [{"k": k, "visible": visible} for k, visible in enumerate([True, True, False, False, None])]
    (ct.parent / "truth.json").write_text(json.dumps({"slices": slices}), encoding="utf-8")
    flipped = box((4, 8), (0, 8), (0, 8))
    sitk.WriteImage(sitk.DICOMOrient(flipped, "RAS"), ct.parent / "heart.nii.gz")
    project = Project.create(tmp_path / "project")
    project.add([NewScan("d", "d", ct, source="digital", truth=ct.parent / "truth.json")])
    assert agreement(project) == ([], ())
    label(project, "0001", "Zoe", "VVNNV")
    label(project, "0001", "Anna", "VNNN.")
    write_mask(project, "0001", "Anna", "heart", flipped)
    rows, warnings = agreement(project)
    assert [(row.first, row.second) for row in rows] == [("Anna", "Zoe"), ("Anna", "truth"), ("Zoe", "truth")]
    assert [row.slices for row in rows] == [4, 4, 4]
    assert [row.kappa.value for row in rows] == pytest.approx([0.5, 0.5, 1.0])
    assert rows[1].heart.value == pytest.approx(1.0)
    assert warnings == ()


def test_incomparable_masks_are_reported_and_skipped(tmp_path):
    project = make_project(tmp_path, ["p", "q", "r"])
    for scan_id in ("0001", "0002"):
        label(project, scan_id, "Anna", "VN")
        label(project, scan_id, "Ben", "VN")
    for annotator, spacing in (("Anna", 1.0), ("Ben", 2.0)):
        write_mask(project, "0001", annotator, "heart", box((0, 2), (0, 2), (0, 2), spacing=spacing))
        write_mask(project, "0002", annotator, "regions", box((0, 2), (0, 2), (0, 2)))
    folder = project.scan_folder("0002") / "annotators" / "Ben"
    (folder / "regions.nii.gz").write_bytes(b"torn")
    with (folder / "slices.jsonl").open("ab") as file:
        file.write(b'{"k": 3')
    rows, warnings = agreement(project)
    assert (rows[0].slices, rows[0].kappa.value) == (4, 1.0)
    assert len(warnings) == 3
    assert any("heart of scan0 were not compared" in warning and "grids" in warning for warning in warnings)
    assert any("regions of scan1" in warning for warning in warnings)
    assert any("the last" in warning for warning in warnings)
