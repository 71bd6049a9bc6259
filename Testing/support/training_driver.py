"""Shared by the training panel's tests: the panel on the stand-in of the desktop, driven like an annotator does."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from pathlib import Path

import slicer
from panel_driver import InThisProcess, ScriptedProcess, cells_of, eventually, titles_of

import desktop_host
from desktop_host import events

TABS = ("project", "annotate", "train", "evaluate")
TASKS = ("slices", "regions", "heart")
EFFECT = "SegmentEditorCACRegion"
ROOT = Path(__file__).parents[2]


def load_training(monkeypatch, main_window: bool = True, effect: bool = False) -> None:
    """Load CAC Scoring and CAC Training as after Slicer's startup, optionally with the brush for regions."""
    if effect:
        monkeypatch.syspath_prepend(str(ROOT / "CACScoring" / EFFECT))
    desktop_host.load_panel(monkeypatch, "CACScoring", main_window=main_window)
    desktop_host.load(monkeypatch, "CACTraining")
    if effect:
        desktop_host.load(monkeypatch, EFFECT)
    slicer.app.startupCompleted.emit()


def on_page(driver: TrainingDriver, name: str, project) -> TrainingDriver:
    """Open a project on a page whose commands a scripted process runs."""
    driver.process = getattr(driver.widget, name).job.process = ScriptedProcess()
    driver.open_project(project.folder)
    driver.tab(name)
    return driver


class TrainingDriver:
    """The opened panel and a user's actions. Call `load_training` first.

    Attributes:
        widget: The panel; widget.train and widget.evaluate have the widgets of the last two pages.
        ui: Widgets of the first two pages.
        processes: Processes in this process by section; empty if `real`, where Slicer's Python runs the commands.
    """

    def __init__(self, real: bool = False) -> None:
        self.widget = desktop_host.open_panel("CACTraining")
        self.ui = self.widget.ui
        self.processes: dict[str, InThisProcess] = {}
        if not real:
            self.processes = {name: InThisProcess() for name in ("project", "annotate", "prepare")}
            self.widget.project.job.process = self.processes["project"]
            self.widget.annotate.job.process = self.processes["annotate"]
            self.widget.annotate.prepare.job.process = self.processes["prepare"]

    @property
    def state(self):
        """The parameter node."""
        return self.widget.logic.getParameterNode()

    @property
    def project(self):
        """The open `Project`; None without one."""
        return self.widget.project.project

    @property
    def opened(self):
        """The `OpenScan` that is being annotated; None without one."""
        return self.widget.annotate.opened

    @property
    def view(self):
        """Slice widget of the scan."""
        return slicer.app.layoutManager().sliceWidget("Red")

    def tab(self, name: str) -> None:
        """Turn to one of TABS."""
        self.ui.pages.setCurrentIndex(TABS.index(name))
        slicer.app.processEvents()

    def wait(self, seconds: float = 300) -> None:
        """Wait until no command of the project or for opening runs, and its results are shown."""
        annotate = self.widget.annotate
        busy = (self.widget.project.job, annotate.job, annotate.prepare.job)
        done = eventually(lambda: slicer.app.processEvents() or not any(job.isRunning for job in busy), seconds)
        if not done:
            raise TimeoutError(f"A command is still at work after {seconds:g} s")
        events.process_events()

    # The project

    def new_project(self, folder: Path, annotator: str = "AB") -> None:
        """Create a project with the button New, and set the annotator."""
        self.tab("project")
        self.ui.projectFolderEdit.setCurrentPath(str(folder))
        self.ui.newProjectButton.click()
        self.annotator(annotator)

    def open_project(self, folder: Path) -> None:
        self.tab("project")
        self.ui.projectFolderEdit.setCurrentPath(str(folder))
        self.ui.openProjectButton.click()
        slicer.app.processEvents()

    def annotator(self, name: str) -> None:
        """Set the annotator on the page Annotate."""
        self.ui.annotatorEdit.setText(name)
        self.ui.annotatorEdit.editingFinished.emit()
        slicer.app.processEvents()

    def add(self, source: Path) -> None:
        """Add a folder of scans, or a file, and wait for it."""
        self.tab("project")
        dialog = "_askForFolder" if Path(source).is_dir() else "_askForFile"
        setattr(self.widget.project, dialog, lambda title: str(source))
        (self.ui.addFolderButton if Path(source).is_dir() else self.ui.addFileButton).click()
        self.wait()

    def split(self, training: int = 60, validation: int = 20, test: int = 20) -> None:
        """Split the patients by shares in per cent."""
        self.tab("project")
        boxes = (self.ui.trainingBox, self.ui.validationBox, self.ui.testBox)
        for box, value in zip(boxes, (training, validation, test), strict=True):
            box.setValue(value)
        self.ui.splitButton.click()
        slicer.app.processEvents()

    def check(self) -> list[str]:
        """Press Check, wait, and return the findings."""
        self.tab("project")
        self.ui.checkSectionButton.collapsed = False
        self.ui.checkButton.click()
        self.wait()
        return self.ui.findingLabel.text.split("\n")

    @staticmethod
    def rows(table) -> list[dict[str, str]]:
        """A table's rows by column title (line ends as spaces)."""
        return [dict(zip(titles_of(table), cells, strict=True)) for cells in cells_of(table)]

    # Annotation

    def open_scan(self, row: int = 0) -> None:
        """Open a scan by its row of the work list, and wait for it."""
        self.tab("annotate")
        self.ui.workTable.setCurrentCell(row, 0)
        self.ui.openScanButton.click()
        self.wait()

    def next_scan(self) -> None:
        """Press the key for the next scan, and wait for it."""
        self.key("PgDown")
        self.wait()

    def task(self, name: str) -> None:
        """Turn to one of TASKS."""
        self.ui.taskTabs.setCurrentIndex(TASKS.index(name))
        slicer.app.processEvents()

    def key(self, keys: str) -> None:
        """Press a key while the slice view has the focus; without a main window, the panel."""
        if slicer.app.layoutManager() is None:
            events.key(self.ui.slicesPage, keys)
        else:
            self.view.sliceView().layout().itemAt(0).widget().setFocus()
            events.key(self.view, keys)

    def keys(self, presses: Iterable[str]) -> None:
        """Press keys one after another, such as "VVNU"."""
        for press in presses:
            self.key(press)

    def label_all(self, label: Callable[[int], str]) -> int:
        """Label all slices of the open scan by keys, given by a function of k; return the number of presses."""
        self.task("slices")
        section, presses = self.widget.annotate.slices, 0
        while section.progress[0] < section.progress[1]:
            before = section.progress
            self.key(label(section.current))
            presses += 1
            if section.progress == before:
                raise RuntimeError(f"Slice {section.current} was not labelled: {self.ui.slicesStatusLabel.text}")
        return presses

    def paint(self, artery: str, start_kji, end_kji=None, diameter_mm: float = 10.0) -> int:
        """Paint a spherical stroke between two voxels (k, j, i) with the brush CAC Region; return the voxels changed.

        Needs `load_training(…, effect=True)`. The mask is saved at once.
        """
        from CACScoringLib.core.labels import site_called

        self.task("regions")
        section = self.widget.annotate.regions
        section.editor.setActiveEffectByName("CAC Region")
        effect = section.editor.activeEffect().self()
        effect.chooseArtery(site_called(artery))
        effect.scriptedEffect.setParameter("DiameterMm", diameter_mm)
        ends = [self.ras(kji) for kji in (start_kji, end_kji or start_kji)]
        changed = effect.paint(effect.brushAt(*ends))
        self.settle()
        return changed

    def ras(self, kji) -> tuple[float, float, float]:
        """RAS position of a voxel of the open scan in mm."""
        x, y, z = self.opened.grid.TransformContinuousIndexToPhysicalPoint([float(n) for n in kji[::-1]])
        return -x, -y, z

    def settle(self) -> None:
        """Wait until the masks are saved."""
        annotate = self.widget.annotate
        timers = (annotate.regions._timer, annotate.heart._timer)
        slicer.app.processEvents()
        eventually(lambda: slicer.app.processEvents() or not any(t.isActive() for t in timers), 5)
        time.sleep(0.01)
        events.process_events()
