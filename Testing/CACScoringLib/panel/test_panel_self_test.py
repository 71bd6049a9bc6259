"""Opening every page of a panel: that it finds dead ones, wherever they died."""

import pytest
import slicer

import desktop_host
from CACScoringLib.panel import panel_self_test


@pytest.fixture(params=[True, False], ids=["main window", "no main window"])
def main_window(request):
    return request.param


@pytest.fixture
def dies(monkeypatch):
    """Lets a function of a class raise. Slicer would print that, and so does the stand-in."""

    def die(*_arguments):
        raise AttributeError("no such thing")

    yield lambda kind, name: monkeypatch.setattr(kind, name, die)
    # What was raised on purpose does not end the test.
    desktop_host.errors.forget()


class TestDeadPages:
    def test_the_panel_is_left_as_it_was(self, panel, open_panel, main_window):
        ui = open_panel().ui
        ui.pages.setCurrentIndex(1)
        sections = [each for each in slicer.util.findChildren(ui.pages) if hasattr(each, "collapsed")]
        collapsed = [each.collapsed for each in sections]
        assert panel_self_test.deadPages("CACScoring") == []
        assert ui.pages.currentIndex == 1
        assert [each.collapsed for each in sections] == collapsed
        assert {True, False} == set(collapsed)
        assert slicer.modules.cacscoring.widgetRepresentation().isEntered
        assert not main_window or slicer.util.selectedModule() == "CACScoring"

    def test_a_panel_whose_setup_ends_early(self, panel, dies):
        dies(panel.RadiographSection, "__init__")
        lines = panel_self_test.deadPages("CACScoring")
        assert lines[0] == "CACScoring: AttributeError: no such thing"

    def test_a_section_that_dies_when_it_is_opened(self, panel, dies):
        from CACScoringLib.panel import editor

        dies(editor, "LesionEditor")
        lines = panel_self_test.deadPages("CACScoring")
        assert lines == ["CACScoring, page One scan: AttributeError: no such thing"]

    # PySide6 loses what is raised where a parent that is not shown has its children painted.
