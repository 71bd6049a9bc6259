"""Readings by plan in the panel, which the browser and the tables read as it writes them."""

import csv
import shutil
from pathlib import Path

import panel_results
import pytest
import slicer
from panel_driver import InThisProcess, ScriptedProcess, cells_of, eventually
from review_server import write_cohort

from CACScoringLib.core.labels import Artery
from CACScoringLib.readings.cases import cases_in
from CACScoringLib.readings.journals import file_of, reading_by
from CACScoringLib.readings.work_list import plan_of, planned_readers
from CACTrainingLib.browser.open_reviews import OpenReview

SCANS = ("one", "two", "three")
READERS = ["Ann", "Bob"]


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    return write_cohort(tmp_path_factory.mktemp("cohort"), SCANS, panel_results.scored(panel_results.chest_image()))


@pytest.fixture
def results(cohort, tmp_path):
    shutil.copytree(cohort.parent, tmp_path / "cohort")
    return tmp_path / "cohort" / "results"


@pytest.fixture
def plan(results, monkeypatch):
    monkeypatch.chdir(results.parent)
    return plan_of(results, cases_in(results), READERS, 1 / 3, blind=True)


class Reader:
    """A reader at the panel."""

    def __init__(self, driver, results, name):
        self.driver, self.ui = driver, driver.ui
        driver.process = driver.widget.scorer.job.process = InThisProcess()
        driver.widget.readings.job.process = InThisProcess()
        self.ui.readingsButton.collapsed = False
        self.ui.cohortOutputBox.setCurrentPath(str(results))
        self.name(name)

    def name(self, name):
        self.ui.readingReaderEdit.setText(name)
        self.ui.readingReaderEdit.editingFinished.emit()

    @property
    def reading(self):
        return self.driver.widget.readings.current

    def listed(self):
        return cells_of(self.ui.readingTable)

    def next(self):
        self.ui.openReadingButton.click()
        self.driver.settle()
        assert self.driver.review is not None, self.ui.statusLabel.text

    def read(self):
        """Assign every candidate to the LAD, and confirm."""
        for lesion in [line.id for line in self.driver.widget.review.table.lines]:
            self.driver.widget.review.table.showLesion(lesion)
            self.driver.press_artery("LAD")
        self.ui.acceptButton.click()
        self.driver.settle()


@pytest.fixture
def reader(open_panel, results, plan):
    return Reader(open_panel(), results, "Ann")


def case_of(results, reading):
    return next(case for case in cases_in(results) if case.folder.name == reading.scan)


class TestReading:
    def test_readings_are_listed_in_the_order_of_the_plan(self, reader, results, plan):
        assert [row[:2] for row in reader.listed()] == [[f"Case {n}", "to read"] for n in range(1, 5)]
        assert reader.ui.readingsLabel.text == "0 of 4 readings confirmed."
        reader.name("Eve")
        assert reader.listed() == []
        assert "Eve is not a reader of the plan" in reader.ui.readingsLabel.text
        assert not reader.ui.tablesButton.enabled, "no reader of the plan, which is not done"
        assert not reader.ui.openReadingButton.enabled

    def test_a_blind_reading_shows_candidates_alone(self, reader, results, plan):
        reader.next()
        assert reader.reading.case.folder.name == plan[0].scan
        assert plan[0].scan not in reader.ui.headLabel.text
        assert reader.driver.review.methods == ("threshold",)
        assert {lesion["Artery"] for lesion in reader.driver.lesions()} == {"unassigned"}
        assert not reader.ui.wholeScanTable.visible
        assert "Candidates to decide: 3" in reader.ui.headLabel.text
        assert "in all" not in reader.ui.headLabel.text
        assert not reader.ui.scoreTable.isVisibleTo(reader.ui.scoreTable.window()), "a total tells which scan it is"
        nodes = [node for node in vars(reader.driver.review.nodes).values() if hasattr(node, "GetSaveWithScene")]
        assert not any(node.GetSaveWithScene() for node in nodes)
        assert {node.GetName().partition("Case 1")[1] for node in nodes} == {"Case 1"}

    def test_a_blind_reader_decides_about_every_candidate(self, reader, questions):
        ui = reader.ui
        reader.next()
        for button in (ui.acceptButton, ui.reviewedBox):
            button.click()
            reader.driver.settle()
            assert questions == [], "refused before anything is asked"
            assert "3 lesions have no artery" in ui.totalLabel.text
            assert not ui.moreButton.collapsed, "the button is in sight"
            assert not ui.reviewedBox.checked
        assert not reader.driver.review.can_undo

    def test_the_browser_continues_a_confirmed_reading(self, reader, results, plan):
        reader.next()
        reader.read()
        case = case_of(results, plan[0])
        review = OpenReview(case, reading_by("Ann"), case.scan()).review
        assert review.result("threshold").total.agatston == reader.driver.review.result("threshold").total.agatston
        assert review.confirmations == reader.driver.review.confirmations
        assert review.confirmations["threshold"].reader == "Ann"
        assert review.can_undo
        assert reader.listed()[0][:2] == ["Case 1", "confirmed"], "hidden until all have read"
        assert float(reader.listed()[0][2]) == round(review.result("threshold").total.agatston, 1)

    def test_a_reading_is_resumed_with_its_undo(self, reader, results):
        colours = slicer.util.getNodesByClass("vtkMRMLDisplayNode")
        reader.next()
        reader.driver.assign(reader.driver.lesions()[0]["Slices"], "RCA")
        total = reader.driver.review.result("threshold").arteries[Artery.RCA]
        reader.name("Bob")
        reader.driver.settle()
        assert reader.driver.review is None
        assert slicer.util.getNodesByClass("vtkMRMLSegmentationNode") == []
        assert slicer.util.getNodesByClass("vtkMRMLDisplayNode") == colours, "nothing is drawn any more"
        reader.name("Ann")
        assert reader.listed()[0][1] == "begun"
        reader.next()
        assert reader.driver.review.result("threshold").arteries[Artery.RCA] == total
        reader.ui.undoButton.click()
        reader.driver.settle()
        assert not reader.driver.review.result("threshold").arteries[Artery.RCA].lesions
        reader.driver.widget._closeReading()
        reader.next()
        assert reader.driver.review.can_redo
        slicer.mrmlScene.Clear(0)
        reader.driver.settle()
        assert reader.reading is None
        assert not reader.ui.readingFrame.visible

    def test_a_change_that_cannot_be_recorded_closes_the_reading(self, reader, results, plan):
        reader.next()
        file = file_of(case_of(results, plan[0]), reading_by("Ann"))
        before = file.read_text(encoding="utf-8") + "\n"
        file.write_text(before, encoding="utf-8")
        reader.driver.assign(reader.driver.lesions()[0]["Slices"], "RCA")
        reader.driver.settle()
        assert reader.reading is None
        assert "another program has changed" in reader.ui.statusLabel.text
        assert file.read_text(encoding="utf-8") == before

    def test_a_reading_that_cannot_be_opened_names_no_scan(self, reader, results, plan):
        scan = plan[0].scan
        (results / scan / "heart.nii.gz").unlink()
        reader.ui.openReadingButton.click()
        reader.driver.settle()
        assert reader.reading is None
        assert "Case 1" in reader.ui.statusLabel.text
        assert scan not in reader.ui.statusLabel.text

    def test_a_new_score_of_the_ct_closes_the_reading_and_keeps_the_ct(self, reader):
        reader.next()
        nodes = reader.driver.review.nodes
        reader.driver.process = reader.driver.widget.scorer.job.process = ScriptedProcess()
        reader.driver.score(networks=True)
        assert reader.reading is None
        assert reader.driver.review.nodes.volume is nodes.volume
        assert slicer.mrmlScene.IsNodePresent(nodes.volume)
        assert nodes.volume.GetSaveWithScene()
        assert not slicer.mrmlScene.IsNodePresent(nodes.calcium)


def test_the_panel_makes_a_plan(open_panel, results):
    reader = Reader(open_panel(), results, "Ann, Bob")
    reader.ui.planButton.click()
    assert planned_readers(results) == READERS
    planned = plan_of(results, cases_in(results), READERS)
    assert all(reading.is_blind for reading in planned)
    assert len(planned) == 2 * (len(SCANS) + round(0.2 * len(SCANS)))
    assert reader.driver.state.exportReader == "Ann"
    assert reader.listed()[0][:2] == ["Case 1", "to read"]
    assert reader.ui.planButton.isHidden()


@pytest.mark.long
def test_the_command_writes_the_tables(reader, results, tmp_path, monkeypatch):
    assert not reader.ui.tablesButton.enabled, "the others' answers are hidden from a reader"
    for name in READERS:
        reader.name(name)
        for n in range(4):
            reader.next()
            assert f"Case {n + 1}" in reader.ui.headLabel.text
            reader.read()
        reader.ui.openReadingButton.click()
        assert "no other reading" in reader.ui.readingsLabel.text
    assert len(slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode")) == 1, "earlier readings leave the scene"
    import qt  # needs the desktop host

    monkeypatch.setattr(qt.QFileDialog, "getExistingDirectory", lambda *_args: str(tmp_path))
    reader.ui.tablesButton.click()
    assert eventually(lambda: slicer.app.processEvents() or (tmp_path / "readings").is_dir())
    reader.driver.settle()
    assert str(tmp_path / "readings") in reader.ui.readingsLabel.text
    with (Path(tmp_path) / "readings" / "agreement.csv").open(encoding="utf-8", newline="") as lines:
        listed = list(csv.DictReader(lines))
    assert {(row["first"], row["second"]) for row in listed} == {
        ("Ann", "Bob"),
        ("Ann", "Ann again"),
        ("Bob", "Bob again"),
    }


def test_without_a_plan_a_single_reader_reads_every_scan(open_panel, results):
    """The field may hold the names of several readers, where a plan is refused."""
    reader = Reader(open_panel(), results, "Ann, Bob")
    assert [row[0] for row in reader.listed()] == list(SCANS)
    assert not reader.ui.openReadingButton.enabled
    reader.ui.readingTable.cellDoubleClicked.emit(0, 0)
    assert "Enter the name of one reader" in reader.ui.readingsLabel.text
    assert reader.reading is None
    reader.name("Ann")
    reader.next()
    assert SCANS[0] in reader.ui.headLabel.text
    assert reader.driver.review.methods == ("threshold", "decomposition"), "it is not blind"
