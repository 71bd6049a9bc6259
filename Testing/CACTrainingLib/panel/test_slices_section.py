"""Slice labels: keys, next slices, saving, and inactive keys."""

import pytest
import slicer

from CACTrainingLib.panel.labelling import Labelling
from CACTrainingLib.project import annotation_files
from CACTrainingLib.project.annotation_files import SliceLabel
from CACTrainingLib.project.annotations import slice_annotations
from desktop_host import events

VISIBLE, NOT_VISIBLE, UNSURE = SliceLabel.VISIBLE, SliceLabel.NOT_VISIBLE, SliceLabel.UNSURE
FIRST = 1
"""Lowest slice of the heart in the test's scans."""


def saved(driver) -> dict[int, SliceLabel]:
    """Labels on the disk."""
    return slice_annotations(driver.project, driver.opened.scan.id, "AB").labels


def current(driver) -> int:
    return driver.widget.annotate.slices.current


class Clock:
    now = 100.0

    def __call__(self):
        return self.now


class TestLabelling:
    @pytest.fixture
    def clock(self):
        return Clock()

    @pytest.fixture
    def labelling(self, project, clock):
        return Labelling(slice_annotations(project, "0001", "AB"), [3, 1, 2, 5], clock)

    def test_goes_upwards_and_then_from_the_feet(self, labelling):
        assert labelling.first() == 1
        assert labelling.label(3, VISIBLE) == 5
        assert labelling.label(5, UNSURE) == 1
        assert labelling.label(1, VISIBLE) == 2
        assert labelling.label(2, VISIBLE) is None
        assert labelling.isComplete

    def test_time_is_that_of_looking(self, labelling, clock, project):
        labelling.show(1)
        labelling.resume()
        clock.now += 2
        labelling.pause()
        clock.now += 100
        labelling.resume()
        clock.now += 1.5
        labelling.label(1, VISIBLE)
        labelling.show(2)
        clock.now += 4
        labelling.label(2, VISIBLE)
        assert slice_annotations(project, "0001", "AB").seconds == {1: 3.5, 2: 4.0}


class TestKeys:
    def test_a_key_labels_and_goes_on(self, annotating):
        labels = (VISIBLE, NOT_VISIBLE, UNSURE) * 2
        for k, (key, label) in enumerate(zip("VNU123", labels, strict=True), FIRST):
            assert current(annotating) == k
            annotating.key(key)
            assert saved(annotating)[k] == label
        row, *_ = annotating.rows(annotating.ui.workTable)
        assert (row["State"], row["Slices"], row["Unsure"]) == ("begun", "6 / 8", "2")

    def test_undo_shows_the_slice(self, annotating):
        annotating.keys("VN")
        annotating.key("Backspace")
        assert saved(annotating) == {1: VISIBLE}
        assert current(annotating) == 2
        annotating.keys(["Ctrl+Z", "Ctrl+Y", "Ctrl+Y", "Ctrl+Y"])
        assert saved(annotating) == {1: VISIBLE, 2: NOT_VISIBLE}
        annotating.keys(["Ctrl+Z", "U", "Ctrl+Y"])
        assert saved(annotating) == {1: VISIBLE, 2: UNSURE}

    @pytest.mark.main_window
    def test_a_slice_reached_with_the_mouse_is_labelled(self, annotating):
        annotating.view.mrmlSliceNode().JumpSliceByOffsetting(0, 0, 18.0)
        slicer.app.processEvents()
        annotating.key("V")
        assert saved(annotating) == {6: VISIBLE}
        assert current(annotating) == 7
        assert annotating.view.mrmlSliceNode().GetSliceOffset() == pytest.approx(3.0 * 7)

    @pytest.mark.main_window
    def test_no_slice_is_labelled_while_another_scan_is_in_the_view(self, annotating):
        annotating.key(".")
        k, composite = current(annotating), slicer.app.layoutManager().sliceWidget("Red").mrmlSliceCompositeNode()
        other = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "Other")
        composite.SetBackgroundVolumeID(other.GetID())
        annotating.key("V")
        assert (saved(annotating), current(annotating)) == ({}, k)
        assert composite.GetBackgroundVolumeID() == annotating.opened.volume.GetID()
        annotating.key("V")
        assert saved(annotating) == {k: VISIBLE}
        composite.SetBackgroundVolumeID(other.GetID())
        annotating.widget.exit()
        annotating.widget.enter()
        assert composite.GetBackgroundVolumeID() == annotating.opened.volume.GetID()

    def test_complete(self, annotating):
        annotating.label_all(lambda k: "V" if k in (3, 4) else "N")
        assert annotating.rows(annotating.ui.workTable)[0]["State"] == "done"
        # Labels can still be changed.
        annotating.key("U")
        assert saved(annotating)[current(annotating)] == UNSURE

    def test_not_while_typing_or_on_another_page(self, annotating):
        annotating.tab("train")
        annotating.key("V")
        assert not saved(annotating)
        edit = annotating.ui.annotatorEdit
        annotating.tab("project")
        edit.setFocus()
        for key in ("V", "1", "Backspace"):
            events.key(edit, key)
        assert edit.text == "ABv"
        assert not saved(annotating)


class TestSaving:
    def test_a_full_disk_is_reported_and_the_slice_stays(self, annotating, monkeypatch):
        def full(self, line):
            raise OSError(28, "No space left on device")

        with monkeypatch.context() as patched:
            patched.setattr(annotation_files.SliceAnnotations, "_write", full)
            annotating.key("V")
        assert "No space left" in annotating.ui.slicesStatusLabel.text
        assert current(annotating) == FIRST
        assert not saved(annotating)
        annotating.key("V")
        assert saved(annotating) == {FIRST: VISIBLE}
        assert annotating.ui.slicesStatusLabel.text == ""
        monkeypatch.setattr(annotation_files.SliceAnnotations, "_write", full)
        annotating.key("Backspace")
        assert annotating.opened.annotations.labels == {FIRST: VISIBLE}, "an undo that is not saved changes nothing"

    def test_a_redo_that_is_not_saved_leaves_the_slice_and_can_be_repeated(self, annotating, monkeypatch):
        def full(self, line):
            raise OSError(28, "No space left on device")

        annotating.key("V")
        annotating.key("Ctrl+Z")
        annotating.key(".")
        k = current(annotating)
        with monkeypatch.context() as patched:
            patched.setattr(annotation_files.SliceAnnotations, "_write", full)
            annotating.key("Ctrl+Y")
        assert (current(annotating), saved(annotating)) == (k, {})
        annotating.key("Ctrl+Y")
        assert saved(annotating) == {FIRST: VISIBLE}


class TestPlot:
    def test_suggestions_are_hidden_until_asked_for(self, annotating):
        plot = annotating.widget.annotate.slices.plot
        assert set(plot._slices.values()) == {None}
        assert "suggestion" not in annotating.ui.sliceLabel.text
        annotating.key("C")
        assert saved(annotating) == {}
        annotating.ui.suggestionBox.click()
        assert plot._slices[3] == 0.3
        assert "10%" in annotating.ui.sliceLabel.text
        for _ in range(2):
            annotating.key("C")
            assert saved(annotating) == {FIRST: NOT_VISIBLE}, "the only one of 10 % or less"
        assert annotating.opened.annotations.seconds == {}, "nobody looked at it"
        assert current(annotating) == FIRST + 1

    def test_suggestions_confirmed_at_once_are_a_single_step(self, annotating):
        annotating.ui.suggestionBox.click()
        annotating.key("N")
        proposal = annotating.opened.proposal
        for k in (4, 5, 6):
            proposal.probabilities[k] = 0.98
        annotating.key("C")
        confirmed = {FIRST: NOT_VISIBLE, 4: VISIBLE, 5: VISIBLE, 6: VISIBLE}
        assert saved(annotating) == confirmed
        annotating.key("Ctrl+Z")
        assert saved(annotating) == {FIRST: NOT_VISIBLE}
        assert current(annotating) == 4
        annotating.key("Ctrl+Y")
        assert saved(annotating) == confirmed
        annotating.keys(["Ctrl+Z", "Ctrl+Z"])
        assert saved(annotating) == {}

    def test_a_click_goes_to_the_slice(self, annotating):
        annotating.widget.annotate.slices.plot.chosen.emit(5)
        assert current(annotating) == 5
