"""Computation of a calcium map from the effect CAC Decompose."""

import pytest
import SimpleITK as sitk
import slicer
from panel_driver import ScriptedProcess, eventually, line

from CACScoringLib.mrml import lesion_segments
from CACScoringLib.mrml import scene as mrml


@pytest.fixture
def segmentation(volume):
    """A user's own segmentation on a CT that nobody has scored."""
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "Drawn")
    node.CreateDefaultDisplayNodes()
    node.SetReferenceImageGeometryParameterFromVolumeNode(volume)
    lesion_segments.add_lesion_segment(node, 2)
    return node


@pytest.fixture
def run(panel, segmentation, volume):
    from CACScoringLib.panel.effects.map_run import MapRun

    changes = []
    run = MapRun(lambda: changes.append(True))
    run.changes, run.process = changes, ScriptedProcess()
    run.scorer.job.process = run.process
    run.show(segmentation, volume)
    yield run
    run.close()


def start(run):
    run.process.arguments = None
    run.button.click()
    assert eventually(lambda: slicer.app.processEvents() or run.process.arguments is not None)


def finish(run):
    run.process.write_result(networks=True)
    run.process.end(0)
    assert eventually(lambda: slicer.app.processEvents() or not run.scorer.isRunning)


class TestMapRun:
    def test_a_ct_that_nobody_scored_gets_a_map(self, run, segmentation, volume):
        assert run.button.text == "Compute the map"
        assert not any(link.enabled for link in run.links)
        start(run)
        assert "--model" not in run.process.arguments
        run.process.say(line(event="step", step="heart", index=0, count=4))
        assert run._label.text == "Step 1 of 4: heart …"
        finish(run)
        calcium_map = segmentation.GetNodeReference(mrml.CALCIUM_MAP_ROLE)
        assert calcium_map.GetName().startswith("Calcium map of chest")
        heart = segmentation.GetNodeReference(mrml.HEART_ROLE)
        assert (run.changes, run.button.text) == ([True], "Compute the map again")
        (record,) = mrml.records_in(slicer.mrmlScene)
        assert not mrml.nodes_of_record(slicer.mrmlScene, record).calcium.GetDisplayVisibility()
        before = heart.GetDisplayVisibility()
        run.links[0].click()
        assert heart.GetDisplayVisibility() != before

    def test_another_model_computes_another_map(self, run, segmentation, volume):
        start(run)
        finish(run)
        first = segmentation.GetNodeReferenceID(mrml.CALCIUM_MAP_ROLE)
        run.show(segmentation, volume)
        names = [run.box.itemData(n) for n in range(run.box.count)]
        run.box.setCurrentIndex(names.index("map-labels"))
        start(run)
        assert run.process.option("--model") == ["map-labels"]
        finish(run)
        assert segmentation.GetNodeReferenceID(mrml.CALCIUM_MAP_ROLE) != first

    def test_a_cancelled_run_changes_nothing(self, run, segmentation, volume):
        start(run)
        assert run.button.text == "Cancel"
        assert not run.box.enabled
        run.button.click()
        assert run.process.killed
        assert segmentation.GetNodeReference(mrml.CALCIUM_MAP_ROLE) is None
        assert (run.button.text, run.box.enabled) == ("Compute the map", True)
        assert mrml.records_in(slicer.mrmlScene) == []

    @pytest.mark.main_window
    def test_the_result_opens_in_the_panel(self, run, open_panel, segmentation, volume):
        start(run)
        finish(run)
        driver = open_panel()
        for link, page in zip(run.links[1:], (driver.ui.scanPage, driver.ui.radiographTab), strict=True):
            driver.state.result = None
            link.click()
            driver.settle()
            assert driver.review.nodes.volume is volume
            assert driver.ui.pages.currentWidget() is page

    def test_without_a_ct_nothing_can_be_computed(self, run, segmentation):
        run.show(segmentation, None)
        assert not run.button.enabled
        run.show(None, None)
        assert not run.button.enabled
        derived = mrml.add_volume(slicer.mrmlScene, sitk.Image(8, 8, 8, sitk.sitkInt16), "no CT")
        run.show(segmentation, derived)
        assert not run.button.enabled
        assert "no CT" in run._label.text
