"""Epicardial fat in a review: as recorded, and after a reader changed the pericardium."""

import json

import numpy as np
import pytest
import SimpleITK as sitk
import slicer
from calcified_heart import calcified_scan
from scene_edits import paint

from CACScoringLib.core.ct import scan_from_image
from CACScoringLib.core.grid import Grid
from CACScoringLib.mrml.lesion_segments import PERICARDIUM_ID
from CACScoringLib.pipeline import score_scan
from CACScoringLib.report import files as report
from CACScoringLib.review.scan_review import ScanReview
from CACScoringLib.review.scene import SceneReview
from CACScoringLib.review.state import ReviewFolder

FAT = np.s_[4:20, 20:76, 20:76]
PERICARDIUM = np.s_[5:18, 21:75, 21:75]


@pytest.fixture(scope="module")
def scored():
    scan, heart = calcified_scan()
    hu, outline = scan.hu.copy(), np.zeros(scan.hu.shape, np.uint8)
    hu[FAT], outline[PERICARDIUM] = -80, 1
    grid = Grid.of(scan.image)
    fatty = scan_from_image(grid.image(hu), scan.acquisition)
    return score_scan(fatty, heart=heart, pericardium=grid.image(outline))


def voxels_cm3(scored, count):
    return pytest.approx(count * np.prod(scored.scan.image.GetSpacing()) / 1000)


def test_unchanged_fat_is_that_of_the_record(scored, opened, tmp_path):
    assert scored.record.epicardial_fat.volume_cm3 == voxels_cm3(scored, 13 * 54 * 54)
    assert opened(scored).epicardial_fat == scored.record.epicardial_fat
    report.write_json(tmp_path / "scores.json", scored.record, {})
    report.write_images(tmp_path, scored)
    assert ScanReview(ReviewFolder(tmp_path, scored.scan)).epicardial_fat == scored.record.epicardial_fat


def test_fat_follows_the_outline(scored, opened, tmp_path):
    review = opened(scored)
    assert review.epicardial_fat.volume_cm3 == voxels_cm3(scored, 37908)
    paint(review, PERICARDIUM_ID, np.s_[18:20, 21:75, 21:75], node=review.nodes.pericardium)
    assert review.refresh()
    assert review.epicardial_fat.volume_cm3 == voxels_cm3(scored, 15 * 54 * 54)
    assert not review.refresh()
    review.export(tmp_path / "out")
    document = json.loads((tmp_path / "out" / "scores.json").read_text(encoding="utf-8"))
    assert document["epicardial_fat"]["volume_cm3"] == voxels_cm3(scored, 43740)
    exported = sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "out" / "pericardium.nii.gz")))
    assert exported.sum() == 43740
    reopened = SceneReview.of_record(review.scene, review.nodes.record)
    assert reopened.epicardial_fat == review.epicardial_fat


def test_fat_follows_undo_of_slicers_segment_editor(scored, opened):
    review = opened(scored)
    logic = slicer.vtkSlicerSegmentationsModuleLogic()
    logic.SetMRMLScene(review.scene)  # a history copies segments by the logic's rules
    recorded, history = review.epicardial_fat, slicer.vtkSegmentationHistory()
    history.SetSegmentation(review.nodes.pericardium.GetSegmentation())
    history.SaveState()
    paint(review, PERICARDIUM_ID, np.s_[18:20, 21:75, 21:75], node=review.nodes.pericardium)
    assert review.refresh()
    assert review.epicardial_fat != recorded
    assert not review.can_undo, "the panel's own undo is of lesions"
    assert history.RestorePreviousState()
    assert review.refresh()
    assert review.epicardial_fat == recorded
