"""The training page: form and check of a new training, and the list of trainings."""

# Slicer's naming.
# ruff: noqa: N802

from __future__ import annotations

from pathlib import Path
from typing import Any

import qt
from slicer.i18n import tr as _

from CACScoringLib.core.errors import CTError
from CACScoringLib.panel.command_section import CommandSection
from CACScoringLib.panel.job import BackgroundJob, Event
from CACScoringLib.panel.packages import ensurePackages, missingPackages, namesOf
from CACScoringLib.panel.process import workerCommand
from CACScoringLib.panel.widgets import InSight, fillBox, singleShot

from ..project.annotations import annotators
from ..project.project import Project
from ..training import background_runs as training_runs
from . import parameters as options
from .parameters import LIBRARY, LOOP, RUN, TRAINING, TRAINING_REQUIREMENTS, Network, Preset
from .project_section import findingLines
from .runs_section import RunsSection

CHECK_MILLISECONDS = 300
"""Delay in milliseconds between the last change and the check, so that typing does not check at every letter."""

_MAX_FINDINGS = 6


class TrainSection(CommandSection):
    """The training page; its job checks the project."""

    def __init__(self, ui) -> None:
        super().__init__(ui, TRAINING, RUN, LOOP)
        self.job, form, section = BackgroundJob(library=LIBRARY), qt.QFormLayout(), ui.trainSetupButton.layout()
        section.insertLayout(0, form)
        self.addRows(form, 0, "network", "method", "annotator", "start", "preset", "data", "name")
        self.addRows(self.addAdvanced(section, 1), 0, "device", *LOOP.fields)
        self._project: Project | None = None
        self._findings: list[Event] | None = None
        self._checkedKey: tuple[Any, ...] | None = None
        self._pendingKey: tuple[Any, ...] | None = None

        self._missing: list[str] = []
        self._problem = ""
        self._choicesOf: tuple[Any, ...] | None = None
        self._inSight = InSight(ui.runsTable)
        self.runs = RunsSection(ui, ui.trainTab, self.refresh)
        self._timer = singleShot(CHECK_MILLISECONDS, self.check)
        # The selected start is a model for another network.
        ui.trainNetworkBox.activated.connect(lambda *_args: self.set("trainStart", ""))
        ui.trainStartButton.clicked.connect(self._start)
        ui.trainCheckButton.clicked.connect(self._installOrCheck)
        ui.elsewhereCopyButton.clicked.connect(self._copy)

    def setState(self, state) -> None:
        super().setState(state)
        self.runs.setState(state)
        self.update()

    def setProject(self, project: Project | None) -> None:
        """Set another project, or the changed one; None for none."""
        self._project = project
        self.runs.setProject(project)
        self.refresh()

    def update(self) -> None:
        """Show the state."""
        state, ui = self._state, self.ui
        if state is None or not ui.trainTab.visible:
            return
        decomposition, scans = state.trainNetwork == Network.DECOMPOSITION, options.learnsFromScans(state)
        self.setRowVisible(decomposition and options.presetOf(state) != Preset.REAL_SLICES, "method")
        self.setRowVisible(scans, "annotator", "start", "data")
        self._fillChoices()
        name = self._name()
        ui.trainNameBox.setPlaceholderText("" if self._project is None else name)
        ui.elsewhereEdit.setPlainText(
            "" if self._project is None else options.commandsElsewhere(state, self._project, name)
        )
        self._problem = self._problemOf(name)
        if self._project is not None and not self._missing and self._checkKey() != self._checkedKey:
            if self._checkKey() != self._pendingKey:
                self._findings = None
            if not self.job.isRunning or self._checkKey() != self._pendingKey:
                self._timer.start()
        self._showCheck()
        self.runs.update()

    def refresh(self) -> None:
        """Read annotators, models and packages again."""
        self._choicesOf = self._checkedKey = None
        self._missing = missingPackages(TRAINING_REQUIREMENTS)
        self.update()

    def check(self) -> None:
        """Start the check of the project for this training."""
        state, project = self._state, self._project
        self._timer.stop()
        self.job.cancel()
        if state is None or project is None or self._missing:
            return
        self._pendingKey = self._checkKey()
        findings: list[Event] = []

        def onEnd(_nothing: None, reason: str) -> None:
            if reason and not any(finding["severity"] == "error" for finding in findings):
                findings.append({"severity": "error", "message": reason, "scans": []})
            self._checkedKey, self._findings = self._pendingKey, findings
            self.update()

        # A training checks these data at its start.
        if state.trainNetwork == Network.LESIONS or not options.learnsFromScans(state):
            onEnd(None, "")
            return
        command = ["project", "check", str(project.folder), "--network", state.trainNetwork.value]
        command += ["--method", options.methodOf(state).value]
        command += ["--annotator", state.trainAnnotator] if state.trainAnnotator else []

        def onEvent(event: Event) -> None:
            if event["event"] == "finding":
                findings.append(event)

        self.job.start(self.job.run(command, onEvent=onEvent), onEnd)

    def cancel(self) -> None:
        # Trainings continue.
        super().cancel()
        self._timer.stop()
        self.runs.cancel()

    def _checkKey(self) -> tuple[Any, ...]:
        state = self._state
        return self._project, state.trainNetwork, options.presetOf(state), options.methodOf(state), state.trainAnnotator

    def _name(self) -> str:
        return options.nameOf(
            self._state, [] if self._project is None else options.modelNames(self._project.models_folder)
        )

    def _problemOf(self, name: str) -> str:
        if self._project is None:
            return _("Open a project, or make a new one.")
        if self._missing:
            text = _("Training needs Python packages that are not installed: {packages}.")
            return text.format(packages=namesOf(self._missing))
        text = ""
        if not options.isName(name):
            text = _("“{name}” is not a valid name: use lower-case letters, digits, dots, dashes, underscores.")
        elif name in options.modelNames(self._project.models_folder):
            text = _("The project has a model or a training named “{name}” already. Choose another name.")
        return text.format(name=name)

    def _showCheck(self) -> None:
        findings = self._findings or []
        errors = [finding for finding in findings if finding["severity"] == "error"]
        lines = [f"✗ {self._problem}"] if self._problem else []
        if self._findings is None and not lines:
            lines = [_("Checking the project …")]
        if findings:
            lines += findingLines(findings, self._project)[:_MAX_FINDINGS]
        if len(findings) > _MAX_FINDINGS:
            text = _("… and {count} more: press Check on the page Project.")
            lines.append(text.format(count=len(findings) - _MAX_FINDINGS))
        ready = self._findings is not None and not errors and not self._problem
        if ready and not findings:
            lines = [_("✓ The project holds all that this training needs.")]
            if self._state.trainNetwork == Network.LESIONS and options.learnsFromScans(self._state):
                lines = [_("This training learns from painted lesions of the project, and from digital patients.")]
            elif not options.learnsFromScans(self._state):
                lines = [_("✓ This training makes digital patients to learn from, and takes nothing from the project.")]
        if ready and options.lacksDigitalPatients(self._state, self._project):
            text = _("⚠ Half of the slices should come from digital patients: choose their folder as further data.")
            lines.append(text)
        self.ui.trainCheckLabel.setText("\n".join(lines))
        self.ui.trainStartButton.setEnabled(ready)
        self.ui.trainCheckButton.setEnabled(self._project is not None)
        self.ui.trainCheckButton.setText(_("Install …") if self._missing else _("Check again"))

    def _installOrCheck(self, *_args: object) -> None:
        reason = ensurePackages(TRAINING_REQUIREMENTS, "CAC Training", _("Training")) if self._missing else ""
        self.refresh()
        self.check()
        if reason:
            self._refuse(reason)

    def _start(self, *_args: object) -> None:
        state, project, name = self._state, self._project, self._name()
        output = project.models_folder / name
        try:
            arguments = [*options.argumentsOf(state, str(project.folder), str(output)), "--progress", "json"]
            training_runs.start(*workerCommand(), arguments, output.with_name(f"{name}.training"))
        except (CTError, OSError, RuntimeError) as error:
            self._refuse(_("The training could not be started: {error}").format(error=error))
            return
        state.trainName = ""
        self.runs.choose(name)
        self.refresh()
        self._inSight.start()

    def _refuse(self, reason: str) -> None:
        self.ui.trainCheckLabel.setText(f"✗ {reason}")

    # Boxes without a connector

    def _fillChoices(self) -> None:
        state, ui = self._state, self.ui
        key = self._project, state.trainNetwork, options.presetOf(state)
        if key != self._choicesOf:
            self._choicesOf = key
            self._people = [(_("majority of the annotators"), ""), *((name, name) for name in self._annotators())]
            bundled = options.presetOf(state) in (Preset.REAL_SLICES, Preset.REAL_LESIONS, Preset.REAL_HEARTS)
            default = _("the weights that come with CAC") if bundled else _("random weights")
            self._starts = [(default, ""), *options.startsFor(state.trainNetwork, self._project)]
        absent = _("{name} (missing)")
        self.showList("start", self._starts, absent.format(name=Path(state.trainStart).name))
        self.showList("annotator", self._people, absent.format(name=state.trainAnnotator))
        fillBox(ui.trainPresetBox, options.presetsFor(state.trainNetwork), options.presetOf(state).value)
        self.showPaths()

    def _annotators(self) -> list[str]:
        project = self._project
        scans = () if project is None else project.scans
        return sorted({name for scan in scans for name in annotators(project, scan.id)})

    def _copy(self, *_args: object) -> None:
        qt.QApplication.clipboard().setText(self.ui.elsewhereEdit.plainText)
