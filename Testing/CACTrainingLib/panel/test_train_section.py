"""The training page: arguments of the command line, checks, and the list of trainings."""

import json
import os
import shlex
import zipfile

import pytest
import slicer
import vtk
from handmade_networks import untrained
from panel_driver import line, put_slicers_python_on_the_path
from training_driver import on_page

from CACTrainingLib.cli import main as cli
from CACTrainingLib.training import background_runs as training_runs
from CACTrainingLib.training.run_folder import training_lock


@pytest.fixture
def project(empty_project):
    return empty_project


@pytest.fixture
def driver(project, driver):
    return on_page(driver, "train", project)


@pytest.fixture
def section(driver):
    return driver.widget.train


def finish_check(driver, *findings: tuple[str, str]) -> None:
    """End the check with findings, each a severity and a message."""
    driver.widget.train.check()
    for severity, message in findings:
        driver.process.say(line(event="finding", severity=severity, message=message, scans=[], remedy="prepare"))
    failed = any(severity == "error" for severity, _message in findings)
    if failed:
        driver.process.say(line(event="failed", message="1 thing must be mended.", exit_code=3))
    driver.process.end(3 if failed else 0)


class TestCheck:
    def test_error_blocks_the_training_and_is_listed_first(self, driver, section):
        section.check()
        driver.process.say(line(event="failed", message="The project is damaged.", exit_code=3))
        driver.process.end(3)
        assert "The project is damaged." in section.ui.trainCheckLabel.text
        assert not section.ui.trainStartButton.enabled
        finish_check(driver, ("warning", "Only two patients."), ("error", "No labels."))
        lines = section.ui.trainCheckLabel.text.splitlines()
        assert [line[:10] for line in lines] == ["✗ No label", "⚠ Only two"]
        assert not section.ui.trainStartButton.enabled

    def test_missing_packages_are_installed_first(self, driver, section, monkeypatch):
        """The check needs the packages, too."""
        missing, installed = {"torch>=2.13"}, []

        def install(requirement: str, **_options) -> None:
            installed.append(requirement.split()[0])
            missing.clear()

        monkeypatch.setattr(slicer.packaging, "pip_check", lambda requirement: requirement not in missing)
        monkeypatch.setattr(slicer.packaging, "pip_install", install)
        monkeypatch.setattr(
            slicer.util, "confirmOkCancelDisplay", lambda text, **how: how["windowTitle"] == "CAC Training"
        )
        monkeypatch.setattr(slicer.app, "_testing", False)
        section.refresh()
        assert "not installed: torch" in section.ui.trainCheckLabel.text
        assert (section.ui.trainStartButton.enabled, section.ui.trainCheckButton.text) == (False, "Install …")
        section.ui.trainCheckButton.click()
        assert installed == ["torch>=2.13"]
        driver.process.end(0)
        assert (section.ui.trainStartButton.enabled, section.ui.trainCheckButton.text) == (True, "Check again")


class TestArguments:
    def arguments(self, driver, monkeypatch) -> list[str]:
        """Arguments of the training that the button starts."""
        started = []
        monkeypatch.setattr(training_runs, "start", lambda *call: started.append(call))
        put_slicers_python_on_the_path(driver.project.folder.parent, monkeypatch)
        if driver.state.trainNetwork.value not in ("territories", "lesions"):
            finish_check(driver)
        else:
            driver.widget.train.check()
        driver.widget.train.ui.trainStartButton.click()
        (_python, environment, arguments, folder) = started[0]
        assert "CACTraining" in environment["PYTHONPATH"]
        assert folder.name.endswith(".training")
        return arguments

    def test_free_name_is_proposed_and_taken(self, driver, section, project, monkeypatch):
        (project.models_folder / "slices-1.training").mkdir(parents=True)
        section.refresh()
        assert section.ui.trainNameBox.placeholderText == "slices-2"
        arguments = self.arguments(driver, monkeypatch)
        assert arguments[:2] == ["train", "slices"]
        assert arguments[arguments.index("--output") + 1] == str(project.models_folder / "slices-2")
        assert arguments[-2:] == ["--progress", "json"]
        assert driver.state.shownRun == "slices-2"

    def test_every_option_is_passed_on(self, driver, section, project, monkeypatch, tmp_path):
        card = untrained("decomposition", "first", project.models_folder)
        section.refresh()
        state, ui = driver.state, section.ui
        ui.trainNetworkBox.setCurrentIndex(2)
        ui.trainMethodBox.setCurrentIndex(2)
        ui.trainPresetBox.setCurrentIndex(1)
        ui.trainDeviceBox.setCurrentIndex(1)
        box = ui.trainStartBox
        box.setCurrentIndex(next(n for n in range(box.count) if box.itemText(n).startswith("first")))
        ui.trainMinutesBox.setValue(2.5)
        ui.trainStepsBox.setValue(40)
        ui.trainPatienceBox.setValue(0)
        ui.trainDataBox.setCurrentPath(str(tmp_path))
        ui.trainNameBox.setText("my-map")
        assert state.trainStart == str(card)
        arguments = self.arguments(driver, monkeypatch)
        assert arguments[:6] == ["train", "decomposition", "--data", str(project.folder), "--data", str(tmp_path)]
        for option, value in {
            "--preset": "paper-cyclegan", "--device": "cpu", "--start": str(card), "--steps": "40",
            "--minutes": "2.5", "--settings": '{"loop": {"validate_every": 8}}',
        }.items():  # fmt: skip
            assert arguments[arguments.index(option) + 1] == value
        # The command line parses all options before it refuses the start, which is no model any more.
        card.unlink()
        assert cli.main(arguments) == 3

    def test_territories_are_learned_from_digital_patients_alone(self, driver, section, monkeypatch):
        """Options for scans are hidden and not passed, and the project is not checked."""
        from CACTrainingLib.training import territories

        state, ui = driver.state, section.ui
        state.trainAnnotator, state.trainData, state.trainMinutes = "AB", str(driver.project.folder), 1.5
        state.trainStart = str(driver.project.folder / "none.json")
        scans_only = (ui.trainAnnotatorBox, ui.trainStartBox)
        assert all(widget.visible for widget in scans_only)
        ui.trainNetworkBox.setCurrentIndex(0)
        ui.trainPresetBox.setCurrentIndex(1)
        assert (ui.trainNetworkBox.currentText, ui.trainPresetBox.itemText(1)) == ("Heart and territories", "Large")
        assert not any(widget.visible for widget in scans_only)
        assert ui.trainDataBox.isHidden()
        driver.process.arguments = None
        arguments = self.arguments(driver, monkeypatch)
        assert driver.process.arguments is None
        received = []
        monkeypatch.setattr(territories, "train", lambda *arguments: received.extend(arguments))
        cli.main(arguments)
        options, settings, _ = received
        assert (options.preset, settings.loop.minutes, settings.loop.patience) == ("large", 1.5, 10)
        assert options.output == driver.project.models_folder / "territories-1"
        ui.trainNetworkBox.setCurrentIndex(1)
        assert all(widget.visible for widget in scans_only)
        assert ui.trainPresetBox.itemText(1) == "As published (large)"

    def test_outlined_hearts_of_the_project_are_learned(self, driver, section, project, monkeypatch):
        section.ui.trainNetworkBox.setCurrentIndex(0)
        section.ui.trainPresetBox.setCurrentIndex(2)
        assert section.ui.trainStartBox.currentText == "the weights that come with CAC"
        finish_check(driver)
        assert " --network territories " in " ".join(driver.process.arguments)
        arguments = self.arguments(driver, monkeypatch)
        assert arguments[:4] == ["train", "territories", "--data", str(project.folder)]
        assert arguments[arguments.index("--preset") + 1] == "real-hearts"

    @pytest.mark.parametrize(("size", "preset"), [(0, "compact"), (2, "real-lesions")])
    def test_lesions_are_learned_from_digital_patients_and_painted_ones(
        self, driver, section, project, monkeypatch, size, preset
    ):
        from CACTrainingLib.training import lesions

        ui, received = section.ui, []
        ui.trainNetworkBox.setCurrentIndex(3)
        ui.trainPresetBox.setCurrentIndex(size)
        assert ui.trainNetworkBox.currentText == "Lesions"
        assert ui.trainAnnotatorBox.visible == (preset == "real-lesions")
        arguments = self.arguments(driver, monkeypatch)
        assert ("painted lesions" in ui.trainCheckLabel.text) == (preset == "real-lesions")
        monkeypatch.setattr(lesions, "train", lambda *arguments: received.extend(arguments))
        assert cli.main(arguments) == 0
        assert received[0].preset == preset
        assert received[0].data == ((project.folder,) if preset == "real-lesions" else ())

    def test_real_slices_with_digital_patients(self, driver, section, project, monkeypatch, tmp_path):
        state, ui = driver.state, section.ui
        ui.trainNetworkBox.setCurrentIndex(2)
        box = ui.trainPresetBox
        state.trainMethod = type(state.trainMethod).CYCLEGAN  # of the presets that have methods
        box.setCurrentIndex(2)
        assert (box.currentText, ui.trainMethodBox.visible) == ("Real slices and digital patients", False)
        assert ui.trainStartBox.currentText == "the weights that come with CAC"
        finish_check(driver)
        assert " --method labels " in " ".join(driver.process.arguments)
        assert "⚠ Half of the slices should come from digital patients" in ui.trainCheckLabel.text
        ui.trainDataBox.setCurrentPath(str(tmp_path))
        assert "⚠" not in ui.trainCheckLabel.text
        arguments = self.arguments(driver, monkeypatch)
        assert arguments[2:6] == ["--data", str(project.folder), "--data", str(tmp_path)]
        assert arguments[arguments.index("--preset") + 1] == "real-slices"
        assert "--start" not in arguments
        ui.trainNetworkBox.setCurrentIndex(0)
        assert (box.currentText, state.trainPreset.value) == ("Compact", "real-slices")
        assert section.ui.elsewhereEdit.plainText.count("--preset compact") == 2

    def test_commands_for_another_machine(self, driver, section, project):
        driver.state.trainName = "far"
        single, distributed = section.ui.elsewhereEdit.plainText.split("\n\n")
        words = shlex.split(single)
        assert words[:5] == ["./cac", "train", "slices", "--data", project.folder.name]
        assert words[words.index("--output") + 1] == f"{project.folder.name}/models/far"
        assert shlex.split(distributed)[0].endswith("torchrun")
        assert "--device" not in distributed
        section.ui.elsewhereCopyButton.click()
        import qt

        assert qt.QApplication.clipboard().text() == section.ui.elsewhereEdit.plainText


@pytest.fixture
def run(project):
    """Folder of a training killed after its second validation, with two sample pictures and a warning."""
    import qt

    folder = project.models_folder / "map-1.training"
    (folder / "samples").mkdir(parents=True)
    about = {"arguments": ["train", "decomposition"], "network": "decomposition", "steps": 100, "started": "2026"}
    (folder / "run.json").write_text(json.dumps(about), encoding="utf-8")
    (folder / "checkpoint.pt").write_bytes(b"")
    quiet = {"warnings": {}, "ended": ""}
    ill = {"warnings": {"map-empty": "The calcium map is empty."}, "ended": ""}
    lines = [
        {"event": "training", "step": 20, "seconds": 31.0, "loss": 1.0},
        {"event": "validation", "step": 20, "seconds": 35.0, "best": True, "overlap": 0.25, "auc": 0.5, **quiet},
        {"event": "training", "step": 40, "seconds": 71.0, "loss": 0.5},
        {"event": "validation", "step": 40, "seconds": 75.0, "best": False, "overlap": 0.125, "auc": 0.75, **ill},
    ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(event) + "\n" for event in lines), encoding="utf-8")
    picture = qt.QPixmap(912, 516)
    picture.fill(qt.QColor("gray"))
    for step in (20, 40):
        picture.save(str(folder / "samples" / f"step-{step:06d}.png"))
    return folder


def go_on(run) -> None:
    """Add a line of step 60 to the curves."""
    with (run / "metrics.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps({"event": "training", "step": 60, "seconds": 90.0, "loss": 0.25}) + "\n")


@pytest.fixture
def page(driver, run):
    """The page with that training selected."""
    driver.state.shownRun = "map-1"
    driver.widget.train.runs.update()
    return driver.widget.train


class TestRuns:
    def test_is_found_and_shown(self, driver, page):
        ui = page.ui
        (row,) = driver.rows(ui.runsTable)
        assert list(row.values()) == ["map-1", "Calcium map", "stopped", "40/100", "overlap 0.250"]
        assert "step 40/100, 1:15 min" in ui.runLabel.text
        assert "Best: overlap 0.250 at step 20" in ui.runLabel.text
        assert ui.runWarningsLabel.text == "⚠ The calcium map is empty."
        assert (ui.stopButton.enabled, ui.resumeButton.enabled, ui.resumeButton.text) == (False, True, "Resume")
        assert ui.sampleStepLabel.text == "step 40", "the latest, until another is chosen"
        assert 100 < ui.sampleLabel.pixmap.width() <= max(ui.sampleLabel.width, 440)
        ui.sampleSlider.setValue(0)
        page.runs.poll()
        assert ui.sampleStepLabel.text == "step 20"

    def test_a_running_training_is_followed(self, page, run):
        about = json.loads((run / "run.json").read_text(encoding="utf-8"))
        (run / "run.json").write_text(json.dumps({**about, "pid": os.getpid()}), encoding="utf-8")
        with training_lock(run):
            page.runs.poll()
            assert page.ui.runsTable.item(0, 2).text() == "running"
            assert (page.ui.stopButton.enabled, page.ui.resumeButton.enabled) == (True, False)
            go_on(run)
            page.runs.poll()
            assert page.ui.runsTable.item(0, 3).text() == "60/100"


@pytest.mark.main_window
class TestCurves:
    def charts(self, run):
        from CACTrainingLib.panel import curve_nodes

        return curve_nodes.chartsOf(str(run))

    def views(self) -> dict[str, object]:
        """Plot views by id of their chart; Slicer's order of views is arbitrary."""
        layouts = slicer.app.layoutManager()
        widgets = [layouts.plotWidget(n) for n in range(layouts.plotViewCount)]
        return {widget.mrmlPlotViewNode().GetPlotChartNodeID(): widget for widget in widgets}

    def test_shown_and_put_away(self, page, run):
        layouts = slicer.app.layoutManager()
        before = layouts.layout
        page.ui.curvesButton.click()
        charts = self.charts(run)
        slicer.app.processEvents()
        views = self.views()
        assert views.keys() == {charts["training"].GetID(), charts["validation"].GetID()}
        assert all(widget.visible for widget in views.values())
        series = [charts["validation"].GetNthPlotSeriesNode(n).GetName() for n in range(2)]
        assert series == ["auc", "overlap"]
        page.ui.curvesButton.click()
        assert layouts.layout == before

    def test_grow_in_place_and_are_not_saved_with_the_scene(self, page, run, tmp_path):
        page.ui.curvesButton.click()
        nodes = slicer.mrmlScene.GetNumberOfNodes()
        go_on(run)
        page.runs.poll()
        loss = self.charts(run)["training"].GetNthPlotSeriesNode(0).GetTableNode().GetTable()
        assert [loss.GetValueByName(n, "loss").ToDouble() for n in range(loss.GetNumberOfRows())] == [1.0, 0.5, 0.25]
        assert slicer.mrmlScene.GetNumberOfNodes() == nodes
        slicer.app.processEvents()
        view = self.views()[self.charts(run)["training"].GetID()].plotView()
        view.repaint()
        assert view.chart().GetAxis(vtk.vtkAxis.BOTTOM).GetMaximum() >= 60
        assert slicer.util.saveScene(str(tmp_path / "scene.mrb"))
        with zipfile.ZipFile(tmp_path / "scene.mrb") as bundle:
            scene = next(bundle.read(name).decode() for name in bundle.namelist() if name.endswith(".mrml"))
        assert "<PlotView" in scene
        assert not {word for word in ("<PlotChart", "<PlotSeries", "<Table ") if word in scene}
