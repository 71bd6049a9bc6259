"""Lesion regions and hearts in Slicer's segment editor: initial mask, saving, and grid."""

import numpy as np
import pytest
import SimpleITK as sitk
import slicer

from CACScoringLib.core.ct import same_grid
from CACScoringLib.core.errors import ProjectWriteError
from CACScoringLib.core.labels import Artery, site_called
from CACTrainingLib.project import annotations
from CACTrainingLib.project.annotations import read_annotated_mask
from desktop_host import events

LESION = (3, 16, 32)
"""A voxel k, j, i of the calcium in the first scan."""


@pytest.fixture
def effect():
    return True


@pytest.fixture
def just_painted(annotating):
    """The panel after a stroke in the LAD that is not saved yet."""
    annotating.task("regions")
    section = annotating.widget.annotate.regions
    section.editor.setActiveEffectByName("CAC Region")
    brush = section.editor.activeEffect().self()
    brush.chooseArtery(Artery.LAD)
    brush.paint(brush.brushAt(annotating.ras(LESION), annotating.ras(LESION)))
    assert saved(annotating, "regions") is None
    return annotating


def saved(driver, kind: str):
    """The mask on the disk as [k, j, i]; None without one."""
    image = read_annotated_mask(driver.project, driver.opened.scan.id, "AB", kind)
    return None if image is None else sitk.GetArrayFromImage(image)


def erase(driver, kind: str) -> None:
    """Empty the first segment, as Slicer's effects do."""
    segmentation = getattr(driver.widget.annotate, kind).segmentation.GetSegmentation()
    segmentation.ClearSegment(segmentation.GetNthSegmentID(0))
    segmentation.Modified()
    segmentation.InvokeEvent(slicer.vtkSegmentation.SourceRepresentationModified)


class TestRegions:
    def test_a_stroke_is_saved_on_the_scans_grid(self, annotating):
        for artery in ("LM", "LAD", "LCX", "RCA", "other"):
            assert annotating.paint(artery, LESION) > 0
            values = saved(annotating, "regions")
            assert set(np.unique(values)) == {0, int(site_called(artery))}
            assert values[LESION] == int(site_called(artery))
        image = read_annotated_mask(annotating.project, "0001", "AB", "regions")
        assert same_grid(image, sitk.ReadImage(str(annotating.opened.scan.ct)))

    @pytest.mark.long
    def test_a_mask_is_there_when_the_scan_is_opened_again(self, annotating):
        annotating.paint("LAD", LESION)
        annotating.paint("RCA", (6, 24, 20))
        before = saved(annotating, "regions")
        annotating.open_scan(1)
        assert annotating.opened.scan.id == "0002"
        annotating.open_scan(0)
        section = annotating.widget.annotate.regions
        np.testing.assert_array_equal(sitk.GetArrayFromImage(section._image(section._painted())), before)

    @pytest.mark.long
    def test_undo_is_saved_too(self, annotating):
        annotating.paint("LAD", LESION)
        before = saved(annotating, "regions")
        annotating.paint("LAD", (6, 24, 20))
        painted = saved(annotating, "regions")
        for key, expected in (("Ctrl+Z", before), ("Ctrl+Y", painted)):
            annotating.key(key)
            annotating.settle()
            np.testing.assert_array_equal(saved(annotating, "regions"), expected)

    def test_a_new_stroke_is_saved_on_leaving(self, just_painted):
        just_painted.tab("train")
        assert saved(just_painted, "regions")[LESION] == int(Artery.LAD)

    def test_a_scan_can_be_marked_as_free_of_lesions(self, annotating):
        annotating.task("regions")
        annotating.ui.regionsAcceptButton.click()
        assert not saved(annotating, "regions").any()
        assert annotating.rows(annotating.ui.workTable)[0]["Regions"] == "yes"

    def test_a_full_disk_keeps_the_scan_open(self, annotating, monkeypatch):
        annotating.task("regions")

        def full(*_args):
            raise ProjectWriteError("There is no space left.")

        with monkeypatch.context() as patched:
            patched.setattr(annotations, "write_mask", full)
            annotating.paint("LAD", LESION)
            assert "no space left" in annotating.ui.regionsStatusLabel.text
            annotating.open_scan(1)
            assert annotating.opened.scan.id == "0001"
            assert "stays open" in annotating.ui.workStatusLabel.text
        annotating.open_scan(1)
        assert annotating.opened.scan.id == "0002"
        assert read_annotated_mask(annotating.project, "0001", "AB", "regions") is not None


class TestHeart:
    def test_accepting_saves_the_proposal(self, annotating):
        annotating.task("heart")
        annotating.settle()
        assert saved(annotating, "heart") is None
        assert "Proposal (territories-compact)" in annotating.ui.heartLabel.text
        annotating.ui.heartAcceptButton.click()
        proposed = sitk.GetArrayFromImage(sitk.ReadImage(str(annotating.opened.proposal.heart_file)))
        np.testing.assert_array_equal(saved(annotating, "heart"), proposed)
        assert annotating.rows(annotating.ui.workTable)[0]["Heart"] == "yes"

    def test_a_change_is_saved(self, annotating):
        annotating.task("heart")
        erase(annotating, "heart")
        annotating.settle()
        assert not saved(annotating, "heart").any()


def test_closing_the_scene_saves_first(just_painted):
    project = just_painted.project
    slicer.mrmlScene.Clear()
    events.process_events()
    assert just_painted.opened is None
    assert sitk.GetArrayFromImage(read_annotated_mask(project, "0001", "AB", "regions"))[LESION] == int(Artery.LAD)
