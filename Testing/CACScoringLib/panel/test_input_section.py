"""Tests of the input of a run."""

import importlib
import json
import sys

import numpy as np
import panel_results
import SimpleITK as sitk
import slicer

from CACScoringLib.models.cards import find_model


class TestInput:
    def test_an_image_set_after_its_node_is_noticed(self, driver, volume):
        image = volume.GetImageData()
        volume.SetAndObserveImageData(None)
        assert not driver.ui.scoreButton.enabled
        volume.SetAndObserveImageData(image)
        assert driver.ui.scoreButton.enabled

    def test_changed_rules_are_passed_on_and_set_back(self, driver):
        driver.ui.thresholdHuBox.setValue(145)
        driver.ui.minimumPixelsBox.setValue(3)
        driver.ui.connectivityBox.setCurrentIndex(1)
        driver.ui.calibrationMgPerMm3HuBox.setValue(0.000722)
        driver.ui.adaptToTubeVoltageBox.setChecked(False)
        driver.ui.allowContrastBox.setChecked(True)
        driver.ui.allowReversedBox.setChecked(True)
        driver.begin()
        rules = {"threshold_hu": 145, "minimum_pixels": 3, "connectivity": 4, "calibration_mg_per_mm3_hu": 0.000722}
        flags = {"adapt_to_tube_voltage": False, "allow_contrast": True, "allow_reversed": True}
        assert driver.process.settings()["scoring"] == {"rules": rules, **flags}
        driver.ui.scoreButton.click()
        driver.ui.advancedBox.collapsed = False
        driver.ui.defaultsButton.click()
        driver.begin()
        assert driver.process.settings()["scoring"]["rules"] == {}, "the published ones"
        assert driver.ui.thresholdHuBox.value == 130

    def test_enumerations_imported_again_mean_the_same(self, driver, monkeypatch):
        """Mix old and new classes, as after Reload in Slicer."""
        from CACScoringLib.panel import input_section, parameters

        driver.ui.connectivityBox.setCurrentIndex(1)
        before = input_section.argumentsOf(driver.state)
        monkeypatch.delitem(sys.modules, parameters.__name__)
        reloaded = importlib.import_module(parameters.__name__)
        monkeypatch.setattr(sys.modules["CACScoringLib.panel"], "parameters", parameters)
        state = reloaded.CACScoringParameterNode(
            slicer.mrmlScene.GetSingletonNode("CACScoring", "vtkMRMLScriptedModuleNode")
        )
        assert type(state.method) is not type(driver.state.method)
        assert input_section.argumentsOf(state) == before

    def test_models_and_device(self, driver, panel, monkeypatch):
        monkeypatch.setattr(panel, "ensurePackages", lambda requirements: "")
        driver.ui.methodBox.setCurrentIndex(0)
        driver.ui.mapModelBox.addItem("mine", "mine")
        driver.ui.mapModelBox.setCurrentIndex(driver.ui.mapModelBox.findData("mine"))
        driver.ui.deviceBox.setCurrentIndex(1)
        driver.begin()
        assert driver.process.option("--model") == ["mine"]
        assert driver.process.option("--device") == ["cpu"]
        assert "--threshold-only" not in driver.process.arguments

    def test_pytorch_is_needed_if_there_is_a_graphics_card(self, driver, monkeypatch):
        from CACScoringLib.panel import input_section

        driver.ui.methodBox.setCurrentIndex(0)
        driver.ui.deviceBox.setCurrentIndex(2)
        for has_card in (True, False):
            monkeypatch.setattr(input_section, "hasGraphicsCard", lambda has_card=has_card: has_card)
            assert ("torch>=2.13" in input_section.scoringRequirements(driver.state)) == has_card

    def test_own_models_stand_below_the_bundled_one(self, driver, tmp_path, monkeypatch):
        from CACScoringLib.panel.input_section import argumentsOf

        monkeypatch.setenv("CAC_MODEL_DIR", str(tmp_path / "installed"))
        (tmp_path / "installed").mkdir()
        mine = {"name": "my-territories", "sha256": ""}
        content = json.loads(find_model("territories").path.read_text(encoding="utf-8"))
        (tmp_path / "installed" / "my-territories.json").write_text(json.dumps({**content, **mine}), encoding="utf-8")
        driver.state.method = type(driver.state.method).BOTH
        driver.widget.input.setState(driver.state)
        driver.widget.input.update(False)
        box = driver.ui.heartModelBox
        labels = [box.itemText(n) for n in range(box.count)]
        assert labels == ["territories-compact (comes with CAC)", "my-territories"]
        for n, arguments in enumerate(([], ["my-territories"])):
            box.setCurrentIndex(n)
            options = argumentsOf(driver.state)
            assert [options[k + 1] for k, word in enumerate(options) if word == "--model"] == arguments

    def test_missing_packages_are_reported_and_nothing_runs(self, driver, panel, monkeypatch):
        monkeypatch.setattr(panel, "ensurePackages", lambda requirements: "torch could not be installed: no network")
        driver.ui.methodBox.setCurrentIndex(0)
        driver.ui.scoreButton.click()
        assert "no network" in driver.ui.statusLabel.text
        assert driver.process.arguments is None

    def test_an_existing_heart_is_used(self, driver, volume):
        def notes() -> list[str]:
            selector = driver.ui.heartSelector
            labels = slicer.util.findChildren(selector, name="label_Message")
            return [label.text for label in labels if label.isVisibleTo(selector)]

        assert notes() == []
        driver.score()
        heart = driver.review.nodes.heart
        driver.ui.heartSelector.setCurrentNode(heart)
        driver.ui.heartSelector.setCurrentSegmentID("heart")
        assert notes() == []
        driver.begin()
        mask = sitk.ReadImage(driver.process.option("--heart")[0])
        expected = panel_results.heart_mask(panel_results.chest_image())
        np.testing.assert_array_equal(sitk.GetArrayFromImage(mask), sitk.GetArrayFromImage(expected))
