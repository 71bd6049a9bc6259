"""The evaluation page: studies of the project's scans, their results, and installation of models into CAC Scoring."""

# Slicer's naming.
# ruff: noqa: N802

from __future__ import annotations

from typing import TYPE_CHECKING

from slicer.i18n import tr as _

from CACScoringLib.core.ct import CTError
from CACScoringLib.panel.job import ButtonJob, Job, JobError, Steps
from CACScoringLib.panel.lifecycle import Section
from CACScoringLib.panel.packages import ensurePackages
from CACScoringLib.panel.widgets import fillBox

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
    """The evaluation page; its job runs studies and installs models in the background."""

    def __init__(self, ui, job: Job) -> None:
        self.job, self.ui = job, ui
        self._project: Project | None = None
        self._models: dict[str, ModelCard] = {}
        cancelled = _("Cancelled. Finished parts are kept; press Evaluate again to continue.")
        parts = ui.evaluateButton, ui.evaluateStatusLabel, ui.evaluateBar
        self.task = ButtonJob(job, parts, cancelled, self._evaluate, self.update)
        self.view = StudyView(ui)
        self.install = InstallSection(ui, job, self.update)

        self.bind(ui.evaluateStudyBox, "evaluateStudy")
        self.bind(ui.evaluateModelBox, "evaluateModel")
        self.bind(ui.evaluateOtherBox, "evaluateOther")
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
        running, compares = self.job.isRunning, state.evaluateStudy == COMPARISON
        self._fillChoices(compares)
        for widget in (ui.evaluateOtherLabel, ui.evaluateOtherBox):
            widget.setVisible(compares)
        ready = self._project is not None and (not compares or self._canCompare())
        ui.evaluateStudyText.setText(self._hint(ready))
        for box in (ui.evaluateStudyBox, ui.evaluateUseBox, ui.evaluateModelBox, ui.evaluateOtherBox):
            box.setEnabled(not running)
        self.task.update(ready and not running)
        self.view.update()
        self.install.update()

    def cancel(self) -> None:
        self.job.cancel()
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
            self.task.say(str(error))
        if compares and self._project:
            self._models |= cardsIn(self._project.models_folder)

        entries += [(f"{card.name} ({card.network})", key) for key, card in self._models.items()]
        fillBox(ui.evaluateStudyBox, [(_(text), key) for key, text in STUDY_TITLES.items()], state.evaluateStudy)
        fillBox(ui.evaluateModelBox, entries, state.evaluateModel)
        fillBox(ui.evaluateOtherBox, entries, state.evaluateOther)

    # A study

    def _evaluate(self) -> Steps[str]:
        if reason := ensurePackages(TRAINING_REQUIREMENTS, "CAC Training", _("A study")):
            return reason
        name, command = self._command()
        self.task.show(_("Starting …"), 0.0)
        text = _("Done: {name}.").format(name=studyName(name))
        try:
            yield from self.job.run(command, self.task.show)
            self._state.shownStudy = name
        except JobError as error:
            text = str(error)
        return "\n".join([text, *dict.fromkeys(f"⚠ {event['message']}" for event in self.job.warnings)])

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
