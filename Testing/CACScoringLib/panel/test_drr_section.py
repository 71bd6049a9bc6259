"""Tests of the section that makes a radiograph of the CT, with the worker's job run in this process."""

import numpy as np
import pytest
import slicer
from panel_driver import InThisProcess, eventually
from vtk.util.numpy_support import vtk_to_numpy

from CACScoringLib.mrml.radiograph_nodes import CT_ROLE, OUTLINE_ROLE, OVERLAY_ROLE

DRR_PAGE = 2


def models() -> list[str]:
    nodes = slicer.util.getNodesByClass("vtkMRMLModelNode")
    return sorted(node.GetName() for node in nodes if "Radiograph" in node.GetName())


def pictures() -> list[str]:
    nodes = slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode")
    return [node.GetName() for node in nodes if node.GetAttribute("CACRadiograph")]


@pytest.fixture
def page(driver):
    """The driver with the page of radiographs in sight."""
    driver.drr = driver.widget.drr
    driver.worker = driver.drr.job.process = InThisProcess(waits=True)
    driver.ui.drrPixelsBox.setValue(64)
    driver.ui.pages.setCurrentIndex(DRR_PAGE)
    wait_for_picture(driver)
    return driver


def wait_for_picture(page) -> None:
    assert eventually(lambda: slicer.app.processEvents() or page.drr._drawnKey == page.drr._pictureKey())


def begin(page) -> None:
    """Press the button that makes a radiograph, and wait for the worker."""
    page.worker.arguments = None
    page.ui.drrRunButton.click()
    assert eventually(lambda: slicer.app.processEvents() or page.worker.arguments is not None)


def finish(page) -> None:
    """Let the worker make the radiograph, and wait for it in the scene."""
    page.worker.run()
    assert eventually(lambda: slicer.app.processEvents() or not page.drr.job.isRunning)


def detector_picture(page) -> np.ndarray:
    """Return the picture on the 3-D view's detector, [row, column, channel]."""
    data = page.drr._stand._texture.GetOutputDataObject(0)
    columns, rows, _ = data.GetDimensions()
    return vtk_to_numpy(data.GetPointData().GetScalars()).reshape(rows, columns, 3)[::-1]


class TestPreview:
    def test_appears_and_goes_with_the_page(self, page):
        assert not page.ui.drrPreviewLabel.pixmap.isNull()
        assert models() == ["Radiograph beam", "Radiograph body", "Radiograph detector"]
        page.ui.pages.setCurrentIndex(0)
        assert models() == []
        page.ui.pages.setCurrentIndex(DRR_PAGE)
        wait_for_picture(page)
        assert len(models()) == 3
        page.ui.drrButton.collapsed = True
        assert models() == []

    def test_follows_the_slider(self, page):
        before, detector = detector_picture(page).copy(), slicer.util.getNode("Radiograph detector")
        assert np.allclose(detector.GetPolyData().GetCenter()[1] - page.drr._scan.isocentre_mm[1] * -1, 200)
        page.ui.drrAngleDegreesBox.setValue(90)
        wait_for_picture(page)
        assert detector_picture(page).shape != before.shape or (detector_picture(page) != before).any()
        assert np.allclose(detector.GetPolyData().GetCenter()[0] - page.drr._scan.isocentre_mm[0] * -1, -200)

    def test_a_ct_under_a_transform_and_a_closed_scene_have_none(self, page, volume):
        transform = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
        volume.SetAndObserveTransformNodeID(transform.GetID())
        assert "lies under a transform" in page.ui.drrVolumeLabel.text
        assert not page.ui.drrRunButton.enabled
        assert models() == []
        volume.SetAndObserveTransformNodeID(None)
        assert page.ui.drrRunButton.enabled
        wait_for_picture(page)
        slicer.mrmlScene.Clear()
        assert models() == []
        assert page.drr._scan is None
        assert not page.ui.drrRunButton.enabled


class TestRadiograph:
    @pytest.mark.long
    def test_is_made_from_the_ct(self, page, volume):
        begin(page)
        finish(page)
        assert pictures() == ["chest PA radiograph"]
        node = slicer.util.getNode("chest PA radiograph")
        assert node.GetImageData().GetDimensions() == (64, 64, 1)
        assert node.GetSpacing()[:2] == pytest.approx((430 / 64, 430 / 64))
        assert node.GetNodeReference(CT_ROLE) is volume
        assert page.state.radiographVolume is node
        assert page.state.radiographSource.name == "VOLUME"

    @pytest.mark.long
    def test_calcium_and_heart_of_a_result(self, page):
        page.ui.pages.setCurrentIndex(0)
        page.score(networks=True)
        page.ui.pages.setCurrentIndex(DRR_PAGE)
        wait_for_picture(page)
        assert page.ui.drrCalciumBox.enabled
        page.ui.drrOpacitySlider.setValue(1)
        wait_for_picture(page)
        assert (detector_picture(page)[..., 0].astype(int) - detector_picture(page)[..., 2] > 50).any()
        begin(page)
        finish(page)
        node = slicer.util.getNode("chest PA radiograph")
        calcium, heart = node.GetNodeReference(OVERLAY_ROLE), node.GetNodeReference(OUTLINE_ROLE)
        values = slicer.util.arrayFromVolume(calcium)[0]
        assert values.max() > 0.01
        # Calcium lies within the heart's shadow.
        assert slicer.util.arrayFromVolume(heart)[0][values > 0.01].all()
        page.ui.drrCalciumBox.click()
        page.ui.drrHeartBox.click()
        begin(page)
        finish(page)
        assert page.state.radiographVolume.GetNodeReference(OVERLAY_ROLE) is None
        assert page.state.radiographVolume.GetNodeReference(OUTLINE_ROLE) is None


@pytest.mark.main_window
class TestViews:
    @pytest.mark.long
    def test_the_radiograph_is_shown_upright(self, page):
        page.ui.drrViewBox.setCurrentIndex(1)
        begin(page)
        finish(page)
        widget = slicer.app.layoutManager().sliceWidget("CACRadiograph")
        assert widget.mrmlSliceCompositeNode().GetBackgroundVolumeID() == page.state.radiographVolume.GetID()
        matrix = widget.mrmlSliceNode().GetSliceToRAS()
        columns = [[round(matrix.GetElement(row, n), 6) for row in range(3)] for n in range(2)]
        assert columns == [[0, -1, 0], [0, 0, 1]]  # the back is on the right, the head is up
