"""Tests of the page of cohorts."""

import json
from pathlib import Path

import pytest
from panel_driver import line


class TestCohort:
    @pytest.fixture
    def cohort(self, driver, tmp_path):
        driver.cohort = driver.widget.cohort.job.process = type(driver.process)()
        driver.ui.cohortSourceBox.setCurrentPath(str(tmp_path))
        driver.ui.cohortOutputBox.setCurrentPath(str(tmp_path / "out"))
        return driver

    @staticmethod
    def scan(index: int, state: str, tmp_path: Path, **more: object) -> str:
        facts = {"name": f"scan {index}", "folder": str(tmp_path / f"scan-{index}"), "ct": "", "series": None}
        return line(event="scan", index=index, state=state, **{**facts, **more})

    def test_the_table_fills_during_the_run(self, cohort, tmp_path):
        cohort.state.minimumPixels, cohort.state.calibrationMgPerMm3Hu, cohort.state.allowContrast = 3, 0.05, True
        cohort.ui.cohortRunButton.click()
        worker = cohort.cohort
        assert worker.arguments[2:] == [
            *("cohort", str(tmp_path), "--output", str(tmp_path / "out")),
            *("--threshold-only", "--settings", worker.arguments[-3], "--progress", "json"),
        ]
        rules = {"minimum_pixels": 3, "calibration_mg_per_mm3_hu": 0.05}
        assert json.loads(worker.arguments[-3]) == {"scoring": {"rules": rules, "allow_contrast": True}}
        for index in range(2):
            worker.say(self.scan(index, "waiting", tmp_path))
        worker.say(self.scan(0, "running", tmp_path))
        assert cohort.ui.cohortTable.item(0, 1).text() == "running"
        worker.say(self.scan(0, "done", tmp_path, agatston={"threshold": 12.34}, warnings=["metal"]))
        worker.say(self.scan(1, "failed", tmp_path, reason="No heart."))
        assert [cohort.ui.cohortTable.item(0, n).text() for n in range(5)] == ["scan 0", "done ⚠", "12.3", "", ""]
        metal = "Metal. Check these lesions, and count what is calcium."
        for row, note in enumerate((metal, "No heart.")):
            cohort.ui.cohortTable.setCurrentCell(row, 0)
            assert cohort.ui.cohortNoteLabel.text == note
        numbers = {"agatston": {"threshold": 0.0, "decomposition": 680.2}}
        worker.say(self.scan(0, "done", tmp_path, **numbers))
        assert [cohort.ui.cohortTable.item(0, n).text() for n in (2, 4)] == ["0.0", "680.2"]
        for status, clinical in (("automatic", "0.0"), ("reviewed", "0.0"), ("candidates", "(0.0)")):
            worker.say(self.scan(0, "done", tmp_path, **numbers, status={"threshold": status}))
            assert [cohort.ui.cohortTable.item(0, n).text() for n in (2, 3)] == [clinical, status]
        assert cohort.ui.cohortBar.value == 1000
        worker.end(0)
        assert "Scans done: 1, failed: 1" in cohort.ui.cohortStatusLabel.text

    def test_the_remaining_time_on_a_cluster_is_estimated(self, cohort, tmp_path, monkeypatch):
        from CACScoringLib.panel import cohort_section  # needs the desktop host

        clock = [0.0]
        monkeypatch.setattr(cohort_section.time, "monotonic", lambda: clock[0])
        cohort.ui.cohortClusterBox.setText(" tcp://head:8786 ")
        cohort.ui.cohortRunButton.click()
        worker = cohort.cohort
        assert worker.arguments[worker.arguments.index("--cluster") + 1] == "tcp://head:8786"
        for index in range(9):
            worker.say(self.scan(index, "waiting", tmp_path))
        worker.say(self.scan(0, "running", tmp_path))
        clock[0] = 360.0
        for index in range(3):
            worker.say(self.scan(index, "done" if index else "failed", tmp_path))
        text = cohort.ui.cohortStatusLabel.text
        assert "About 12 min are left" in text
        worker.end(0)
