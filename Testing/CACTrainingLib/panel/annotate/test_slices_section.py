"""Slice labels: keys, what comes next, what is saved, and when keys mean nothing."""

import json

import pytest
import slicer

from CACTrainingLib.panel.annotate.labelling import Labelling
from CACTrainingLib.project import annotations
from CACTrainingLib.project.annotations import AnnotationError, SliceLabel, slice_annotations
from desktop_host import events

VISIBLE, NOT_VISIBLE, UNSURE = SliceLabel.VISIBLE, SliceLabel.NOT_VISIBLE, SliceLabel.UNSURE
FIRST, LAST = 1, 8
"""Slices of the heart in the test's scans."""


def saved(driver) -> dict[int, SliceLabel]:
    """The labels as another program finds them."""
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

    def test_begins_where_it_was_left(self, labelling, project):
        labelling.label(1, VISIBLE)
        assert Labelling(slice_annotations(project, "0001", "AB"), [1, 2, 3]).first() == 2

    def test_a_slice_outside_the_heart_counts_for_nothing(self, labelling):
        labelling.label(9, VISIBLE)
        assert labelling.done == 0
        assert labelling.labels == {9: VISIBLE}

    def test_neighbours_are_of_the_heart(self, labelling):
        assert labelling.neighbour(3, 1) == 5
        assert labelling.neighbour(3, -1) == 2
        assert labelling.neighbour(5, 1) is None
        assert labelling.neighbour(9, -1) == 5

    def test_time_is_that_of_looking(self, labelling, clock, project):
        labelling.show(1)
        labelling.goOn()
        clock.now += 2
        labelling.pause()
        clock.now += 100
        labelling.goOn()
        clock.now += 1.5
        labelling.label(1, VISIBLE)
        labelling.show(2)
        clock.now += 4
        labelling.label(2, VISIBLE)
        assert slice_annotations(project, "0001", "AB").seconds == {1: 3.5, 2: 4.0}

    def test_time_of_a_label_that_is_changed_is_counted_anew(self, labelling, clock):
        labelling.show(1)
        labelling.goOn()
        clock.now += 2
        labelling.label(1, VISIBLE)
        clock.now += 3
        assert labelling.seconds == 3

    def test_nothing_to_take_back(self, labelling):
        assert labelling.undo() is None


class TestKeys:
    @pytest.mark.parametrize(
        ("key", "label"),
        [("V", VISIBLE), ("1", VISIBLE), ("N", NOT_VISIBLE), ("2", NOT_VISIBLE), ("U", UNSURE), ("3", UNSURE)],
    )
    def test_a_key_labels_and_goes_on(self, annotating, key, label):
        assert current(annotating) == FIRST
        annotating.key(key)
        assert saved(annotating) == {FIRST: label}
        assert current(annotating) == FIRST + 1
        assert annotating.view.mrmlSliceNode().GetSliceOffset() == pytest.approx(3.0 * (FIRST + 1))
        assert annotating.ui.sliceCountLabel.text == "1 of 8"
        row, *_ = annotating.rows(annotating.ui.workTable)
        assert (row["State"], row["Slices"], row["Unsure"]) == ("begun", "1 / 8", "1" if label is UNSURE else "")

    def test_buttons_do_the_same(self, annotating):
        for button in (annotating.ui.visibleButton, annotating.ui.notVisibleButton, annotating.ui.unsureButton):
            button.click()
        assert saved(annotating) == {1: VISIBLE, 2: NOT_VISIBLE, 3: UNSURE}
        annotating.ui.undoSliceButton.click()
        assert saved(annotating) == {1: VISIBLE, 2: NOT_VISIBLE}

    @pytest.mark.parametrize("key", ["Backspace", "Ctrl+Z"])
    def test_undo_shows_the_slice(self, annotating, key):
        annotating.keys("VN")
        annotating.key(key)
        assert saved(annotating) == {1: VISIBLE}
        assert current(annotating) == 2
        annotating.keys(["Ctrl+Z", "Ctrl+Y", "Ctrl+Y", "Ctrl+Y"])
        assert saved(annotating) == {1: VISIBLE, 2: NOT_VISIBLE}
        annotating.keys(["Ctrl+Z", "U", "Ctrl+Y"])
        assert saved(annotating) == {1: VISIBLE, 2: UNSURE}

    @pytest.mark.parametrize(("up", "down"), [("Up", "Down"), (".", ",")])
    def test_moving_labels_nothing(self, annotating, up, down):
        annotating.key(up)
        annotating.key(up)
        annotating.key(down)
        assert current(annotating) == 2
        assert not saved(annotating)

    def test_a_slice_reached_with_the_mouse_is_labelled(self, annotating):
        annotating.view.mrmlSliceNode().JumpSliceByOffsetting(0, 0, 18.0)
        slicer.app.processEvents()
        assert "Slice 6" in annotating.ui.sliceLabel.text
        annotating.key("V")
        assert saved(annotating) == {6: VISIBLE}
        assert current(annotating) == 7

    def test_complete(self, annotating):
        presses = annotating.label_all(lambda k: "V" if k in (3, 4) else "N")
        assert presses == 8
        assert "All slices" in annotating.ui.slicesStatusLabel.text
        assert annotating.rows(annotating.ui.workTable)[0]["State"] == "done"
        # What was said can still be changed.
        annotating.key("U")
        assert saved(annotating)[current(annotating)] == UNSURE

    def test_not_while_typing(self, annotating):
        edit = annotating.ui.annotatorEdit
        annotating.tab("project")
        edit.setFocus()
        for key in ("V", "1", "Backspace"):
            events.key(edit, key)
        assert edit.text == "ABv"
        assert not saved(annotating)

    def test_not_on_another_page(self, annotating):
        annotating.tab("train")
        annotating.key("V")
        assert not saved(annotating)
        annotating.tab("annotate")
        annotating.key("V")
        assert saved(annotating) == {1: VISIBLE}

    def test_not_in_another_task(self, annotating):
        annotating.task("heart")
        annotating.key("V")
        assert not saved(annotating)

    def test_not_in_another_module(self, annotating):
        slicer.util.selectModule("CACScoring")
        annotating.key("V")
        assert not saved(annotating)
        slicer.util.selectModule("CACTraining")
        annotating.key("V")
        assert saved(annotating) == {1: VISIBLE}

    def test_not_without_a_scan(self, driver):
        driver.tab("annotate")
        driver.key("V")
        assert "Open a scan" in driver.ui.sliceLabel.text


class TestSaving:
    def test_each_press_is_a_line_with_its_time(self, annotating):
        annotating.keys("VN")
        file = annotating.project.scan_folder("0001") / "annotators" / "AB" / annotations.SLICES_FILE
        lines = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
        assert [(line["k"], line["label"]) for line in lines] == [(1, "visible"), (2, "not visible")]
        assert all(line["seconds"] >= 0 for line in lines)

    def test_a_full_disk_is_told_and_the_slice_stays(self, annotating, monkeypatch):
        def full(self, line):
            raise OSError(28, "No space left on device")

        with monkeypatch.context() as patched:
            patched.setattr(annotations.SliceAnnotations, "_write", full)
            annotating.key("V")
        assert "No space left" in annotating.ui.slicesStatusLabel.text
        assert current(annotating) == FIRST
        assert not saved(annotating)
        annotating.key("V")
        assert saved(annotating) == {FIRST: VISIBLE}
        assert annotating.ui.slicesStatusLabel.text == ""

    def test_a_label_that_was_torn_is_told(self, annotating):
        annotating.keys("VN")
        file = annotating.project.scan_folder("0001") / "annotators" / "AB" / annotations.SLICES_FILE
        file.write_bytes(file.read_bytes()[:-5])
        annotating.open_scan(0)
        assert "not saved whole" in annotating.ui.slicesStatusLabel.text
        assert current(annotating) == 2
        annotating.key("N")
        assert saved(annotating) == {1: VISIBLE, 2: NOT_VISIBLE}

    def test_an_undo_that_is_not_saved_changes_nothing(self, annotating, monkeypatch):
        annotating.key("V")

        def full(self, line):
            raise AnnotationError("No space.")

        monkeypatch.setattr(annotations.SliceAnnotations, "_write", full)
        annotating.key("Backspace")
        assert "No space." in annotating.ui.slicesStatusLabel.text
        assert annotating.opened.annotations.labels == {FIRST: VISIBLE}


class TestPlot:
    def test_marks_have_the_labels_colours(self, annotating):
        from CACTrainingLib.panel.annotate.slices_section import COLOURS

        annotating.keys("VNU")
        marks = {k: row.colours for k, row in annotating.widget.annotate.slices.plot._slices.items()}
        assert marks[1] == (COLOURS["VISIBLE"],)
        assert marks[2] == (COLOURS["NOT_VISIBLE"],)
        assert marks[3] == (COLOURS["UNSURE"],)
        assert marks[4] == ()

    def test_suggestions_are_hidden_until_asked_for(self, annotating):
        plot = annotating.widget.annotate.slices.plot
        assert all(row.probability is None for row in plot._slices.values())
        assert "suggestion" not in annotating.ui.sliceLabel.text
        annotating.ui.suggestionBox.click()
        assert plot._slices[3].probability == 0.3
        assert "10%" in annotating.ui.sliceLabel.text

    def test_a_click_goes_to_the_slice(self, annotating):
        annotating.widget.annotate.slices.plot.chosen.emit(5)
        assert current(annotating) == 5


class TestWithoutViews:
    @pytest.fixture
    def main_window(self):
        return False

    def test_slices_are_labelled_with_keys(self, annotating):
        annotating.keys("VN")
        assert saved(annotating) == {1: VISIBLE, 2: NOT_VISIBLE}
