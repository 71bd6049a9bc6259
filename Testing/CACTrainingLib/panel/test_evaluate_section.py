"""The evaluation page: studies in the background, view of their results, and installation of models."""

import json
from pathlib import Path

import pytest
import slicer
from handmade_networks import untrained, usable
from panel_driver import InThisProcess, ScriptedProcess, line
from training_driver import on_page

from CACScoringLib.models.cards import VERDICT, find_model, list_models
from CACTrainingLib.cli.main import make_parser
from CACTrainingLib.evaluation.page import write_study
from CACTrainingLib.evaluation.parts import Section


@pytest.fixture
def project(empty_project):
    return empty_project


@pytest.fixture
def models(tmp_path):
    """Folder of the user's models."""
    return tmp_path / "installed"


@pytest.fixture
def driver(project, driver):
    return on_page(driver, "evaluate", project)


@pytest.fixture
def section(driver):
    return driver.widget.evaluate


def choose(box, text: str) -> None:
    """Select the entry of a box that begins with a text."""
    box.setCurrentIndex(next(n for n in range(box.count) if box.itemText(n).startswith(text)))
    slicer.app.processEvents()


def look_again(driver) -> None:
    """Leave the page and come back, so that it reads the folders again."""
    driver.tab("project")
    driver.tab("evaluate")


class TestStudies:
    @pytest.mark.long
    def test_every_study_takes_its_options(self, driver, section, project):
        from CACTrainingLib.panel.evaluate_section import StudyChoice  # the panel has to be loaded first

        cards = [untrained("slices", name, project.models_folder) for name in ("one", "two")]
        look_again(driver)
        for study in StudyChoice:
            section._state.evaluateStudy, section._state.trainAnnotator = study, "me"
            section._state.evaluateModel, section._state.evaluateOther = map(str, cards)
            _, commands = section._commands()
            parsed = [vars(make_parser().parse_args(command)) for command in commands]
            compares = study == StudyChoice.COMPARISON
            assert [command[0] for command in commands] == ["evaluate"] * (1 + compares)
            expected = "accuracy" if compares else study.value
            scans = {"study": expected, "data": project.folder, "use": "test", "annotator": "me"}
            assert all(options.items() >= scans.items() for options in parsed)

    def test_progress_cancel_and_failure(self, driver, section):
        ui = section.ui
        ui.evaluateRunButton.click()
        driver.process.say(line(event="step", step="scans", index=0, count=2))
        driver.process.say(line(event="counted", done=1, count=2))
        assert ui.evaluateStatusLabel.text == "Step 1 of 2: scans …"
        assert ui.evaluateBar.value == 250
        assert (ui.evaluateRunButton.text, ui.evaluateStudyBox.enabled) == ("Cancel", False)
        ui.evaluateRunButton.click()
        assert driver.process.killed
        assert "Cancelled" in ui.evaluateStatusLabel.text
        assert (ui.evaluateRunButton.text, ui.evaluateStudyBox.enabled) == ("Evaluate", True)
        ui.evaluateRunButton.click()
        driver.process.say(line(event="warning", code="x", message="Two of the patients were trained on."))
        driver.process.say(line(event="failed", message="There is nothing to study.", exit_code=3))
        driver.process.end(3)
        assert ui.evaluateStatusLabel.text == "There is nothing to study.\n⚠ Two of the patients were trained on."
        assert ui.evaluateRunButton.enabled

    def test_comparison_takes_two_models_of_one_network(self, driver, section, project):
        ui = section.ui
        untrained("slices", "first", project.models_folder)
        untrained("decomposition", "other", project.models_folder)
        choose(ui.evaluateStudyBox, "Comparison")
        for model, earlier in (("those", "those"), ("first", "first"), ("first", "other")):
            choose(ui.evaluateModelBox, model)
            choose(ui.evaluateOtherBox, earlier)
            assert not ui.evaluateRunButton.enabled
            assert "two models of one network" in section._hintLabel.text

    def test_comparison_evaluates_before_and_after(self, driver, section, project):
        ui = section.ui
        card = untrained("slices", "new", project.models_folder)
        choose(ui.evaluateStudyBox, "Comparison")
        choose(ui.evaluateModelBox, "new")
        choose(ui.evaluateOtherBox, "those that come with CAC")
        ui.evaluateRunButton.click()
        arguments = []
        verdict = Section(VERDICT, "Before and after", ("Calcium map: better.",))
        for message in ("One scan has no regions.", ""):
            arguments.append(driver.process.arguments[2:])
            if message:
                driver.process.say(line(event="warning", code="x", message=message))
            if "--before" in arguments[-1]:
                (output,) = map(Path, driver.process.option("--output"))
                output.mkdir(parents=True)
                write_study(output, "Comparison", [verdict], {})
            driver.process.end(0)
            slicer.app.processEvents()
        before, after = (make_parser().parse_args(words) for words in arguments)
        assert (before.data, before.use) == (after.data, after.use) == (project.folder, "test")
        assert ([*before.model], [*after.model]) == ([], [str(card)])
        assert before.output == after.before != after.output
        assert ui.evaluateStatusLabel.text == (
            "Done: Comparison, test scans: new.\nCalcium map: better.\n⚠ One scan has no regions."
        )


@pytest.fixture
def study(project):
    """A finished study."""
    folder = project.studies_folder / "heart-test"
    folder.mkdir(parents=True)
    write_study(folder, "Heart", [Section("data", "The scans", ("Three.",))], {"Date": "today"})
    return folder


class TestStudyView:
    def test_finished_study_is_chosen_and_its_page_opens(self, driver, section, study, monkeypatch):
        import qt

        opened = []
        monkeypatch.setattr(qt.QDesktopServices, "openUrl", lambda url: opened.append(url.toLocalFile()))
        ui = section.ui
        assert (ui.studyBox.count, ui.studyPageButton.enabled) == (0, False)
        ui.evaluateRunButton.click()
        driver.process.say(line(event="done", output=str(study)))
        driver.process.end(0)
        assert ui.studyBox.currentText == "Heart, test scans"
        ui.studyPageButton.click()
        assert opened == [str(study / "study.html")]


class TestInstall:
    @pytest.fixture
    def section(self, driver, project):
        usable("mine", project.models_folder)
        driver.widget.evaluate.install.job.process = InThisProcess()
        look_again(driver)
        return driver.widget.evaluate

    @pytest.fixture
    def scoring(self, driver):
        return slicer.modules.cacscoring.widgetRepresentation().self().logic.getParameterNode()

    def press(self, section, name: str) -> str:
        """Press a button; return the message at its end."""
        getattr(section.ui, f"{name}Button").click()
        while section.install.job.isRunning:
            slicer.app.processEvents()
        return section.ui.installLabel.text

    @pytest.mark.long
    def test_map_is_calibrated_with_the_models_in_use(self, driver, section, scoring, project, models):
        card = untrained("decomposition", "map", project.models_folder)
        untrained("slices", "own", models)
        driver.process = section.install.job.process = ScriptedProcess()
        section.update()
        assert not section.ui.calibrateButton.visible  # of slices
        choose(section.ui.installModelBox, "map")
        scoring.slicesModel = "own"
        section.ui.calibrateButton.click()
        assert driver.process.option("--decomposition") == [str(card)]
        assert driver.process.option("--slices") == [str(models / "own.json")]
        assert driver.process.option("--territories") == [str(find_model("territories").path)]
        assert driver.process.option("--data") == [str(project.folder)]
        driver.process.say(line(event="counted", done=1, count=4))
        assert "1 of 4 scans" in section.ui.installLabel.text
        assert not section.ui.installButton.enabled
        driver.process.say(line(event="failed", message="No scans.", exit_code=3))
        driver.process.end(3)
        assert section.ui.installLabel.text == "Not calibrated; nothing was changed. No scans."
        section.ui.calibrateButton.click()
        driver.process.end(0)
        assert "map is calibrated" in section.ui.installLabel.text

    @pytest.mark.long
    def test_a_model_from_another_folder(self, section, scoring, tmp_path):
        (tmp_path / "download").mkdir()
        (tmp_path / "no.json").write_text("{}", encoding="utf-8")
        for card in (tmp_path / "no.json", usable("other", tmp_path / "download")):
            section.install._askForFile = lambda title, card=card: str(card)
            section.ui.installFileButton.click()
            assert ("is not of schema cac-model/1" in section.ui.installLabel.text) == (card.name == "no.json")
        assert section.ui.installModelBox.count == 2
        assert section.ui.installModelBox.currentText == "other (slices)"
        assert "chosen in CAC Scoring" in self.press(section, "install")
        assert find_model("slices", "other").origin == "user"
        assert scoring.slicesModel == "other"

    def test_an_uncalibrated_map_is_calibrated_before_installation(self, section, project):
        untrained("decomposition", "map", project.models_folder)
        section.update()
        choose(section.ui.installModelBox, "map")
        assert "Calibrate it first" in section.ui.cardLabel.text
        assert not section.ui.installButton.enabled
        choose(section.ui.installModelBox, "mine")
        assert section.ui.installButton.enabled

    @pytest.mark.long
    def test_an_earlier_model_of_the_name_is_kept(self, section, project):
        assert "earlier one" not in self.press(section, "install")
        for file in project.models_folder.iterdir():
            file.unlink()
        usable("mine", project.models_folder, 1.01)
        section.update()
        assert "The earlier one is kept" in self.press(section, "install")
        assert self.press(section, "rollBack") == "The earlier mine is in place again."

    @pytest.mark.long
    def test_installed_and_rolled_back(self, section, scoring):
        assert "chosen in CAC Scoring" in self.press(section, "install")
        assert find_model("slices", "mine").origin == "user"
        assert scoring.slicesModel == "mine"
        assert "✓ It is installed." in section.ui.cardLabel.text
        assert "no longer installed" in self.press(section, "rollBack")
        assert scoring.slicesModel == ""
        assert [model for model in list_models("slices") if model.origin == "user"] == []

    def test_model_of_other_preprocessing_changes_nothing(self, section, project, models):
        path = project.models_folder / "mine.json"
        content = json.loads(path.read_text(encoding="utf-8"))
        path.write_text(json.dumps({**content, "preprocessing_version": 99}), encoding="utf-8")
        section.update()
        assert "prepared by version 99" in section.ui.cardLabel.text
        message = self.press(section, "install")
        assert "version 99" in message
        assert not list(models.glob("*.json"))
