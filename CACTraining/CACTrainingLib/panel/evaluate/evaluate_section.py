"""The page of evaluation: studies of the project's scans, what they found, and installing a model into CAC Scoring."""

# Slicer's naming.
# ruff: noqa: N802

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import slicer
from slicer.i18n import tr as _

from CACScoringLib.panel.packages import ensurePackages
from CACScoringLib.panel.worker import Worker, stepOf

from ..parameters import CACTrainingParameterNode
from ..train.training_options import PACKAGES
from .install_section import InstallSection
from .study_view import StudyView

if TYPE_CHECKING:
    from CACScoringLib.models.cards import ModelCard

    from ...project.project import Project

UI_FILE = Path(__file__).resolve().parents[3] / "Resources" / "UI" / "CACTrainingEvaluate.ui"

STUDY_PACKAGES = {
    **PACKAGES,
    "matplotlib": "matplotlib>=3.10",
    "pingouin": "pingouin>=0.6.1",
    "statsmodels": "statsmodels>=0.14",
}
"""That studies need: what to tell pip, by the name that is imported."""

COMPARISON = "models"
"""The study that compares two models."""

ACQUISITION = "acquisition"
"""The study that makes its own scans and takes none of the project."""


class EvaluateSection:
    """The page. layout: of the tab that it fills. worker: makes studies, and installs models."""

    def __init__(self, layout, worker: Worker) -> None:
        self._worker = worker
        self._panel = slicer.util.loadUI(str(UI_FILE))
        layout.addWidget(self._panel)
        self.ui = ui = slicer.util.childWidgetVariables(self._panel)
        self._state: CACTrainingParameterNode | None = None
        self._guiTag = None
        self._project: Project | None = None
        self._models: dict[str, ModelCard] = {}
        self._step = ("", 0.0, 1)
        self._doubts: list[str] = []
        self._studying = False
        self._filling = False
        self.view = StudyView(ui)
        self.install = InstallSection(ui, worker, self.update)
        for key, text in _studies().items():
            ui.evaluateStudyBox.addItem(text, key)
        ui.evaluateStudyBox.currentIndexChanged.connect(self._chosen)
        ui.evaluateModelBox.currentIndexChanged.connect(self._chosen)
        ui.evaluateOtherBox.currentIndexChanged.connect(self._chosen)
        ui.evaluateButton.clicked.connect(self._startOrCancel)
        ui.evaluateBar.setVisible(False)
        ui.evaluateStatusLabel.setVisible(False)

    def setState(self, state: CACTrainingParameterNode | None) -> None:
        """state: None while the panel is closed."""
        if self._state is not None:
            self._state.disconnectGui(self._guiTag)
        self._state = state
        if state is not None:
            self._guiTag = state.connectGui(self.ui)
        self.view.setState(state)
        self.update()

    def setProject(self, project: Project | None) -> None:
        """Show another project, or one that has changed; None for none."""
        self._project = project
        self.view.setProject(project)
        self.install.setProject(project)
        self.update()

    def update(self) -> None:
        """Show the state."""
        state, ui = self._state, self.ui
        if state is None or not self._panel.visible:
            return
        running, compares = self._worker.isRunning, state.evaluateStudy == COMPARISON
        self._fillChoices(compares)
        for widget in (ui.evaluateOtherLabel, ui.evaluateOtherBox):
            widget.setVisible(compares)
        ui.evaluateStudyText.setText(self._hint(compares))
        boxes = (ui.evaluateStudyBox, ui.evaluateUseBox, ui.evaluateModelBox, ui.evaluateOtherBox)
        for box in boxes:
            box.setEnabled(not running)
        ready = self._project is not None and (not compares or self._canCompare())
        ui.evaluateButton.setText(_("Cancel") if self._studying else _("Make the study"))
        ui.evaluateButton.setEnabled(self._studying or (ready and not running))
        ui.evaluateBar.setVisible(self._studying)
        self.view.update()
        self.install.update()

    def cancel(self) -> None:
        """End what runs in the background."""
        self._worker.cancel()
        self._studying = False

    def _hint(self, compares: bool) -> str:
        if self._project is None:
            return _("Open a project, or make one.")
        if compares and not self._canCompare():
            return _("Choose two models of one network.")
        state = self._state
        return _("Device and annotations are those of the page Train: {device}, {annotator}.").format(
            device=state.trainDevice.label(), annotator=state.trainAnnotator or _("what most annotators say")
        )

    def _canCompare(self) -> bool:
        pair = [self._models.get(path) for path in (self._state.evaluateModel, self._state.evaluateOther)]
        return None not in pair and pair[0].network == pair[1].network and pair[0] != pair[1]

    def _fillChoices(self, compares: bool) -> None:
        """Models to compare are named by their cards. A study takes what is installed, by name."""
        from CACScoringLib.core.ct import CTError
        from CACScoringLib.models.cards import list_models, read_card

        state, ui = self._state, self.ui
        origins = {"bundled": _("comes with CAC"), "user": _("installed")}
        choices = [("", _("none"))] if compares else [("", _("those that come with CAC"))]
        self._models = {}
        try:
            for model in list_models():
                if compares or model.origin == "user":
                    key = str(model.path) if compares else model.card.name
                    self._models[key] = model.card
                    choices.append((key, f"{model.card.name} ({model.card.network}, {origins[model.origin]})"))
        except CTError as error:
            self._say(str(error))
        for path in sorted(self._project.models_folder.glob("*.json")) if compares and self._project else ():
            try:
                card = self._models[str(path)] = read_card(path)
            except CTError:
                continue
            choices.append((str(path), _("{name} ({network}, of this project)").format(**vars(card))))
        self._filling = True
        ui.evaluateStudyBox.setCurrentIndex(max(0, ui.evaluateStudyBox.findData(state.evaluateStudy)))
        for box, chosen in ((ui.evaluateModelBox, state.evaluateModel), (ui.evaluateOtherBox, state.evaluateOther)):
            if choices != [(box.itemData(n), box.itemText(n)) for n in range(box.count)]:
                box.clear()
                for key, text in choices:
                    box.addItem(text, key)
            box.setCurrentIndex(max(0, box.findData(chosen)))
        self._filling = False

    def _chosen(self, *_args: object) -> None:
        if self._filling or self._state is None:
            return
        state, ui = self._state, self.ui
        boxes = (ui.evaluateStudyBox, ui.evaluateModelBox, ui.evaluateOtherBox)
        study, model, other = (box.itemData(box.currentIndex) or "" for box in boxes)
        state.evaluateStudy, state.evaluateModel, state.evaluateOther = study, model, other

    # A study

    def _startOrCancel(self, *_args: object) -> None:
        if self._studying:
            self.cancel()
            self._say(_("Cancelled. What is done stays; make the study again to go on."))
        else:
            self._start()
        self.update()

    def _start(self) -> None:
        if reason := ensurePackages(STUDY_PACKAGES, "CAC Training", _("A study")):
            self._say(reason)
            return
        name, command = self._command()
        self._doubts = []
        self._step = (_("Beginning …"), 0.0, 1)
        self.ui.evaluateBar.setValue(0)
        self._say(self._step[0])
        try:
            self._worker.start(command, self._onEvent, lambda reason: self._onEnd(name, reason))
            self._studying = True
        except (OSError, RuntimeError) as error:
            self._say(str(error))

    def _command(self) -> tuple[str, list[str]]:
        """Name of the study's folder, and the command. The same study of the same models goes on in its folder."""
        state, project = self._state, self._project
        study, use = state.evaluateStudy, state.evaluateUse.value
        keys = [state.evaluateModel, state.evaluateOther] if study == COMPARISON else [state.evaluateModel]
        chosen = [key for key in keys if key in self._models]
        names = [f"{self._models[key].name}-{self._models[key].sha256[:4]}" for key in chosen]
        name = "-".join([study, use, *names])
        command = ["evaluate", study]
        if study != ACQUISITION:
            command += ["--data", str(project.folder), "--use", use]
            command += ["--annotator", state.trainAnnotator] if state.trainAnnotator else []
        command += ["--output", str(project.studies_folder / name), "--device", state.trainDevice.value]
        if study == COMPARISON:
            command += ["--compare", *chosen]
        else:
            command += [word for key in chosen for word in ("--model", key)]
        return name, [*command, "--progress", "json"]

    def _onEvent(self, event: dict) -> None:
        step = stepOf(event)
        if step is not None:
            self._step = (*step, event["count"])
            self._show(step[0], step[1])
        elif event["event"] == "counted" and event["count"]:
            text, behind, steps = self._step
            self._show(text, behind + event["done"] / event["count"] / steps)
        elif event["event"] == "warning":
            self._doubts.append(event["message"])

    def _show(self, text: str, behind: float) -> None:
        self._say(text)
        self.ui.evaluateBar.setValue(round(1000 * behind))

    def _onEnd(self, name: str, reason: str) -> None:
        self._studying = False
        doubts = "".join(f"\n⚠ {doubt}" for doubt in dict.fromkeys(self._doubts))
        self._say((reason or _("Done: {name}.").format(name=name)) + doubts)
        if not reason:
            self.view.choose(name)
        self.update()

    def _say(self, text: str) -> None:
        self.ui.evaluateStatusLabel.setText(text)
        self.ui.evaluateStatusLabel.setVisible(bool(text))


def _studies() -> dict[str, str]:
    """The studies of `cac evaluate`, in words."""
    return {
        "detection": _("Detection: which scans, arteries and lesions are found"),
        "reproducibility": _("Reproducibility: two scans of each patient"),
        "heart": _("Heart: how well it is outlined"),
        "ablation": _("Ablation: what each part of the method is good for"),
        ACQUISITION: _("Acquisition: one digital patient scanned in many ways"),
        COMPARISON: _("Comparison of two models on the same scans"),
    }
