"""The result, and taking it out of the scene."""

import panel_results
import SimpleITK as sitk
import slicer

from CACScoringLib.core.ct import ScanWarning


class TestResult:
    def test_calcium_elsewhere_is_copied_and_exported(self, driver, tmp_path, monkeypatch):
        driver.score()
        driver.choose_lesion("12–13")
        driver.press_artery("aorta")
        driver.choose_lesion("5–6")
        driver.press_artery("LAD")
        driver.ui.copyButton.click()
        text = slicer.app.clipboard().text()
        assert "Outside the coronary arteries\tthoracic aorta\t1\t486.000" in text
        monkeypatch.setattr("CACScoringLib.panel.widgets.askForFolder", lambda: str(tmp_path))
        driver.ui.exportButton.click()
        labels = sitk.ReadImage(str(tmp_path / "chest-cac" / "lesions.nii.gz"))
        again = panel_results.scored(panel_results.chest_image(), networks=False, lesions=labels)
        assert again.non_coronary.scores == driver.review.non_coronary.scores

    def test_severe_warnings_stand_above_the_table(self, driver, monkeypatch):
        driver.score()
        ui = driver.ui
        assert not ui.severeWarningsLabel.visible
        warnings = (ScanWarning("dire", "There is no heart.", severe=True), ScanWarning("thick-slices", "It is thick."))
        monkeypatch.setattr(type(driver.review), "warnings", warnings)
        driver.widget.result.update()
        slicer.app.processEvents()
        assert (ui.severeWarningsLabel.text, ui.warningsLabel.text) == ("⚠ There is no heart.", "⚠ It is thick.")
        assert ui.severeWarningsLabel.visible
        assert ui.severeWarningsLabel.y < ui.scoreTable.y
