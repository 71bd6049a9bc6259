"""Test of saving, closing and reopening a scene."""

import pytest
import slicer


@pytest.mark.main_window
@pytest.mark.long
def test_a_scene_opens_unchanged(driver, tmp_path):
    driver.ui.thresholdHuBox.setValue(145)
    driver.ui.thresholdHuBox.setValue(130)
    driver.ui.minimumPixelsBox.setValue(2)
    driver.score(networks=True)
    driver.assign("12–13", "LAD")
    driver.assign("16–17", "reject")
    driver.ui.reviewMethodBox.setCurrentIndex(1)
    driver.choose_slice(13)
    driver.ui.sliceBox.click()
    driver.ui.fadeSlider.setValue(0.25)
    driver.state.cohortFolder = "/data/scans"
    before = {method: driver.review.result(method).total for method in driver.review.methods}
    scores = driver.scores()
    assert slicer.util.saveScene(str(tmp_path / "scene.mrb"))
    slicer.mrmlScene.Clear()
    assert driver.review is None
    assert driver.lesions() == []
    slicer.util.loadScene(str(tmp_path / "scene.mrb"))
    assert driver.review is None, "it is read and shown in steps after the import"
    driver.settle()
    assert driver.ui.inputSelector.currentNode().GetName() == "chest"
    assert driver.ui.minimumPixelsBox.value == 2
    assert driver.ui.reviewMethodBox.currentIndex == 1
    assert driver.ui.fadeSlider.value == 0.25
    assert driver.ui.cohortFolderEdit.currentPath == "/data/scans"
    assert {method: driver.review.result(method).total for method in driver.review.methods} == before
    assert driver.scores() == scores
    assert driver.review.slices_off == (13,)
    # Editing goes on after reopening.
    driver.ui.reviewMethodBox.setCurrentIndex(0)
    driver.assign("5–6", "RCA")
    assert driver.scores()["RCA"][0] == "324.0"
