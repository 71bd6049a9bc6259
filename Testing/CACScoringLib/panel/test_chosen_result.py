"""Tests that input, headline, list and views are always of one scan, also in a reopened scene."""

import numpy as np
import panel_results
import pytest
import SimpleITK as sitk
import slicer

from CACScoringLib.mrml import scene as mrml

pytestmark = pytest.mark.main_window


@pytest.fixture
def two_results(driver):
    """The panel with results of two scans, "chest" and then "other"; returns their nodes."""
    driver.score(networks=True)
    first = driver.review.nodes
    driver.ui.inputSelector.setCurrentNode(mrml.add_volume(slicer.mrmlScene, panel_results.chest_image(), "other"))
    driver.score()
    return first, driver.review.nodes


def backgrounds() -> set[str]:
    """Names of the volumes at the back of all slice views that the layout shows."""
    manager = slicer.app.layoutManager()
    widgets = [manager.sliceWidget(name) for name in manager.sliceViewNames()]
    shown = [w.mrmlSliceCompositeNode() for w in widgets if w.mrmlSliceNode().IsMappedInLayout()]
    nodes = [slicer.mrmlScene.GetNodeByID(composite.GetBackgroundVolumeID()) for composite in shown]
    return {node.GetName() for node in nodes}


def visible_lesions() -> set[str]:
    nodes = slicer.util.getNodesByClass("vtkMRMLSegmentationNode")
    return {node.GetID() for node in nodes if node.GetDisplayNode().GetVisibility()}


def is_all_of(driver, nodes) -> None:
    """Assert that only this result is in sight."""
    name = nodes.volume.GetName()
    assert driver.review.nodes.record is nodes.record
    assert driver.state.result is nodes.record
    assert driver.ui.inputSelector.currentNode() is nodes.volume
    assert f"<b>{name}</b>" in driver.ui.headLabel.text
    assert backgrounds() == {name}
    assert visible_lesions() == {nodes.heart.GetID(), nodes.calcium.GetID()}
    layouts = {True: driver.panel.views.LAYOUT_ID, False: driver.panel.views.PLAIN_LAYOUT_ID}
    assert slicer.app.layoutManager().layout == layouts[nodes.calcium_map is not None]


@pytest.fixture
def driver(driver, panel):
    driver.panel = panel
    return driver


class TestResult:
    def test_input_and_views_follow_the_selected_result_or_ct(self, driver, two_results):
        first, second = two_results
        is_all_of(driver, second)
        driver.ui.lesionTable.setCurrentCell(2, 0)
        driver.ui.resultSelector.setCurrentNode(first.record)
        driver.settle()
        is_all_of(driver, first)
        assert driver.ui.lesionTable.currentRow() == 0, "not the row of the other scan's lesion"
        driver.ui.inputSelector.setCurrentNode(second.volume)
        driver.settle()
        is_all_of(driver, second)

    def test_undo_and_redo_outlive_a_switch_to_another_result(self, driver, two_results):
        first, second = two_results
        driver.assign("16–17", "RCA")
        driver.assign("12–13", "LAD")
        driver.ui.undoButton.click()
        driver.ui.resultSelector.setCurrentNode(first.record)
        driver.settle()
        assert not driver.review.can_undo
        slicer.util.updateSegmentBinaryLabelmapFromArray(
            np.zeros((20, 64, 64), np.uint8), second.calcium, "RCA", second.volume
        )
        driver.ui.resultSelector.setCurrentNode(second.record)
        driver.settle()
        assert "RCA" not in driver.scores(), "another module's change is taken in"
        driver.ui.undoButton.click()
        assert driver.scores()["RCA"][0] == "648.0"
        driver.ui.undoButton.click()
        assert "RCA" not in driver.scores()
        assert not driver.review.can_undo

    @pytest.mark.long
    def test_a_run_that_ends_leaves_the_views_of_another_page(self, driver, two_results):
        manager = slicer.app.layoutManager()
        driver.begin()
        driver.ui.pages.setCurrentIndex(2)
        driver.ui.drrLayoutButton.click()
        driver.finish(networks=True)
        assert manager.layout == driver.panel.views.RADIOGRAPH_LAYOUT_ID
        driver.ui.pages.setCurrentIndex(0)
        driver.settle()
        assert manager.layout == driver.panel.views.LAYOUT_ID

    @pytest.mark.long
    def test_the_3d_view_looks_from_the_front_after_a_switch(self, driver, two_results):
        first, _ = two_results
        for switch in (lambda: driver.ui.resultSelector.setCurrentNode(first.record), driver.ui.layoutButton.click):
            driver.ui.pages.setCurrentIndex(2)
            driver.ui.drrLayoutButton.click()
            driver.ui.pages.setCurrentIndex(0)
            switch()
            driver.settle()
            driver.settle()
            camera = driver.panel.views.shownThreeDWidget().threeDView().cameraNode()
            right, front, up = np.subtract(camera.GetPosition(), camera.GetFocalPoint())
            assert max(abs(right), abs(up)) < 1 < front
            assert camera.GetViewUp() == (0, 0, 1)

    @pytest.mark.long
    def test_views_are_of_the_result_after_another_module(self, driver, two_results):
        """Choose an earlier result of a CT, which stays chosen."""
        first, second = two_results
        driver.score()
        driver.ui.resultSelector.setCurrentNode(second.record)
        driver.settle()
        slicer.util.selectModule("")
        slicer.util.setSliceViewerLayers(background=first.volume, foreground=None)
        second.calcium.GetDisplayNode().SetVisibility(False)
        first.calcium.GetDisplayNode().SetVisibility(False)
        slicer.util.selectModule("CACScoring")
        driver.settle()
        is_all_of(driver, second)

    @pytest.mark.long
    def test_views_are_of_the_result_in_a_new_panel(self, driver, two_results, panel):
        """Check what *Reload* does: the panel is made again in a scene with results."""
        first, second = two_results
        driver.ui.resultSelector.setCurrentNode(first.record)
        driver.settle()
        driver.widget.cleanup()
        slicer.util.setSliceViewerLayers(background=second.volume, foreground=None)
        representation = slicer.modules.cacscoring.widgetRepresentation()
        representation.reload()
        driver.widget = representation.self()
        driver.ui = driver.widget.ui
        driver.widget.enter()
        driver.settle()
        is_all_of(driver, first)


class TestOutlines:
    """They are drawn over the scan of their result alone."""

    @pytest.fixture
    def other(self, driver):
        """Another CT, which the views showed before the panel did; the panel shows a result."""
        volume = mrml.add_volume(slicer.mrmlScene, panel_results.chest_image(), "other")
        slicer.util.setSliceViewerLayers(background=volume)
        driver.score(networks=True)
        return volume

    def test_they_go_with_the_scan_when_the_panel_is_left(self, driver, other):
        nodes = driver.review.nodes
        shown = {nodes.heart.GetID(), nodes.calcium.GetID()}
        assert visible_lesions() == shown
        slicer.util.selectModule("")
        driver.settle()
        assert (backgrounds(), visible_lesions()) == ({"other"}, set())
        slicer.util.setSliceViewerLayers(background=nodes.volume)
        driver.settle()
        assert visible_lesions() == shown, "with the scan, in any module"
        slicer.util.setSliceViewerLayers(background=other)
        driver.settle()
        nodes.heart.GetDisplayNode().SetVisibility(True)
        driver.settle()
        assert visible_lesions() == {nodes.heart.GetID()}, "a user may show one"
        slicer.util.selectModule("CACScoring")
        driver.settle()
        is_all_of(driver, nodes)

    @pytest.mark.parametrize("switch", ["volume", "layout"])
    def test_they_hide_while_another_scan_is_in_the_views(self, driver, other, switch):
        if switch == "volume":
            slicer.util.setSliceViewerLayers(background=other)
        else:
            slicer.app.layoutManager().setLayout(slicer.vtkMRMLLayoutNode.SlicerLayoutFourUpView)
        driver.settle()
        assert visible_lesions() == set()
        composite = slicer.app.layoutManager().sliceWidget("CACMap").mrmlSliceCompositeNode()
        over_scan = driver.review.nodes.calcium_map.GetID()
        assert composite.GetForegroundVolumeID() == (None if switch == "volume" else over_scan), "the map goes, too"
        driver.state.reviewMethod = "decomposition"
        driver.settle()
        assert visible_lesions() == set(), "of either method"
        driver.ui.lesionTable.setCurrentCell(1, 0)
        driver.settle()
        assert backgrounds() == {"chest"}
        assert visible_lesions() == {driver.review.nodes.heart.GetID(), driver.review.nodes.map_lesions.GetID()}
        driver.ui.layoutButton.click()
        driver.settle()
        assert composite.GetForegroundVolumeID() == over_scan


@pytest.mark.long
class TestInput:
    def test_a_ct_without_a_result_shows_itself_alone(self, driver, two_results):
        third = mrml.add_volume(slicer.mrmlScene, panel_results.chest_image(), "third")
        driver.ui.inputSelector.setCurrentNode(third)
        driver.settle()
        assert driver.state.result is None
        assert not driver.ui.headFrame.visible
        assert driver.lesions() == []
        assert backgrounds() == {"third"}
        assert visible_lesions() == set()
        driver.begin()
        assert not driver.ui.headFrame.visible, "no other scan's score stands above this one's progress"

    def test_a_loaded_ct_becomes_the_input(self, driver, tmp_path):
        driver.score(networks=True)
        first = driver.review.nodes
        sitk.WriteImage(panel_results.chest_image(), str(tmp_path / "later.nrrd"))
        later = slicer.util.loadVolume(str(tmp_path / "later.nrrd"))
        driver.settle()
        assert driver.ui.inputSelector.currentNode() is later
        assert driver.review is None
        assert backgrounds() == {"later"}
        assert not driver.ui.headFrame.visible
        assert "chest" in driver.ui.statusLabel.text
        driver.ui.inputSelector.setCurrentNode(first.volume)
        driver.settle()
        is_all_of(driver, first)
        driver.widget.exit()
        slicer.util.loadVolume(str(tmp_path / "later.nrrd"), {"name": "loaded in another module"})
        driver.widget.enter()
        driver.settle()
        assert driver.ui.inputSelector.currentNode().GetName() == "loaded in another module"

    def test_a_ct_loaded_during_a_run_is_named_as_no_input(self, driver, tmp_path):
        sitk.WriteImage(panel_results.chest_image(), str(tmp_path / "later.nrrd"))
        driver.begin()
        slicer.util.loadVolume(str(tmp_path / "later.nrrd"))
        slicer.app.processEvents()
        note = driver.ui.scanWarningsLabel.text
        assert "later was loaded during the run, which scores chest" in note
        driver.finish()
        driver.ui.inputSelector.setCurrentNode(slicer.util.getNode("later"))
        driver.settle()
        assert "loaded during the run" not in driver.ui.scanWarningsLabel.text

    def test_a_loaded_mask_and_a_computed_volume_leave_the_input(self, driver, tmp_path):
        driver.score()
        nodes = driver.review.nodes
        sitk.WriteImage(panel_results.heart_mask(panel_results.chest_image()), str(tmp_path / "mask.nrrd"))
        slicer.util.loadVolume(str(tmp_path / "mask.nrrd"))
        driver.settle()
        computed = mrml.add_volume(slicer.mrmlScene, panel_results.chest_image(), "cropped")
        slicer.app.applicationLogic().GetSelectionNode().SetActiveVolumeID(computed.GetID())
        driver.settle()
        assert driver.ui.inputSelector.currentNode() is nodes.volume
        assert driver.review.nodes.record is nodes.record

    def test_the_name_of_a_scan_is_text(self, driver):
        driver.ui.inputSelector.currentNode().SetName("<i>A & B</i>")
        driver.score()
        assert "&lt;i&gt;A &amp; B&lt;/i&gt;" in driver.ui.headLabel.text


@pytest.mark.long
class TestAddedScene:
    def test_its_result_is_shown(self, driver, tmp_path):
        """Add a saved scene to an open one, as *Add Data* does without *Clear existing scene*."""
        driver.score(networks=True)
        assert slicer.util.saveScene(str(tmp_path / "scene.mrb"))
        slicer.mrmlScene.Clear()
        volume = mrml.add_volume(slicer.mrmlScene, panel_results.chest_image(), "open")
        driver.ui.inputSelector.setCurrentNode(volume)
        driver.score()
        assert slicer.util.loadNodeFromFile(str(tmp_path / "scene.mrb"), "SceneFile", {"clear": False}) is not False
        driver.settle()
        nodes = driver.review.nodes
        is_all_of(driver, nodes)
        assert len(driver.lesions()) == 3
        assert nodes.volume.GetName() == "chest"
        assert driver.ui.statusLabel.text == "", "nothing of the scan before"

    def test_a_record_that_becomes_readable_is_shown(self, driver):
        driver.score()
        record = driver.review.nodes.record
        text = record.GetText()
        driver.state.result = None
        record.SetText("")
        driver.state.result = record
        assert driver.review is None
        record.SetText(text)
        driver.state.fade = 0.5
        assert driver.review is not None


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
    driver.state.cohortSource = "/data/scans"
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
    assert driver.ui.cohortSourceBox.currentPath == "/data/scans"
    assert driver.scores() == scores
    assert driver.review.slices_off == (13,)
    # Editing goes on after reopening.
    driver.ui.reviewMethodBox.setCurrentIndex(0)
    driver.assign("5–6", "RCA")
    assert driver.scores()["RCA"][0] == "324.0"
