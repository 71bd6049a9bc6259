"""Asking for whole-scan estimates in the panel, and what it shows of them."""

import json
from types import SimpleNamespace

import handmade_estimates as by_hand
import numpy as np
import panel_results
import pytest
import SimpleITK as sitk
import slicer

from CACScoringLib.models import cards as models
from CACScoringLib.mrml import scene as mrml
from CACScoringLib.whole_scan.estimates import DIFFERS, SALIENCY_FILE, estimate_as_json


@pytest.fixture
def installed(monkeypatch):
    """Models by (name, network), all the user's; ask before the panel is opened."""
    stored = []
    monkeypatch.setattr(models, "list_models", lambda network=None: stored)

    def install(*found):
        stored.extend(
            models.StoredModel(SimpleNamespace(name=name, network=network), None, "user") for name, network in found
        )

    return install


@pytest.fixture
def asked():
    """Requirements that somebody was asked to install."""
    return []


@pytest.fixture
def ready(installed, open_panel, volume, panel, monkeypatch, asked):
    """The panel with a model of each kind, set to use networks."""
    installed(("my-vessels", "vessels"), ("my-radiomics", "radiomics"))
    monkeypatch.setattr(panel, "ensurePackages", lambda requirements: asked.append(requirements) or "")
    driver = open_panel()
    driver.ui.methodBox.setCurrentIndex(0)
    return driver


def score_with(driver, *estimates):
    """A run whose result has these opinions."""
    driver.begin()
    driver.process.write_result(networks=True)
    file = driver.process.output / "scores.json"
    record = json.loads(file.read_text(encoding="utf-8"))
    record["second_opinions"] = {estimate.network: estimate_as_json(estimate, {}) for estimate in estimates}
    file.write_text(json.dumps(record), encoding="utf-8")
    for estimate in estimates:
        if estimate.saliency is not None:
            sitk.WriteImage(estimate.saliency, str(driver.process.output / SALIENCY_FILE))
    driver.process.end(0)
    driver.settle()


def rows(driver):
    table = driver.ui.wholeScanTable
    cells = [[table.item(row, n) for n in range(table.columnCount)] for row in range(table.rowCount)]
    return [["" if cell is None else cell.text() for cell in row] for row in cells]


class TestAsking:
    def test_all_at_hand_are_asked(self, ready, asked):
        ready.ui.wholeScanBox.setChecked(True)
        assert ready.state.secondOpinions
        ready.begin()
        names = [text.partition(">")[0] for text in asked[0]]
        assert (len(asked), names) == (1, ["openvino", "safetensors", "jinja2", "psutil", "torch", "monai", "mirp"])
        assert ready.process.option("--whole-scan") == ["all"]
        assert ready.process.option("--model") == []

    def test_without_a_model_it_cannot_be_switched_on_but_off(self, installed, open_panel, volume):
        driver = open_panel()
        driver.ui.methodBox.setCurrentIndex(0)
        assert not driver.ui.wholeScanBox.enabled
        driver.state.secondOpinions = True  # as a scene from elsewhere may say
        assert driver.ui.wholeScanBox.enabled


class TestShowing:
    def test_answers_agreement_and_worth(self, ready):
        score_with(ready, by_hand.vessels(5, 1000, 20, 30, trust="Little."), by_hand.radiomics(0.1, trust="Less."))
        ui = ready.ui
        titles = [ui.wholeScanTable.horizontalHeaderItem(n).text() for n in range(ui.wholeScanTable.columnCount)]
        assert titles == ["Whole-scan estimate", "Vessel regression", "Radiomics"]
        assert rows(ready) == [
            ["Prediction", "1055 (> 400)", "none (10%)"],
            ["Clinical agrees", "not reviewed", "not reviewed"],
            ["Map agrees", "same class", "⚠ differs"],
            ["LM", "5", ""],
            ["LAD", "1000", ""],
            ["LCX", "20", ""],
            ["RCA", "30", ""],
        ]
        assert ui.wholeScanLabel.text == "Vessel regression: Little.\nRadiomics: Less."
        assert "Radiomics: no calcium; calcium map: 810" in ui.warningsLabel.text

    def test_a_review_changes_who_agrees(self, ready):
        """All candidates are rejected, and the review is done: the clinical score is 0."""
        score_with(ready, by_hand.vessels(0.0))
        assert rows(ready)[1][1] == "not reviewed"
        ready.review.reject_unassigned("threshold")
        ready.review.set_reviewed("threshold", True)
        ready.widget.result.update()
        assert [row[1] for row in rows(ready)[1:3]] == ["same class", "⚠ 4 classes apart"]
        told = [warning.message for warning in ready.review.warnings if warning.code == DIFFERS]
        assert len(told) == 1
        assert "calcium map" in told[0]

    def test_what_swayed_the_vessel_model_is_in_the_scene_and_the_report(self, ready, tmp_path):
        image = panel_results.chest_image()
        saliency = sitk.Cast(image > 300, sitk.sitkFloat32) * 3
        score_with(ready, by_hand.vessels(200, saliency=saliency))
        nodes = ready.review.nodes
        found = mrml.image_of_volume(nodes.saliency)
        np.testing.assert_array_equal(sitk.GetArrayFromImage(found), sitk.GetArrayFromImage(saliency))
        assert found.GetOrigin() == pytest.approx(image.GetOrigin())
        assert mrml.nodes_of_record(slicer.mrmlScene, nodes.record).saliency is nodes.saliency
        assert ready.ui.inputSelector.nodeCount() == 1, "a saliency is no CT"
        ready.review.export(tmp_path / "out")
        assert "has the highest saliency" in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
