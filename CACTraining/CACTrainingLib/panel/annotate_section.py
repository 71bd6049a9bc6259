"""The annotation page: opens scans of the work list for the selected task."""

# Slicer's naming.
# ruff: noqa: N802, N803

from __future__ import annotations

from pathlib import Path
from typing import Any

import slicer
from slicer.i18n import tr as _

from CACScoringLib.core.errors import CTError
from CACScoringLib.panel.job import BackgroundJob, JobError, Steps, temporaryFolder
from CACScoringLib.panel.lifecycle import PanelSection
from CACScoringLib.panel.widgets import Keys, windowOf

from ..project.files import ProjectScan
from ..project.project import Project
from .masks_section import HEART, REGIONS, MaskSection
from .opening import OpenScan, hiddenFrom, loadScan, openVolume, removeNodes, showScan, showsNoOtherScan, volumeInScene
from .parameters import LIBRARY, AnnotationTask
from .slices_section import SlicesSection
from .work_list_section import PrepareSection, WorkListSection

_TASKS = (AnnotationTask.SLICES, AnnotationTask.REGIONS, AnnotationTask.HEART)
"""Tasks in the order of their pages."""


class AnnotateSection(PanelSection):
    """Widgets of the annotation page.

    Args:
        ui: Widgets by name.
    """

    def __init__(self, ui) -> None:
        self._ui = ui
        self._project: Project | None = None
        self._listing: tuple[Any, ...] = ()
        self._blind = False
        self._opened: OpenScan | None = None
        self._entered = False
        self.job = BackgroundJob(ui.workStatusLabel, ui.openingBar, library=LIBRARY)
        self.workList = WorkListSection(ui, self.open)
        self.prepare = PrepareSection(ui, self._refreshList)
        self.slices = SlicesSection(ui, self._labelled, self._refreshList)
        self.regions = MaskSection(ui, REGIONS, self._refreshList)
        self.heart = MaskSection(ui, HEART, self._refreshList)
        self._keys = Keys([windowOf(ui.taskTabs)], {"PgDown": lambda: self.workList.openNext()})
        ui.taskTabs.currentChanged.connect(self._taskChosen)
        ui.pages.currentChanged.connect(lambda *_args: self._pageChanged())
        ui.taskTabs.setEnabled(False)

    @property
    def opened(self) -> OpenScan | None:
        """The scan that is being annotated."""
        return self._opened

    # Calls of the panel

    def setState(self, state) -> None:
        super().setState(state)
        for section in (self.workList, self.prepare, self.slices):
            section.setState(state)

    def setProject(self, project: Project | None) -> None:
        """Set another project, or the same one with other scans; None for none."""
        is_another = project is None or self._project is None or project.folder != self._project.folder
        if is_another or (self._opened is not None and self._opened.scan.id not in {scan.id for scan in project.scans}):
            self.close()
        self._project = project
        self.workList.setProject(project)
        self.prepare.setProject(project)
        self._resumeScan()

    def updateParameters(self) -> None:
        """Show what has changed in the state."""
        state, ui = self._state, self._ui
        page = _TASKS.index(state.task)
        if ui.taskTabs.currentIndex != page:
            ui.taskTabs.setCurrentIndex(page)
        if self._opened is not None and state.annotator != self._opened.annotator:
            self.close()
        if state.blind != self._blind:
            self._blind = state.blind
            if state.blind:
                state.showSuggestion = False
            self.close()  # its displayed name changes
        listing = (state.order, state.blind, state.annotator)
        if listing != self._listing:
            self._listing = listing
            self._refreshList()
        self._resumeScan()
        self.slices.update()

    def enter(self) -> None:
        self._entered = True
        self._resumeScan()
        if self._opened is not None and not showsNoOtherScan(self._opened):
            showScan(self._opened)  # another module has put its own into the views
        self._activate()

    def exit(self) -> None:
        if self.job.isRunning:
            # Opening would change the views of another module.
            self.job.cancel()
            self.workList.say(_("Opening was stopped, because the module was left."))
        self._save()
        self._entered = False
        self._activate()

    def cleanup(self) -> None:
        self.prepare.cancel()
        self.close()
        for section in (self.slices, self.regions, self.heart):
            section.cleanup()
        self._keys.remove()

    def closeScene(self) -> None:
        # Save before the nodes are removed; the scene removes them itself.
        self.job.cancel()
        self._save()
        self._opened = None
        self.slices.setScan(None)
        self.regions.closeScene()
        self.heart.closeScene()
        self._activate()

    def nodeRemoved(self, node) -> None:
        """Close the scan after the user deleted its CT or mask, whose content is already saved."""
        if self._opened and node in (self._opened.volume, self.regions.segmentation, self.heart.segmentation):
            self.closeScene()
            removeNodes()
            self.workList.say(_("The scan was taken out of the scene. Open it again to continue."))

    # Scans

    def open(self, scanId: str, name: str) -> None:
        """Save and close the open scan, and begin to open another under the name that the annotator sees."""
        if self._project is None or not self.close():
            return
        self.job.show(_("Opening {name} …").format(name=name), 0.0)
        self.job.start(self._opening(self._project, self._project.scan(scanId), name))

    def _opening(self, project: Project, scan: ProjectScan, name: str) -> Steps[str]:
        """Read a scan's CT in the background and show it; return a message."""
        arguments, annotator = ["project", "prepare", str(project.folder), "--scan", scan.id], self._state.annotator
        try:
            with temporaryFolder() as folder:
                ct = Path(folder) / "ct.nrrd"
                yield from self.job.run([*arguments, "--image", str(ct), *self.prepare.arguments])
                opened, message = loadScan(ct, project, scan, annotator, name)
        except JobError as error:
            opened, message = None, str(error)
        if opened is not None:
            self._show(opened)
            self._refreshList()
        return hiddenFrom(name, message or "\n".join(event["message"] for event in self.job.warnings), scan)

    def close(self) -> bool:
        """Save and close the open scan, if any. Return False, after showing the reason, if it cannot be saved."""
        self.job.cancel()
        if self._opened is None:
            return True
        if not self._save():
            self.workList.say(_("This scan stays open, because the painted regions could not be saved: see below."))
            return False
        self._setOpened(None)
        removeNodes()
        return True

    def _show(self, opened: OpenScan) -> None:
        # Masks are read from the disk, where they may be newer than in the scene.
        removeNodes(keep=opened.volume)
        showScan(opened)
        self._setOpened(opened)

    def _setOpened(self, opened: OpenScan | None) -> None:
        self._opened = opened
        for section in (self.slices, self.regions, self.heart):
            section.setScan(opened)
        if self._state is not None:
            self._state.scanId = "" if opened is None else opened.scan.id
        self._activate()

    def _resumeScan(self) -> None:
        """Resume the scan that a scene was saved with."""
        state, project = self._state, self._project
        if state is None or project is None or self._opened is not None or self.job.isRunning:
            return
        if slicer.mrmlScene.IsImporting():
            return  # not all of its nodes are there yet
        volume = volumeInScene(project, state.scanId) if state.scanId and state.annotator else None
        if volume is None:
            return
        try:
            scan = project.scan(state.scanId)
            self._show(openVolume(project, scan, state.annotator, volume.GetName(), volume))
        except CTError as error:
            self.workList.say(str(error))

    def _save(self) -> bool:
        return all([self.regions.save(), self.heart.save()])

    # Tasks

    def _taskChosen(self, page: int) -> None:
        if self._state is None:
            return
        self._save()
        self._state.task = _TASKS[page]
        self._activate()

    def _pageChanged(self) -> None:
        if self._state is not None:
            self._save()
            self._activate()
            if self._isShown():
                self.prepare.update()
                self._refreshList()
                if not self._state.annotator:
                    self._ui.annotatorEdit.setFocus()

    def _isShown(self) -> bool:
        pages = self._ui.pages
        return self._entered and pages.currentIndex == pages.indexOf(self._ui.annotateTab)

    def _activate(self) -> None:
        """Activate the visible task only, so that no other takes keys, counts time or changes the views."""
        is_shown = self._isShown() and self._state is not None
        task = self._state.task if is_shown else None
        sections: dict[AnnotationTask, SlicesSection | MaskSection] = {
            AnnotationTask.SLICES: self.slices,
            AnnotationTask.REGIONS: self.regions,
            AnnotationTask.HEART: self.heart,
        }
        for kind, section in sections.items():
            if kind is not task:
                section.setActive(False)
        if task is not None:
            sections[task].setActive(True)
        self._keys.setEnabled(is_shown)
        self._ui.taskTabs.setEnabled(self._opened is not None)

    def _labelled(self) -> None:
        self.workList.showProgress(self._opened.scan.id, *self.slices.progress, self.slices.unsure)

    def _refreshList(self) -> None:
        if self._state is not None:
            self.workList.update()
