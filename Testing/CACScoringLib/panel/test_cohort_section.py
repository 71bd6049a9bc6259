"""Tests of the page of cohorts."""

import json
import shutil
from pathlib import Path

import pytest
import slicer
from panel_driver import InThisProcess, cells_of, eventually, line
from review_server import write_cohort

from CACScoringLib.readings.cases import cases_in
from CACScoringLib.readings.work_list import WorkList, plan_of
from CACScoringLib.record.score_record import read_result

CELL_MARGINS = 8
"""Pixels beside the text of a cell."""


@pytest.fixture(scope="module")
def scored_cohort(tmp_path_factory):
    return write_cohort(tmp_path_factory.mktemp("cohort"), ["one", "two"])


@pytest.fixture
def finished(scored_cohort, tmp_path):
    """Folder of results of a cohort of two scans."""
    shutil.copytree(scored_cohort.parent, tmp_path / "cohort")
    return tmp_path / "cohort" / "results"


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

    def test_columns_have_room_for_their_words(self, cohort):
        from CACScoringLib.panel.cohort_section import STATES
        from CACScoringLib.record.scores import STATUSES

        table = cohort.ui.cohortTable
        for column, words in ((1, [f"{state} ⚠" for state in STATES.values()]), (3, STATUSES)):
            widths = [table.fontMetrics().horizontalAdvance(word) for word in words]
            assert max(widths) + CELL_MARGINS <= table.columnWidth(column), words

    def test_a_finished_cohort_is_listed_and_opened_again(self, cohort, finished):
        ui = cohort.ui
        ui.cohortOutputBox.setCurrentPath(str(finished))
        self.settle(cohort)
        assert [row[0] for row in cells_of(ui.cohortTable)] == ["one", "two"]
        total = read_result(finished / "one").methods["threshold"].total.agatston
        assert cells_of(ui.cohortTable)[0][1:4] == ["existing ⚠", f"{total:.1f}", "automatic"]
        assert not ui.cohortTable.isColumnHidden(4)
        assert ui.cohortStatusLabel.text == "Scans: 2, failed: 0."
        ui.cohortTable.setCurrentCell(1, 0)
        cohort.widget.scorer.job.process = InThisProcess()
        ui.cohortOpenButton.click()
        cohort.settle()
        assert cohort.review is not None, ui.statusLabel.text
        assert cohort.review.nodes.volume.GetName() == "two"

    def test_results_that_are_gone_and_other_folders(self, cohort, finished, tmp_path):
        ui = cohort.ui
        shutil.rmtree(finished / "two")
        ui.cohortOutputBox.setCurrentPath(str(finished))
        self.settle(cohort)
        assert [row[1] for row in cells_of(ui.cohortTable)] == ["existing ⚠", "failed"]
        ui.cohortTable.setCurrentCell(1, 0)
        assert not ui.cohortOpenButton.enabled
        assert "not there any more" in ui.cohortNoteLabel.text
        (finished / "cohort.csv").write_text("nothing", encoding="utf-8")
        ui.cohortOutputBox.setCurrentPath(str(tmp_path))
        self.settle(cohort)
        assert (ui.cohortTable.rowCount, ui.cohortStatusLabel.text) == (0, "")
        ui.cohortOutputBox.setCurrentPath(str(finished))
        self.settle(cohort)
        assert (ui.cohortTable.rowCount, "cohort.csv" in ui.cohortStatusLabel.text) == (0, True)

    def test_scores_are_hidden_while_blind_readings_are_to_be_done(self, cohort, finished, monkeypatch):
        ui = cohort.ui
        plan_of(finished, cases_in(finished), ["Ann"], 0, blind=True)
        for name in ("", "Ann", "Eve"):
            cohort.state.exportReader = name
            ui.cohortOutputBox.setCurrentPath(str(finished))
            self.settle(cohort)
            assert cells_of(ui.cohortTable) == [["one", "existing", "", "", ""], ["two", "existing", "", "", ""]]
            ui.cohortTable.setCurrentCell(0, 0)
            assert not ui.cohortOpenButton.enabled
            assert "hidden" in ui.cohortNoteLabel.text
        monkeypatch.setattr(WorkList, "is_closed", True)
        ui.pages.setCurrentIndex(1 - ui.pages.currentIndex)
        self.settle(cohort)
        assert cells_of(ui.cohortTable)[0][3] == "automatic"

    @staticmethod
    def settle(driver) -> None:
        eventually(lambda: slicer.app.processEvents() or not driver.widget.cohort._listing.isRunning)

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
