"""Tests of the section that scores a chest radiograph, with a result written by the test."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
import radiograph_files
import SimpleITK as sitk
import slicer
from panel_driver import ScriptedProcess, cells_of, line

from CACScoringLib.drr.pictures import PlacedRadiograph, placed
from CACScoringLib.drr.settings import DrrSettings
from CACScoringLib.mrml import radiograph_nodes
from CACScoringLib.mrml.radiograph_nodes import add_radiograph, slice_axes

RADIOGRAPH_PAGE = 2
SHAPE = (864, 864)


class RadiographProcess(ScriptedProcess):
    """Process that writes a result in place of the command."""

    def start(self, arguments, on_line, on_end) -> None:
        self.arguments, self.say, self.end = arguments, on_line, on_end

    def write(self, views=("PA",), with_factors=True, warnings=(), image=(0.8, 0.4, 0.2)) -> None:
        output = Path(self.option("--output")[0])
        output.mkdir(parents=True)
        write_result(output, views, with_factors, warnings, image)


def write_result(folder, views=("PA",), with_factors=True, warnings=(), image=(0.8, 0.4, 0.2)) -> None:
    """Write scores.json, report and pictures in the command's format; the evidence peaks in row 50."""
    factors = (0.4, 0.2, 0.1) if with_factors else (None,) * 3
    thresholds = [
        {"agatston": a, "probability_image": p, "probability_with_factors": f, "auc": auc}
        for a, p, f, auc in zip((0, 100, 400), image, factors, (0.75, None, 0.7), strict=True)
    ]
    files = {v: {"view_file": f"view_{v}.nii.gz", "evidence_file": f"evidence_{v}.nii.gz"} for v in views}
    document = {"schema": "cac-radiograph/1", "thresholds": thresholds, "views": files}
    document["warnings"] = [{"code": "w", "message": message} for message in warnings]
    (folder / "scores.json").write_text(json.dumps(document), encoding="utf-8")
    (folder / "report.html").write_text("<p>report</p>", encoding="utf-8")
    evidence = np.zeros((1, *SHAPE), np.float32)
    evidence[0, 50, 200] = 1
    for view in views:
        for name, values in (("view", np.full((1, *SHAPE), 0.5, np.float32)), ("evidence", evidence)):
            sitk.WriteImage(sitk.GetImageFromArray(values), str(folder / f"{name}_{view}.nii.gz"))


class Model:
    """Double of a stored model from `list_models`."""

    origin = "bundled"
    card = type("Card", (), {"name": "radiograph-test", "network": "radiograph"})()


@pytest.fixture
def page(open_panel, volume, monkeypatch, tmp_path):
    """The driver with a network for radiographs installed, a file chosen, and the page in sight."""
    from CACScoringLib.models import cards as models

    list_models = models.list_models
    monkeypatch.setattr(
        models,
        "list_models",
        lambda network=None: [*list_models(network), *([Model] if network in (None, "radiograph") else [])],
    )
    driver = open_panel()
    driver.section = driver.widget.radiograph
    driver.worker = driver.section.job.process = RadiographProcess()
    driver.ui.drrButton.collapsed = True
    driver.ui.pages.setCurrentIndex(RADIOGRAPH_PAGE)
    driver.ui.radiographPaBox.setCurrentPath(str(tmp_path / "chest.png"))
    return driver


def radiograph_volume(volume):
    settings = DrrSettings(90.0, pixels=32)
    picture = placed(np.arange(1024, dtype=np.float32).reshape(32, 32), settings.geometry((0.0, 0.0, 0.0)))
    return add_radiograph(slicer.mrmlScene, PlacedRadiograph(picture, (0.0, 1.0)), volume, settings.title(), "lateral")


class TestInput:
    def test_source_shows_its_widgets(self, page, volume):
        ui = page.ui
        assert not ui.radiographPaBox.isHidden()
        assert ui.radiographSelector.isHidden()
        ui.radiographSourceBox.setCurrentIndex(1)
        assert ui.radiographPaBox.isHidden()
        assert not ui.radiographSelector.isHidden()
        assert not ui.radiographRunButton.enabled
        node = radiograph_volume(volume)
        assert ui.radiographSelector.nodeCount() == 1  # and not the CT
        ui.radiographSelector.setCurrentNode(node)
        assert ui.radiographRunButton.enabled

    def test_age_and_sex_come_from_the_file(self, page, tmp_path):
        file = radiograph_files.write_dicom(tmp_path / "cr.dcm", np.zeros((8, 8), np.uint16))
        page.ui.radiographBmiKgM2Box.setValue(25)
        page.ui.radiographPaBox.setCurrentPath(str(file))
        assert page.ui.radiographAgeYearsBox.value == 61
        assert page.ui.radiographSexBox.currentText == "female"
        assert page.ui.radiographBmiKgM2Box.value == 0  # of another patient
        page.ui.radiographAgeYearsBox.setValue(66)
        page.widget.exit()
        page.widget.enter()
        assert page.ui.radiographAgeYearsBox.value == 66


@pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="the panel asks for PyTorch first")
class TestScore:
    def test_arguments(self, page, tmp_path):
        page.ui.radiographLateralBox.setCurrentPath(str(tmp_path / "side.png"))
        page.ui.radiographAgeYearsBox.setValue(61)
        page.ui.radiographSexBox.setCurrentIndex(2)
        page.ui.radiographBmiKgM2Box.setValue(27.5)
        page.ui.radiographRunButton.click()
        *arguments, _output, _progress, _json = page.worker.arguments
        assert arguments == [
            *("-m", "CACScoringLib.cli", "score", "--settings", arguments[4]),
            *("--device", "auto", "--output"),
        ]
        files = {"pa": str(tmp_path / "chest.png"), "lateral": str(tmp_path / "side.png")}
        assert json.loads(arguments[4]) == {"radiograph": {**files, "age_years": 61, "sex": "M", "bmi_kg_m2": 27.5}}

    def test_result_is_shown_also_from_a_saved_scene(self, page, tmp_path):
        page.ui.radiographRunButton.click()
        page.worker.say(line(event="step", step="scoring", index=1, count=4))
        page.worker.write(warnings=["The picture is <b>small</b>."], image=(None, 0.4, 0.2))
        page.worker.end(0)
        assert cells_of(page.ui.radiographTable) == [
            ["above 0", "cannot be told", "40%", "0.75"],
            ["100 or more", "40%", "20%", ""],
            ["400 or more", "20%", "10%", "0.70"],
        ]
        warnings = page.ui.radiographWarningsLabel.text
        assert "research only" in warnings
        assert "<b>small</b>" in warnings
        assert page.ui.radiographReportButton.enabled
        rows = cells_of(page.ui.radiographTable)
        assert slicer.util.saveScene(str(tmp_path / "scene.mrb"))
        slicer.mrmlScene.Clear()
        assert page.ui.radiographTable.isHidden()
        slicer.util.loadScene(str(tmp_path / "scene.mrb"))
        page.settle()
        assert cells_of(page.ui.radiographTable) == rows
        assert not page.ui.radiographReportButton.enabled  # the report was in a temporary folder
        assert page.ui.radiographPaBox.currentPath == str(tmp_path / "chest.png")

    def test_a_volume_is_passed_in_the_format_of_drr(self, page, volume):
        node = radiograph_volume(volume)
        page.ui.radiographSourceBox.setCurrentIndex(1)
        page.ui.radiographSelector.setCurrentNode(node)
        page.ui.radiographRunButton.click()
        file = page.worker.settings()["radiograph"]["lateral"]
        image = sitk.ReadImage(file)
        np.testing.assert_array_equal(sitk.GetArrayFromImage(image)[0], np.arange(1024).reshape(32, 32))
        page.worker.write(views=("lateral",))
        page.worker.end(0)
        picture = radiograph_nodes.picture_of(page.state.radiographResult, "lateral")
        for scored_axis, axis in zip(slice_axes(picture), slice_axes(node), strict=True):
            assert np.allclose(scored_axis, axis)


@pytest.mark.main_window
class TestViews:
    def test_a_run_that_ends_leaves_the_views_of_another_page(self, page):
        from CACScoringLib.panel.views import RADIOGRAPH_LAYOUT_ID

        manager, radiographs = slicer.app.layoutManager(), page.ui.pages.currentIndex
        before = manager.layout
        page.ui.radiographRunButton.click()
        page.ui.pages.setCurrentIndex(0)
        page.worker.write()
        page.worker.end(0)
        page.settle()
        assert cells_of(page.ui.radiographTable)
        assert manager.layout == before != RADIOGRAPH_LAYOUT_ID
        page.ui.pages.setCurrentIndex(radiographs)
        page.settle()
        assert manager.layout == RADIOGRAPH_LAYOUT_ID
        assert manager.sliceWidget("CACRadiograph").mrmlSliceCompositeNode().GetForegroundVolumeID()

    @pytest.mark.long
    def test_evidence_lies_over_the_radiograph(self, page, tmp_path):
        page.ui.radiographRunButton.click()
        page.worker.write(views=("PA", "lateral"))
        page.worker.end(0)
        composite = slicer.app.layoutManager().sliceWidget("CACRadiograph").mrmlSliceCompositeNode()
        box = page.ui.radiographPictureBox
        assert [box.itemText(n) for n in range(box.count)] == [
            *("PA: radiograph alone", "PA: with located calcium"),
            *("lateral: radiograph alone", "lateral: with located calcium"),
        ]
        assert box.currentIndex == 1
        node = slicer.mrmlScene.GetNodeByID(composite.GetForegroundVolumeID())
        values = slicer.util.arrayFromVolume(node)
        assert np.unravel_index(values.argmax(), values.shape) == (0, 50, 200)
        background = slicer.mrmlScene.GetNodeByID(composite.GetBackgroundVolumeID())
        assert background.GetOrigin() == node.GetOrigin()
        box.setCurrentIndex(0)
        assert composite.GetForegroundOpacity() == 0
        box.setCurrentIndex(2)
        _normal, right, _centre = slice_axes(slicer.mrmlScene.GetNodeByID(composite.GetBackgroundVolumeID()))
        assert np.allclose(right, (0, -1, 0))  # the back is on the right
