"""Tests of requesting and showing whole-scan estimates in the panel."""

import json
from types import SimpleNamespace

import handmade_estimates as by_hand
import numpy as np
import panel_results
import pytest
import SimpleITK as sitk
import slicer
from panel_driver import cells_of

from CACScoringLib.core.ct import ScanWarning
from CACScoringLib.core.decoding import content_of
from CACScoringLib.models import cards as models
from CACScoringLib.models import choice
from CACScoringLib.mrml import scene as mrml
from CACScoringLib.whole_scan.estimates import SALIENCY_FILE, estimate_record


@pytest.fixture
def installed(monkeypatch):
    """Function that installs models of the user, given as (name, network), before the panel is opened."""
    stored = []
    for module in (models, choice):
        monkeypatch.setattr(
            module, "list_models", lambda network=None: [m for m in stored if network in (None, m.card.network)]
        )

    def install(*networks):
        cards = (SimpleNamespace(name=name, network=network) for name, network in networks)
        stored.extend(models.StoredModel(card, None, "user") for card in cards)

    return install


@pytest.fixture
def installations():
    """Lists of requirements that the user was asked to install."""
    return []


@pytest.fixture
def ready(installed, open_panel, volume, panel, monkeypatch, installations):
    """The panel with a model of each kind, set to use networks."""
    installed(("my-vessels", "vessels"), ("my-radiomics", "radiomics"))
    monkeypatch.setattr(panel, "ensurePackages", lambda requirements: installations.append(requirements) or "")
    driver = open_panel()
    driver.ui.methodBox.setCurrentIndex(0)
    return driver


def score_with(driver, *estimates):
    """Run a scoring whose result has these estimates."""
    driver.begin()
    driver.process.write_result(networks=True)
    file = driver.process.output / "scores.json"
    record = json.loads(file.read_text(encoding="utf-8"))
    record["second_opinions"] = {estimate.network: content_of(estimate_record(estimate, {})) for estimate in estimates}
    file.write_text(json.dumps(record), encoding="utf-8")
    for estimate in estimates:
        if estimate.saliency is not None:
            sitk.WriteImage(estimate.saliency, str(driver.process.output / SALIENCY_FILE))
    driver.end()


class TestAsking:
    def test_all_installed_models_run(self, ready, installations):
        ready.ui.wholeScanBox.setChecked(True)
        assert ready.state.secondOpinions
        ready.begin()
        names = [[text.partition(">")[0] for text in requirements] for requirements in installations]
        assert names == [["openvino", "safetensors", "jinja2", "psutil", "torch", "monai", "mirp"]]
        assert ready.process.option("--whole-scan") == ["all"]
        assert ready.process.option("--model") == []

    def test_bundled_alternatives_run_only_if_chosen(
        self, open_panel, volume, panel, monkeypatch, installations, tmp_path
    ):
        by_hand.save_radiomics(tmp_path, "radiomics-alternative")
        monkeypatch.setattr(models, "alternatives_folder", lambda: tmp_path)
        monkeypatch.setattr(panel, "ensurePackages", lambda requirements: installations.append(requirements) or "")
        driver = open_panel()
        box = driver.ui.radiomicsModelBox
        labels = [box.itemText(n) for n in range(box.count)]
        assert labels == ["none, unless you choose one", "radiomics-alternative (comes with CAC, for comparison)"]
        driver.ui.methodBox.setCurrentIndex(0)
        driver.ui.wholeScanBox.setChecked(True)
        driver.begin()
        driver.end()
        box.setCurrentIndex(1)
        driver.begin()
        assert ["mirp>=2.5" in requirements for requirements in installations] == [False, True]
        assert driver.process.option("--model") == ["radiomics-alternative"]

    def test_an_only_model_is_listed_once(self, ready):
        box = ready.ui.vesselsModelBox
        assert [box.itemText(n) for n in range(box.count)] == ["my-vessels (the only one)"]
        ready.state.vesselsModel = "my-vessels"  # as in a scene saved beside another model
        assert box.currentText == "my-vessels (the only one)"

    def test_without_a_model_the_score_can_only_be_switched_off(self, installed, open_panel, volume):
        driver = open_panel()
        driver.ui.methodBox.setCurrentIndex(0)
        assert not driver.ui.wholeScanBox.enabled
        driver.state.secondOpinions = True  # as in a scene from another computer
        assert driver.ui.wholeScanBox.enabled


class TestShowing:
    def test_predictions_agreement_and_reliability(self, ready):
        score_with(ready, by_hand.vessels(5, 1000, 20, 30, trust="Little."), by_hand.radiomics(0.1, trust="Less."))
        ui = ready.ui
        titles = [ui.wholeScanTable.horizontalHeaderItem(n).text() for n in range(ui.wholeScanTable.columnCount)]
        assert titles == ["Whole-scan estimate", "Vessel regression", "Radiomics"]
        assert cells_of(ready.ui.wholeScanTable) == [
            ["Prediction", "1055 (> 400)", "none (10%)"],
            ["Clinical agrees", "not reviewed", "not reviewed"],
            ["Map agrees", "same class", "⚠ differs"],
            ["LM", "5", ""],
            ["LAD", "1000", ""],
            ["LCX", "20", ""],
            ["RCA", "30", ""],
        ]
        assert ui.wholeScanLabel.text == "Vessel regression: Little.\nRadiomics: Less."
        assert "Radiomics: no calcium; calcium map: 682" in ui.warningsLabel.text
        ready.review.reject_unassigned("threshold")
        ready.review.set_reviewed("threshold", True)
        ready.widget.result.update()
        assert cells_of(ui.wholeScanTable)[1] == ["Clinical agrees", "⚠ 4 classes apart", "agrees"]

    def test_an_estimate_out_of_its_range_is_marked(self, ready, monkeypatch):
        score_with(ready, by_hand.vessels(809, trust="Little."), by_hand.radiomics(0.9, trust="Less."))
        warning = ScanWarning("vessels-beyond-training", "It is an extrapolation.")
        monkeypatch.setattr(type(ready.review), "warnings", (warning,))
        ready.widget.result.update()
        prediction, _clinical, of_map = cells_of(ready.ui.wholeScanTable)[:3]
        assert prediction == ["Prediction", "⚠ 809 (> 400)", "calcium (90%)"]
        assert of_map == ["Map agrees", "same class", "agrees"]
        assert ready.ui.wholeScanLabel.text.startswith("Vessel regression: ⚠ It is an extrapolation. Little.")

    def test_the_saliency_of_the_vessel_model_is_in_the_scene_and_the_report(self, ready, tmp_path):
        image = panel_results.chest_image()
        saliency = sitk.Cast(image > 300, sitk.sitkFloat32) * 3
        score_with(ready, by_hand.vessels(200, saliency=saliency))
        nodes = ready.review.nodes
        scene_saliency = mrml.image_of_volume(nodes.saliency)
        np.testing.assert_array_equal(sitk.GetArrayFromImage(scene_saliency), sitk.GetArrayFromImage(saliency))
        assert scene_saliency.GetOrigin() == pytest.approx(image.GetOrigin())
        assert mrml.nodes_of_record(slicer.mrmlScene, nodes.record).saliency is nodes.saliency
        assert ready.ui.inputSelector.nodeCount() == 1, "a saliency is no CT"
        ready.review.export(tmp_path / "out")
        assert "has the highest saliency" in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
