"""Calibrate a project's model, install it into CAC Scoring, and roll it back."""

# Slicer's naming.
# ruff: noqa: N802, N803

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from textwrap import shorten
from typing import TYPE_CHECKING

import slicer
from slicer.i18n import tr as _

from CACScoringLib.core.errors import CTError
from CACScoringLib.panel.job import BackgroundJob, Event, JobError, Steps
from CACScoringLib.panel.lifecycle import PanelSection
from CACScoringLib.panel.packages import TORCH_REQUIREMENTS, ensurePackages
from CACScoringLib.panel.parameters import MODELS
from CACScoringLib.panel.widgets import InSight, askForFile, dataOf, fillBox

from ..project.project import Project
from .curve_nodes import SHOWN_METRICS
from .parameters import LIBRARY, TRAINING_REQUIREMENTS
from .training_options import cardsIn

if TYPE_CHECKING:
    from CACScoringLib.models.cards import ModelCard, StoredModel


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
        ui.cardLabel.setText(_("The project has no finished model yet.") if card is None else summary(card, installed))
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


def summary(card: ModelCard, installed: ModelCard | None) -> str:
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
        lines.append(_("⚠ Nothing shows that it scores better on patients: read the verdict of cac validate --before."))
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
