"""Findings about a project, and the actions of their links."""

from collections.abc import Mapping
from types import SimpleNamespace

import pytest

PROJECT = SimpleNamespace(scans=[SimpleNamespace(id=f"000{n}", name=f"scan <{n}>") for n in (1, 2)])


def finding(severity: str = "warning", message: str = "Look.", scans=(), remedy: str = "") -> Mapping:
    return {"severity": severity, "message": message, "scans": list(scans), "remedy": remedy}


pytestmark = pytest.mark.main_window(False)


@pytest.fixture
def lines(modules):
    """Function that formats findings about PROJECT as lines."""
    from CACTrainingLib.panel.findings import findingLines

    return lambda *findings: findingLines(findings, PROJECT)


class TestLines:
    def test_the_worst_comes_first(self, lines):
        assert [line[0] for line in lines(finding("note"), finding("error"), finding("warning"))] == ["✗", "⚠", "·"]

    def test_scans_are_named_and_their_ids_are_not_shown(self, lines):
        (line,) = lines(finding(message="2 < 3.", scans=["0002", "0009"], remedy="use"))
        assert line == '⚠ 2 &lt; 3. (scan &lt;2&gt;) <a href="use/0002">Choose a use</a>'

    def test_without_a_remedy_there_is_no_link(self, lines):
        assert lines(finding()) == ["⚠ Look."]


class TestLinks:
    """Links on the training page."""

    @pytest.fixture
    def training(self, driver, project):
        driver.open_project(project.folder)
        driver.tab("train")
        return driver

    def mend(self, driver, remedy: str, scan_id: str = "") -> None:
        driver.widget.train.ui.trainCheckLabel.linkActivated.emit(f"{remedy}/{scan_id}")

    def page(self, driver) -> str:
        return driver.ui.pages.tabText(driver.ui.pages.currentIndex)

    def test_split_leaves_the_page(self, training):
        self.mend(training, "split")
        assert all(scan.use for scan in training.project.scans)
        assert self.page(training) == "Train"

    def test_a_use_is_chosen_beside_its_scan(self, training):
        self.mend(training, "use", training.project.scans[2].id)
        assert (self.page(training), training.ui.scanTable.currentRow()) == ("Project", 2)
        assert training.ui.useBox.enabled

    @pytest.mark.parametrize(("remedy", "start"), [("add", "Folder with scans"), ("relocate", "")])
    def test_a_folder_is_asked_for(self, training, remedy, start):
        titles = []
        training.widget.project._askForFolder = lambda title: titles.append(title) or ""
        self.mend(training, remedy)
        assert (self.page(training), len(titles)) == ("Project", 1)
        assert titles[0].startswith(start)

    def test_prepare_begins(self, training):
        training.processes["prepare"].waits = True
        self.mend(training, "prepare")
        assert self.page(training) == "Annotate"
        assert training.processes["prepare"].arguments[2:4] == ["project", "prepare"]
        training.widget.annotate.prepare.cancel()

    def test_labels_choose_the_training(self, training):
        self.mend(training, "labels")
        state = training.state
        assert (state.trainNetwork.value, state.trainMethod.value) == ("decomposition", "labels")
