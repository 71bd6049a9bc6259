"""Tests that opening every page of a panel finds errors wherever they occur."""

import pytest
import slicer

import desktop_host
from CACScoringLib.panel import self_test


@pytest.fixture(params=[True, False], ids=["main window", "no main window"])
def main_window(request):
    return request.param


@pytest.fixture
def breaks(monkeypatch):
    """Function that makes a method raise. The desktop host, like Slicer, only prints the exception."""

    def die(*_arguments):
        raise AttributeError("no such thing")

    yield lambda kind, name: monkeypatch.setattr(kind, name, die)
    desktop_host.errors.forget()


class TestDeadPages:
    def test_the_panel_is_left_unchanged(self, panel, open_panel, main_window):
        ui = open_panel().ui
        ui.pages.setCurrentIndex(1)
        sections = [widget for widget in slicer.util.findChildren(ui.pages) if hasattr(widget, "collapsed")]
        collapsed = [section.collapsed for section in sections]
        assert self_test.deadPages("CACScoring") == []
        assert ui.pages.currentIndex == 1
        assert [section.collapsed for section in sections] == collapsed
        assert {True, False} == set(collapsed)
        assert slicer.modules.cacscoring.widgetRepresentation().isEntered
        assert not main_window or slicer.util.selectedModule() == "CACScoring"

    def test_a_section_that_dies_on_opening(self, panel, breaks):
        from CACScoringLib.panel import editor

        breaks(editor.LesionEditor, "make")
        lines = self_test.deadPages("CACScoring")
        assert lines == ["CACScoring, page One scan: AttributeError: no such thing"]
