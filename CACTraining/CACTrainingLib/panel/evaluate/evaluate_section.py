"""The evaluation page: studies of the project's scans, their results, and installation of models into CAC Scoring."""

# Slicer's naming.
# ruff: noqa: N802

from __future__ import annotations

from typing import TYPE_CHECKING

from slicer.i18n import tr as _

from CACScoringLib.core.ct import CTError
from CACScoringLib.panel.lifecycle import Section
from CACScoringLib.panel.packages import ensurePackages
from CACScoringLib.panel.widgets import dataOf, fillBox, say
from CACScoringLib.panel.worker import Worker, showIn

from ...project.project import Project
from ..model_cards import cardsIn
from ..packages import TRAINING_REQUIREMENTS
from .install_section import InstallSection
from .study_view import COMPARISON, STUDY_TITLES, StudyView, studyFolder, studyName

if TYPE_CHECKING:
    from CACScoringLib.models.cards import ModelCard


ACQUISITION = "acquisition"
"""Name of the study that simulates its scans and takes none of the project."""


class EvaluateSection(Section):
    """The evaluation page; its worker runs studies and installs models in the background."""

    def __init__(self, ui, worker: Worker) -> None:
        self._worker = worker
        self.ui = ui
        self._project: Project | None = None
        self._models: dict[str, ModelCard] = {}
        self._studying = False
        self._showProgress = showIn(ui.evaluateStatusLabel, ui.evaluateBar)
        self.view = StudyView(ui)
        self.install = InstallSection(ui, worker, self.update)

        ui.evaluateStudyBox.currentIndexChanged.connect(self._onChoice)
        ui.evaluateModelBox.currentIndexChanged.connect(self._onChoice)
        ui.evaluateOtherBox.currentIndexChanged.connect(self._onChoice)
        ui.evaluateButton.clicked.connect(self._startOrCancel)
        ui.evaluateBar.setVisible(False)
        ui.evaluateStatusLabel.setVisible(False)

    def setState(self, state) -> None:
        super().setState(state)
        self.view.setState(state)
        self.update()

    def setProject(self, project: Project | None) -> None:
        """Set another project, or the changed one; None for none."""
        self._project = project
        self.view.setProject(project)
        self.install.setProject(project)
        self.update()

    def update(self) -> None:
        """Show the state."""
        state, ui = self._state, self.ui
        if state is None or not ui.evaluateTab.visible:
            return
        running, compares = self._worker.isRunning, state.evaluateStudy == COMPARISON
        self._fillChoices(compares)
        for widget in (ui.evaluateOtherLabel, ui.evaluateOtherBox):
            widget.setVisible(compares)
        ready = self._project is not None and (not compares or self._canCompare())
        ui.evaluateStudyText.setText(self._hint(ready))
        for box in (ui.evaluateStudyBox, ui.evaluateUseBox, ui.evaluateModelBox, ui.evaluateOtherBox):
            box.setEnabled(not running)
        ui.evaluateButton.setText(_("Cancel") if self._studying else _("Evaluate"))
        ui.evaluateButton.setEnabled(self._studying or (ready and not running))
        ui.evaluateBar.setVisible(self._studying)
        self.view.update()
        self.install.update()

    def cancel(self) -> None:
        self._worker.cancel()
        self._studying = False
        self.install.cancel()

    def _hint(self, ready: bool) -> str:
        if not ready:
            return _("Choose two models of one network.") if self._project else _("Open a project, or make a new one.")
        state = self._state
        return _("Device and annotations are those of the page Train: {device}, {annotator}.").format(
            device=state.trainDevice.label(), annotator=state.trainAnnotator or _("majority of the annotators")
        )

    def _canCompare(self) -> bool:
        pair = [self._models.get(path) for path in (self._state.evaluateModel, self._state.evaluateOther)]
        return None not in pair and pair[0].network == pair[1].network and pair[0] != pair[1]

    def _fillChoices(self, compares: bool) -> None:
        """Fill the boxes of models: cards by path for a comparison, installed models by name for other studies."""
        from CACScoringLib.models.cards import list_models

        state, ui = self._state, self.ui
        entries = [(_("none") if compares else _("those that come with CAC"), "")]
        self._models = {}
        try:
            for model in list_models():
                if compares or model.origin != "bundled":
                    self._models[str(model.path) if compares else model.card.name] = model.card
        except CTError as error:
            self._say(str(error))
        if compares and self._project:
            self._models |= cardsIn(self._project.models_folder)

        entries += [(f"{card.name} ({card.network})", key) for key, card in self._models.items()]
        fillBox(ui.evaluateStudyBox, [(_(text), key) for key, text in STUDY_TITLES.items()], state.evaluateStudy)
        fillBox(ui.evaluateModelBox, entries, state.evaluateModel)
        fillBox(ui.evaluateOtherBox, entries, state.evaluateOther)

    def _onChoice(self, *_args: object) -> None:
        state, ui = self._state, self.ui
        if state is not None:
            boxes = (ui.evaluateStudyBox, ui.evaluateModelBox, ui.evaluateOtherBox)
            state.evaluateStudy, state.evaluateModel, state.evaluateOther = map(dataOf, boxes)

    # A study

    def _startOrCancel(self, *_args: object) -> None:
        if self._studying:
            self.cancel()
            self._say(_("Cancelled. Finished parts are kept; press Evaluate again to continue."))
        else:
            self._start()
        self.update()

    def _start(self) -> None:
        if reason := ensurePackages(TRAINING_REQUIREMENTS, "CAC Training", _("A study")):
            self._say(reason)
            return
        name, command = self._command()
        self._studying = True
        self._say(_("Starting …"))
        self.ui.evaluateBar.setValue(0)
        self._worker.start(command, lambda reason: self._onEnd(name, reason), self._showProgress)

    def _command(self) -> tuple[str, list[str]]:
        """Name of the study's folder, and the command. The same study of the same models resumes in its folder."""
        state, project = self._state, self._project
        study, use = state.evaluateStudy, state.evaluateUse.value
        keys = [state.evaluateModel, state.evaluateOther] if study == COMPARISON else [state.evaluateModel]
        models = {key: self._models[key] for key in keys if key in self._models}
        name = studyFolder(study, use, list(models.values()))
        command = ["evaluate", study]
        if study != ACQUISITION:
            command += ["--data", str(project.folder), "--use", use]
            command += ["--annotator", state.trainAnnotator] if state.trainAnnotator else []
        command += ["--output", str(project.studies_folder / name), "--device", state.trainDevice.value]
        command += [word for key in models for word in ("--model", key)]
        return name, command

    def _onEnd(self, name: str, reason: str) -> None:
        self._studying = False
        warnings = dict.fromkeys(f"⚠ {event['message']}" for event in self._worker.warnings)
        self._say("\n".join([reason or _("Done: {name}.").format(name=studyName(name)), *warnings]))
        if not reason:
            self._state.shownStudy = name
        self.update()

    def _say(self, text: str) -> None:
        say(self.ui.evaluateStatusLabel, text)
