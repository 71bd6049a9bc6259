"""Tests of the module, its panel and its self test."""

import os
import unittest

import plain_slicer
import pytest
import SimpleITK as sitk
import slicer
import vtk
from effect_desk import EFFECTS, ROOT, load_effects
from panel_driver import PANEL_SIZE, beyond_the_panel

import desktop_host
from CACScoringLib.mrml import scene as mrml
from CACScoringLib.mrml.lesion_segments import TERMINOLOGY


def offered(selector) -> list[str]:
    return [selector.nodeFromIndex(n).GetName() for n in range(selector.nodeCount())]


class TestPanel:
    def test_module_describes_itself(self, panel):
        assert tuple(slicer.modules.cacscoring.categories) == ("Cardiac",)
        slicer.app.startupCompleted.emit()
        names = vtk.vtkStringArray()
        slicer.modules.terminologies.logic().GetLoadedTerminologyNames(names)
        assert TERMINOLOGY in [names.GetValue(n) for n in range(names.GetNumberOfValues())]

    def test_maps_and_healthy_images_are_not_offered(self, driver):
        driver.score(networks=True)
        assert slicer.mrmlScene.GetNumberOfNodesByClass("vtkMRMLScalarVolumeNode") == 3
        assert offered(driver.ui.inputSelector) == ["chest"]

    def test_nothing_lies_beyond_a_narrow_panel(self, driver, monkeypatch):
        load_effects(monkeypatch, [ROOT / "CACScoring" / name for name in EFFECTS.values()])
        driver.score(networks=True)
        cohort = {"event": "scan", "state": "done", "status": {"threshold": "automatic"}}
        cohort |= {"agatston": {"threshold": 1234.5, "decomposition": 4959.0}}
        driver.widget.cohort._show(cohort | {"index": 0, "name": "a name of a scan that is as long as a file's path"})
        for effect in EFFECTS:
            driver.ui.pages.setCurrentIndex(0)
            driver.ui.editorBox.collapsed = False
            slicer.app.processEvents()
            driver.widget.review._editor.widget.setActiveEffectByName(effect)
            assert beyond_the_panel(driver.widget) == [], effect
        table = driver.ui.cohortTable
        for column in range(1, table.columnCount):
            text = table.fontMetrics().horizontalAdvance(table.item(0, column).text())
            assert text < table.columnWidth(column), "of the scores nothing is cut off"

    def test_actions_of_each_page_are_in_sight_without_scrolling(self, driver):
        ui = driver.ui
        driver.widget.parent.show()
        for page, section, parts in (
            (1, ui.readingsButton, (ui.cohortRunButton, ui.openReadingButton, ui.tablesButton, ui.readingsLabel)),
            (2, ui.drrButton, (ui.drrRunButton, ui.drrLayoutButton, ui.drrStatusLabel)),
        ):
            ui.pages.setCurrentIndex(page)
            section.collapsed = False
            for _ in range(3):
                driver.widget.parent.resize(*PANEL_SIZE)
                slicer.app.processEvents()
            for part in parts:
                assert part.mapTo(driver.widget.parent, part.rect.bottomLeft()).y() < PANEL_SIZE[1], part.objectName

    def test_other_volumes_than_ct_cannot_be_scored(self, driver):
        picture = mrml.add_volume(slicer.mrmlScene, sitk.Image([8, 8, 8], sitk.sitkUInt8) + 3, "picture")
        driver.ui.inputSelector.setCurrentNode(picture)
        assert not driver.ui.scoreButton.enabled
        assert "not in HU" in driver.ui.scanWarningsLabel.text


@pytest.mark.skipif(os.name == "nt", reason="the launcher is a shell script")
@pytest.mark.usefixtures("slicers_python")
class TestSelfTest:
    """The module's self test, with the real command as its worker."""

    NAMES = ("test_everyPageOpens", "test_scoreSample")

    @pytest.mark.long
    @pytest.mark.parametrize("name", NAMES)
    def test_passes(self, panel, name):
        test = panel.CACScoringTest(name)
        test.setUp()
        getattr(test, name)()
        test.tearDown()

    @pytest.mark.usefixtures("plain")
    def test_a_plain_slicer_opens_pages_and_skips_scoring(self, panel, capsys):
        assert self.outcome(panel.CACScoringTest("test_everyPageOpens")) == ([], [])
        failures, skipped = self.outcome(panel.CACScoringTest("test_scoreSample"))
        assert (failures, skipped) == ([], ["Scoring needs jinja2, psutil, which this Slicer lacks."])
        panel.CACScoringTest().runTest()  # as by *Reload and Test*
        assert "Skipped: Scoring needs jinja2" in capsys.readouterr().out

    @pytest.fixture
    def plain(self, monkeypatch):
        plain_slicer.hide_other_packages(monkeypatch)

    def outcome(self, test) -> tuple[list[str], list[str]]:
        """Run a test as Slicer's harness does; return its failures and the reasons of what it skipped."""
        result = unittest.TestResult()
        test.run(result)
        return [text for _test, text in result.failures + result.errors], [text for _test, text in result.skipped]


class TestDeadPages:
    @pytest.fixture
    def breaks(self, monkeypatch):
        """Function that makes a method raise. The desktop host, like Slicer, only prints the exception."""

        def die(*_arguments):
            raise AttributeError("no such thing")

        yield lambda kind, name: monkeypatch.setattr(kind, name, die)
        desktop_host.errors.forget()

    def test_the_panel_is_left_unchanged(self, open_panel):
        from CACScoringLib.panel import lifecycle

        ui = open_panel().ui
        ui.pages.setCurrentIndex(1)
        sections = [widget for widget in slicer.util.findChildren(ui.pages) if hasattr(widget, "collapsed")]
        collapsed = [section.collapsed for section in sections]
        assert lifecycle.deadPages("CACScoring") == []
        assert ui.pages.currentIndex == 1
        assert [section.collapsed for section in sections] == collapsed
        assert {True, False} == set(collapsed)
        assert slicer.modules.cacscoring.widgetRepresentation().isEntered

    @pytest.mark.main_window
    def test_a_section_that_dies_on_opening(self, panel, breaks):
        from CACScoringLib.panel import editor, lifecycle

        before = slicer.util.selectedModule()
        breaks(editor.LesionEditor, "make")
        lines = lifecycle.deadPages("CACScoring")
        assert lines == ["CACScoring, page One scan: AttributeError: no such thing"]
        assert slicer.util.selectedModule() == before
