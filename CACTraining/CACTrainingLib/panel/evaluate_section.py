"""The evaluation page: studies of the project's scans, their results, and installation of models into CAC Scoring."""

# Slicer's naming.
# ruff: noqa: N802, N803

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from textwrap import shorten
from typing import TYPE_CHECKING

import qt
import slicer
from slicer.i18n import tr as _

from CACScoringLib.core.errors import CTError
from CACScoringLib.core.files import read_json
from CACScoringLib.panel.command_section import CommandSection
from CACScoringLib.panel.job import BackgroundJob, Event, JobError, Steps
from CACScoringLib.panel.lifecycle import PanelSection
from CACScoringLib.panel.packages import TORCH_REQUIREMENTS, ensurePackages
from CACScoringLib.panel.parameters import MODELS
from CACScoringLib.panel.widgets import InSight, askForFile, dataOf, fillBox, messageLabel

from ..project.project import Project
from .curve_nodes import SHOWN_METRICS
from .parameters import COMPARISON, EVALUATE, LIBRARY, TRAINING_REQUIREMENTS, StudyChoice, cardsIn

if TYPE_CHECKING:
    from CACScoringLib.models.cards import ModelCard, StoredModel


INDEX, SCHEMA = "study.json", "cac-study/1"
"""Index of a study's folder and its format (`evaluation.page.write_study`)."""


class EvaluateSection(CommandSection):
    """The evaluation page; its job runs studies in the background, while nothing is being installed."""

    def __init__(self, ui) -> None:
        super().__init__(ui, EVALUATE, COMPARISON)
        self._project: Project | None = None
        self._models: dict[str, ModelCard] = {}
        cancelled = _("Cancelled. Finished parts are kept; press Evaluate again to continue.")
        tip = _("Run the study in the background; an interrupted study continues where it stopped.")
        section, form, self._hintLabel = ui.evaluateSetupButton.layout(), qt.QFormLayout(), messageLabel()
        self.addRows(form, 0, "study", "use", "model", "other")
        section.insertLayout(0, form)
        section.insertWidget(1, self._hintLabel)
        self.addCommand(section, 2, _("Evaluate"), tip, self._evaluate, cancelled, LIBRARY)
        self.install = InstallSection(ui, lambda: self.job.isRunning, self.update)
        self.bind(ui.studyBox, "shownStudy")
        ui.studyPageButton.clicked.connect(self._openPage)

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
        running = self.job.isRunning or self.install.job.isRunning
        compares = state.evaluateStudy == StudyChoice.COMPARISON
        self._fillChoices()
        self.setRowVisible(compares, "other")
        ready = self._project is not None and (not compares or self._canCompare())
        self._hintLabel.setText(self._hint(ready))
        self.setRowsEnabled(not running)
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

        self._models = {}
        try:
            self._models = {str(model.path): model.card for model in list_models() if model.origin != "bundled"}
        except CTError as error:
            self.job.say(str(error))
        if self._project:
            self._models |= cardsIn(self._project.models_folder)
        entries = [(_("those that come with CAC"), "")]
        entries += [(f"{card.name} ({card.network})", path) for path, card in self._models.items()]
        for field in ("model", "other"):
            self.showList(field, entries)

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
        state = self._state
        study, model = state.evaluateStudy, state.evaluateModel
        if study == StudyChoice.COMPARISON:
            earlier, accuracy = state.evaluateOther, StudyChoice.ACCURACY.value
            before, after = self._folder(accuracy, earlier), self._folder(study.value, model, earlier)
            return after.name, [
                self._command(accuracy, before, earlier),
                [*self._command(accuracy, after, model), "--before", str(before)],
            ]
        folder = self._folder(study.value, model)
        return folder.name, [self._command(study.value, folder, model)]

    def _folder(self, study: str, *paths: str) -> Path:
        models = [self._models[path] for path in paths if path in self._models]
        return self._project.studies_folder / studyFolder(study, self._state.evaluateUse.value, models)

    def _command(self, study: str, output: Path, model: str) -> list[str]:
        """Command of a study, scored by a model; by the bundled ones if the model is unknown."""
        state = self._state
        words = EVALUATE.words(
            state,
            study=study,
            data=self._project.folder,
            annotator=state.trainAnnotator,
            model=model if model in self._models else "",
            device=state.trainDevice.value,
            output=output,
        )
        return ["evaluate", *words]


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
    titles = {choice.value: choice.label() for choice in StudyChoice}
    if study not in titles or not use:
        return folder
    names = re.findall(r"(.+?)-[0-9a-f]{4}(?:-|$)", models)
    name = _("{study}, {use} scans").format(study=titles[study].partition(":")[0], use=use)
    return f"{name}: {', '.join(names)}" if names else name


def verdictOf(folder: Path) -> list[str]:
    """Read the sentences of a comparison on which models score better; empty for another study."""
    from CACScoringLib.models.cards import VERDICT

    sections = read_json(folder / INDEX)["sections"] if (folder / INDEX).is_file() else []
    return [text for section in sections if section["name"] == VERDICT for text in section["text"]]


_MAX_METRICS, _MAX_LINE = 6, 300
"""Most metrics of a card that are shown, and characters of a line."""


class InstallSection(PanelSection):
    """Widgets of calibration and installation.

    Args:
        ui: Widgets by name.
        isBusy: Function that returns True while the page does other work.
        onChanged: Function called when a command begins and when it ends.

    Attributes:
        job: Installation runs in the background, because it verifies a model with its network.
    """

    def __init__(self, ui, isBusy: Callable[[], bool], onChanged: Callable[[], None]) -> None:
        self._ui = ui
        self._isBusy = isBusy
        self._onChanged = onChanged
        self._project: Project | None = None
        self._cards: dict[str, ModelCard] = {}
        self._fromFiles: dict[str, ModelCard] = {}
        self._askForFile = partial(askForFile, setting="CACTraining/lastFolder")
        self._inSight = InSight(ui.installButtonBox)
        cancelled = _("Cancelled. A calibration goes on from what was measured.")
        parts = ui.installLabel, None, ui.calibrateButton
        self.job = BackgroundJob(*parts, self._calibrate, cancelled, self._changed, LIBRARY)
        ui.installModelBox.currentIndexChanged.connect(self._show)
        ui.installFileButton.clicked.connect(self._addFile)
        ui.installButton.clicked.connect(lambda *_args: self._begin(self._install))
        ui.rollBackButton.clicked.connect(lambda *_args: self._begin(self._rollBack))
        ui.installLabel.setVisible(False)

    def setProject(self, project: Project | None) -> None:
        """Set another project; None for none."""
        self._project = project
        self.job.say("")

    def update(self) -> None:
        """Show the list of models."""
        self._cards = self._fromFiles | ({} if self._project is None else cardsIn(self._project.models_folder))
        entries = [(f"{card.name} ({card.network})", path) for path, card in self._cards.items()]
        fillBox(self._ui.installModelBox, entries, self._cardPath)
        self._show()

    @property
    def _cardPath(self) -> str:
        return dataOf(self._ui.installModelBox)

    def _addFile(self, *_args: object) -> None:
        """Add a model from a file to the list, and select it."""
        from CACScoringLib.models.cards import read_card

        path = self._askForFile(_("Card of a model (.json)"))
        if not path:
            return
        try:
            self._fromFiles[path] = read_card(Path(path))
        except CTError as error:
            self.job.say(str(error))
            self._inSight.start()
            return
        self.job.say("")
        self.update()
        self._ui.installModelBox.setCurrentIndex(self._ui.installModelBox.findData(path))

    def _show(self, *_args: object) -> None:
        ui, card = self._ui, self._cards.get(self._cardPath)
        installed = None if card is None else installedModel(card.name, card.network)
        ui.cardLabel.setText(
            _("The project has no finished model yet.") if card is None else installation_summary(card, installed)
        )
        ui.cardLabel.setToolTip("" if card is None else f"{card.training.data}\nSHA-256 {card.sha256}")
        ui.calibrateButton.setVisible(card is not None and card.network == "decomposition")
        idle = not (self._isBusy() or self.job.isRunning)
        self.job.update(idle)
        ui.installButton.setEnabled(card is not None and not card.lacks_calibration and idle)
        ui.rollBackButton.setEnabled(installed is not None and idle)

    def _calibrate(self) -> Steps[str]:
        name = self._cards[self._cardPath].name
        command = ["calibrate", "--data", str(self._project.folder), "--decomposition", self._cardPath]
        command += [word for model in modelsInScoring() for word in (f"--{model.card.network}", str(model.path))]
        doing, failed = _("Calibrating {name} …").format(name=name), _("Not calibrated; nothing was changed. {reason}")
        yield from self._run(command, doing, failed, TRAINING_REQUIREMENTS, _("Calibration"))
        return _("{name} is calibrated together with the models that CAC Scoring uses now.").format(name=name)

    def _install(self) -> Steps[str]:
        card, command = self._cards[self._cardPath], ["models", "install", self._cardPath, "--overwrite"]
        earlier = installedModel(card.name, card.network)
        doing, failed = _("Installing {name} …"), _("Not installed; nothing was changed. {reason}")
        yield from self._run(command, doing.format(name=card.name), failed)
        useInScoring(card.network, card.name)
        text = _("{name} is installed, and chosen in CAC Scoring for this scene.").format(name=card.name)
        note = _("The earlier one is kept: Roll back puts it in place again.")
        return f"{text} {note}" if earlier not in (None, card) else text

    def _rollBack(self) -> Steps[str]:
        card = self._cards[self._cardPath]
        doing, failed = _("Rolling back {name} …"), _("Not rolled back; nothing was changed. {reason}")
        yield from self._run(["models", "install", card.name, "--previous"], doing.format(name=card.name), failed)
        if installedModel(card.name, card.network) is not None:
            return _("The earlier {name} is in place again.").format(name=card.name)
        useInScoring(card.network, "", insteadOf=card.name)
        text = _("{name} is no longer installed. CAC Scoring uses the model that comes with it.")
        return text.format(name=card.name)

    def _begin(self, work: Callable[[], Steps[str]]) -> None:
        self.job.start(work())
        self._changed()

    def _run(
        self,
        command: list[str],
        doing: str,
        failed: str,
        packages: Sequence[str] = TORCH_REQUIREMENTS,
        purpose: str | None = None,
    ) -> Steps[None]:
        """Run a command.

        Args:
            command: Arguments of `cac`.
            doing: Text while it runs.
            failed: Text of a failure, with the placeholder {reason}.
            packages: Requirements of the command.
            purpose: Work that needs them; None for installing a model.

        Raises:
            JobError: It failed.
        """

        def onEvent(event: Event) -> None:
            if event["event"] == "counted":
                self.job.say(_("{doing} {done} of {count} scans").format(doing=doing, **event))

        try:
            if reason := ensurePackages(packages, "CAC Training", purpose or _("Installing a model")):
                raise JobError(reason)
            self.job.say(doing)
            yield from self.job.run(command, onEvent=onEvent)
        except JobError as error:
            raise JobError(failed.format(reason=error)) from error

    def _changed(self) -> None:
        self._inSight.start()
        self._onChanged()


def installedModel(name: str, network: str) -> ModelCard | None:
    """Card of the user's installed model with a name; None if there is none."""
    from CACScoringLib.models.cards import list_models

    try:
        models = list_models(network)
    except CTError:
        return None
    return next((model.card for model in models if model.origin == "user" and model.card.name == name), None)


def modelsInScoring() -> list[StoredModel]:
    """Models that CAC Scoring uses for the heart and slices. Raises ModelError if one is missing."""
    from CACScoringLib.models.cards import find_model

    names = {"heartModel": "", "slicesModel": ""}
    if hasattr(slicer.modules, "cacscoring"):
        names = {parameter: getattr(_scoringState(), parameter) for parameter in names}
    return [find_model("territories", names["heartModel"] or None), find_model("slices", names["slicesModel"] or None)]


def _scoringState():
    return slicer.modules.cacscoring.widgetRepresentation().self().logic.getParameterNode()


def useInScoring(network: str, name: str, insteadOf: str | None = None) -> None:
    """Select a model in CAC Scoring, the bundled one if empty; with `insteadOf` only if that one is selected."""
    if network not in MODELS or not hasattr(slicer.modules, "cacscoring"):
        return
    state = _scoringState()
    parameter = MODELS[network]
    if insteadOf is None or getattr(state, parameter) == insteadOf:
        setattr(state, parameter, name)


def installation_summary(card: ModelCard, installed: ModelCard | None) -> str:
    """Summary of a model before installation; `installed` is the installed model of the same name."""
    from CACScoringLib.models import preprocessing

    lines = [
        _("Network: {network}, {preset}.").format(network=card.network, preset=card.preset),
        _("Data: {data}").format(data=card.training.data.partition("; table SHA-256")[0]),
        _("Validation: {metrics}").format(metrics=", ".join(f"{n} {v:.3g}" for n, v in _metrics(card.validation))),
        _("For research only; not a medical device."),
    ]
    if card.preprocessing_version != preprocessing.VERSION:
        text = _("⚠ It was trained on scans prepared by version {own}; CAC Scoring prepares them by version {ours}.")
        lines.append(text.format(own=card.preprocessing_version, ours=preprocessing.VERSION))
    if card.lacks_calibration:
        lines.append(_("⚠ Not calibrated: every lesion of its map would count, coronary or not. Calibrate it first."))
    content = card.sha256, card.calibration
    is_installed = installed is not None and content == (installed.sha256, installed.calibration)
    if (installed if is_installed else card).lacks_verdict:
        lines.append(_("⚠ Nothing shows that it scores better on patients: read the verdict of a comparison."))
    if installed is not None:
        current, another = _("✓ It is installed."), _("Another one of this name is installed; it would be kept.")
        lines.append(current if is_installed else another)
    return "\n".join(shorten(line, _MAX_LINE) for line in lines)


def _metrics(validation: Mapping[str, object]) -> list[tuple[str, float]]:
    """Main metrics on a card, at any depth."""
    numbers = dict(reversed(list(_numbers(validation))))
    names = [name for name in SHOWN_METRICS if name in numbers] or list(numbers)
    return [(name.replace("_", " "), numbers[name]) for name in names[:_MAX_METRICS]]


def _numbers(values: Mapping[str, object]) -> Iterator[tuple[str, float]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _numbers(value)
        elif type(value) is int or type(value) is float:
            yield name, float(value)
