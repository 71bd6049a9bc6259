"""Tests of showing and exporting the result."""

import slicer

from CACScoringLib.core.ct import ScanWarning


class TestResult:
    def test_non_coronary_calcium_is_copied_and_exported(self, driver, tmp_path, monkeypatch):
        driver.score()
        driver.assign("12–13", "aorta")
        driver.assign("5–6", "LAD")
        driver.ui.copyButton.click()
        text = slicer.app.clipboard().text()
        assert "Outside the coronary arteries\tthoracic aorta\t1\t486.000" in text
        monkeypatch.setattr("CACScoringLib.panel.widgets.askForFolder", lambda _title: str(tmp_path))
        driver.ui.exportButton.click()
        assert (tmp_path / "chest-cac" / "lesions.nii.gz").is_file()
        assert "chest-cac" in driver.ui.exportLabel.text
        driver.assign("5–6", "RCA")
        assert driver.ui.exportLabel.text == "", "not of the score as it is now"

    def test_scores_are_compared_with_an_earlier_result_unless_blind(self, driver, tmp_path, monkeypatch):
        driver.score()
        driver.review.export(tmp_path / "earlier")
        driver.ui.rejectRestButton.click()
        driver.ui.acceptButton.click()
        monkeypatch.setattr("CACScoringLib.panel.widgets.askForFolder", lambda _title: str(tmp_path / "earlier"))
        driver.ui.compareButton.click()
        assert "Clinical rule" in driver.ui.compareLabel.text
        monkeypatch.setattr("CACScoringLib.panel.widgets.askForFolder", lambda _title: str(tmp_path))
        driver.ui.compareButton.click()
        assert "has no scores.json" in driver.ui.compareLabel.text
        driver.review.make_blind("reader")
        driver.widget.result.update()
        assert not driver.ui.compareButton.visible

    def test_the_worst_warning_stands_in_the_headline_and_opens_all(self, driver, monkeypatch):
        driver.score()
        ui = driver.ui
        warnings = (
            ScanWarning("thick-slices", "It is thick."),
            ScanWarning("dire", "No <heart> here. Look.", severe=True),
        )
        monkeypatch.setattr(type(driver.review), "warnings", warnings)
        driver.widget.result.update()
        assert "⚠ No &lt;heart&gt; here." in ui.headLabel.text
        assert "1 more" in ui.headLabel.text
        assert not ui.warningsLabel.visible
        ui.headLabel.linkActivated.emit("more")
        slicer.app.processEvents()
        assert ui.warningsLabel.visible
        assert ui.warningsLabel.text.index("No &lt;heart&gt; here.</b> Look.") < ui.warningsLabel.text.index(
            "It is thick."
        )
