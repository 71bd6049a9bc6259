"""The evaluation page: studies of the project's scans, their results, and installation of models into CAC Scoring."""

# Slicer's naming.
# ruff: noqa: N802

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import qt
from slicer.i18n import tr as _

from CACScoringLib.core.errors import CTError
from CACScoringLib.core.files import read_json
from CACScoringLib.panel.job import BackgroundJob, JobError, Steps
from CACScoringLib.panel.lifecycle import PanelSection
from CACScoringLib.panel.packages import ensurePackages
from CACScoringLib.panel.widgets import dataOf, fillBox

from ..project.project import Project
from .install_section import InstallSection
from .parameters import LIBRARY, TRAINING_REQUIREMENTS
from .training_options import cardsIn

if TYPE_CHECKING:
    from CACScoringLib.models.cards import ModelCard

INDEX, SCHEMA = "study.json", "cac-study/1"
"""Index of a study's folder and its format (`evaluation.page.write_study`)."""

COMPARISON, VALIDATION = "comparison", "validation"
"""Names of `cac validate` with and without an earlier validation."""

STUDY_TITLES = {
    "detection": "Detection: which scans, arteries and lesions are found",
    "reproducibility": "Reproducibility: two scans of each patient",
    "heart": "Heart: agreement of its outline with the true one",
    "ablation": "Ablation: contribution of each part of the method",
    COMPARISON: "Comparison: scores of two models on the same scans",
}
"""Titles of the studies, translated on display."""


class EvaluateSection(PanelSection):
    """The evaluation page; its job runs studies in the background, while nothing is being installed."""

    def __init__(self, ui) -> None:
        self.ui = ui
        self._project: Project | None = None
        self._models: dict[str, ModelCard] = {}
        cancelled = _("Cancelled. Finished parts are kept; press Evaluate again to continue.")
        parts = ui.evaluateStatusLabel, ui.evaluateBar, ui.evaluateButton
        self.job = BackgroundJob(*parts, self._evaluate, cancelled, self.update, LIBRARY)
        self.install = InstallSection(ui, lambda: self.job.isRunning, self.update)

        self.bind(ui.evaluateStudyBox, "evaluateStudy")
        self.bind(ui.evaluateModelBox, "evaluateModel")
        self.bind(ui.evaluateOtherBox, "evaluateOther")
        self.bind(ui.studyBox, "shownStudy")
        ui.studyPageButton.clicked.connect(self._openPage)
        ui.evaluateStatusLabel.setVisible(False)

    def setState(self, state) -> None:
        super().setState(state)
        self.update()

    def setProject(self, project: Project | None) -> None:
        """Set another project, or the changed one; None for none."""
        self._project = project
        self.install.setProject(project)
        self.update()

    def update(self) -> None:
        """Show the state."""
        state, ui = self._state, self.ui
        if state is None or not ui.evaluateTab.visible:
            return
        running, compares = self.job.isRunning or self.install.job.isRunning, state.evaluateStudy == COMPARISON
        self._fillChoices()
        for widget in (ui.evaluateOtherLabel, ui.evaluateOtherBox):
            widget.setVisible(compares)
        ready = self._project is not None and (not compares or self._canCompare())
        ui.evaluateStudyText.setText(self._hint(ready))
        for box in (ui.evaluateStudyBox, ui.evaluateUseBox, ui.evaluateModelBox, ui.evaluateOtherBox):
            box.setEnabled(not running)
        self.job.update(ready and not running)
        self._listStudies()
        self.install.update()

    def cancel(self) -> None:
        super().cancel()
        self.install.cancel()

    def _hint(self, ready: bool) -> str:
        if not ready:
            return _("Choose two models of one network.") if self._project else _("Open a project, or make a new one.")
        state = self._state
        return _("Device and annotations are those of the page Train: {device}, {annotator}.").format(
            device=state.trainDevice.label(), annotator=state.trainAnnotator or _("majority of the annotators")
        )

    def _canCompare(self) -> bool:
        state = self._state
        model, earlier = self._models.get(state.evaluateModel), self._models.get(state.evaluateOther)
        if model is None or model == earlier:
            return False
        return state.evaluateOther == "" or (earlier is not None and earlier.network == model.network)

    def _fillChoices(self) -> None:
        """Fill the boxes of models: installed ones and the project's, by path of the card."""
        from CACScoringLib.models.cards import list_models

        state, ui = self._state, self.ui
        self._models = {}
        try:
            self._models = {str(model.path): model.card for model in list_models() if model.origin != "bundled"}
        except CTError as error:
            self.job.say(str(error))
        if self._project:
            self._models |= cardsIn(self._project.models_folder)
        entries = [(_("those that come with CAC"), "")]
        entries += [(f"{card.name} ({card.network})", path) for path, card in self._models.items()]
        fillBox(ui.evaluateStudyBox, [(_(text), key) for key, text in STUDY_TITLES.items()], state.evaluateStudy)
        fillBox(ui.evaluateModelBox, entries, state.evaluateModel)
        fillBox(ui.evaluateOtherBox, entries, state.evaluateOther)

    def _listStudies(self) -> None:
        """List the finished studies of the project and select the shown one."""
        ui, studies = self.ui, {} if self._project is None else studiesIn(self._project.studies_folder)
        fillBox(ui.studyBox, [(studyName(name), name) for name in studies], self._state.shownStudy)
        for n, title in enumerate(studies.values()):
            ui.studyBox.setItemData(n, title, qt.Qt.ToolTipRole)
        ui.studyPageButton.setEnabled(bool(studies))

    def _openPage(self, *_args: object) -> None:
        folder = self._project.studies_folder / dataOf(self.ui.studyBox)
        page = folder / read_json(folder / INDEX)["page"]
        qt.QDesktopServices.openUrl(qt.QUrl.fromLocalFile(str(page)))

    # A study

    def _evaluate(self) -> Steps[str]:
        if reason := ensurePackages(TRAINING_REQUIREMENTS, "CAC Training", _("A study")):
            return reason
        name, commands = self._commands()
        self.job.show(_("Starting …"), 0.0)
        text = _("Done: {name}.").format(name=studyName(name))
        warnings: list[str] = []
        try:
            for command in commands:
                if command is not commands[0]:
                    yield 0  # the process before has to return from its end
                try:
                    yield from self.job.run(command)
                finally:
                    warnings += [f"⚠ {event['message']}" for event in self.job.warnings]
            self._state.shownStudy = name
            text = "\n".join([text, *verdictOf(self._project.studies_folder / name)])
        except JobError as error:
            text = str(error)
        return "\n".join([text, *dict.fromkeys(warnings)])

    def _commands(self) -> tuple[str, list[list[str]]]:
        """Name of the study's folder, and its commands. The same study of the same models resumes in its folder."""
        state, project = self._state, self._project
        study, model, use = state.evaluateStudy, state.evaluateModel, state.evaluateUse.value
        scans = ["--use", use, *(["--annotator", state.trainAnnotator] if state.trainAnnotator else [])]
        if study == COMPARISON:
            earlier = state.evaluateOther
            before, after = self._folder(VALIDATION, earlier), self._folder(COMPARISON, model, earlier)
            table = str(after / "reference.csv")
            return after.name, [
                ["project", "reference", str(project.folder), *scans, "--output", table],
                ["validate", table, *self._scoring(before, earlier)],
                ["validate", table, *self._scoring(after, model), "--before", str(before)],
            ]
        folder = self._folder(study, model)
        return folder.name, [["evaluate", study, "--data", str(project.folder), *scans, *self._scoring(folder, model)]]

    def _folder(self, study: str, *paths: str) -> Path:
        models = [self._models[path] for path in paths if path in self._models]
        return self._project.studies_folder / studyFolder(study, self._state.evaluateUse.value, models)

    def _scoring(self, output: Path, model: str) -> list[str]:
        """Options of a command that scores: folder, device and model."""
        words = ["--output", str(output), "--device", self._state.trainDevice.value]
        return words + (["--model", model] if model in self._models else [])


def studiesIn(folder: Path) -> dict[str, str]:
    """Find the finished studies in a project's folder of studies: titles by name of the folder, newest first."""
    studies = {}
    for file in sorted(folder.glob(f"*/{INDEX}"), key=lambda path: path.stat().st_mtime, reverse=True):
        try:
            content = read_json(file)
            if content["schema"] == SCHEMA:
                studies[file.parent.name] = content["title"]
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return studies


def studyFolder(study: str, use: str, models: Sequence[ModelCard]) -> str:
    """Return the name of a study's folder, which is the same for the same study of the same models."""
    return "-".join([study, use, *(f"{card.name}-{card.sha256[:4]}" for card in models)])


def studyName(folder: str) -> str:
    """Return the title of a study with a folder named by `studyFolder`; the name itself for other folders."""
    study, _dash, remainder = folder.partition("-")
    use, _dash, models = remainder.partition("-")
    title = "Validation" if study == VALIDATION else STUDY_TITLES.get(study)
    if title is None or not use:
        return folder
    names = re.findall(r"(.+?)-[0-9a-f]{4}(?:-|$)", models)
    name = _("{study}, {use} scans").format(study=_(title).partition(":")[0], use=use)
    return f"{name}: {', '.join(names)}" if names else name


def verdictOf(folder: Path) -> list[str]:
    """Read the sentences of a comparison on which models score better; empty for another study."""
    from CACScoringLib.models.cards import VERDICT

    sections = read_json(folder / INDEX)["sections"] if (folder / INDEX).is_file() else []
    return [text for section in sections if section["name"] == VERDICT for text in section["text"]]
