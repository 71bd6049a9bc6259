"""Proposals of all scans, hearts and predictions for their slices, computed in the background."""

# Slicer's naming.
# ruff: noqa: N802, N803

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from slicer.i18n import tr as _

from CACScoringLib.panel.lifecycle import Section
from CACScoringLib.panel.packages import ensurePackages
from CACScoringLib.panel.widgets import dataOf, fillBox
from CACScoringLib.panel.worker import Worker

from ...project.project import Project
from ...project.proposals import read_proposal
from ..model_cards import cardsIn

NETWORK = "slices"


class PrepareSection(Section):
    """Widgets of proposals.

    Args:
        ui: Widgets by name.
        worker: Background process.
        onChanged: Function called when there are new proposals.
        say: Function that shows a message.
    """

    def __init__(self, ui, worker: Worker, onChanged: Callable[[], None], say: Callable[[str], None]) -> None:
        self._ui = ui
        self._worker = worker
        self._onChanged = onChanged
        self._say = say
        self._project: Project | None = None
        self._cards: dict[str, Path] = {}
        ui.proposalModelBox.currentIndexChanged.connect(self._modelChosen)
        ui.prepareButton.clicked.connect(lambda *_args: self._startOrCancel())

    def setProject(self, project: Project | None) -> None:
        if project is None or self._project is None or project.folder != self._project.folder:
            self.cancel()
        self._project = project
        self.update()

    def update(self) -> None:
        """Show the list of models and the selected one."""
        ui, state = self._ui, self._state
        self._cards = {} if self._project is None else _classifiers(self._project.models_folder)
        box, model = ui.proposalModelBox, "" if state is None else state.proposalModel
        fillBox(box, [(_("the network that comes with CAC"), ""), *((name, name) for name in self._cards)], model)
        running = self._worker.isRunning
        box.setEnabled(not running)
        ui.prepareButton.setText(_("Stop preparing") if running else _("Prepare all"))
        ui.prepareButton.setEnabled(running or (self._project is not None and bool(self._project.scans)))

    @property
    def arguments(self) -> list[str]:
        """Options of `cac project prepare` for the selected model."""
        card = self._cards.get(self._state.proposalModel) if self._state is not None else None
        return [] if card is None else ["--model", str(card)]

    def cancel(self) -> None:
        # Finished proposals are kept.
        if self._worker.isRunning:
            self._worker.cancel()
            self.update()

    def _modelChosen(self, index: int) -> None:
        if self._state is not None and index >= 0:
            self._state.proposalModel = dataOf(self._ui.proposalModelBox)

    def _startOrCancel(self) -> None:
        if self._worker.isRunning:
            self.cancel()
            self._say(_("Stopped. Prepared scans are kept."))
            self._onChanged()
            return

        if reason := ensurePackages(requester="CAC Training", purpose=_("Preparing scans")):
            self._say(reason)
            return

        def onEvent(event: dict) -> None:
            if event["event"] == "counted":
                self._say(_("Preparing: {done} of {count} scans …").format(**event))

        def onEnd(reason: str) -> None:
            self._onChanged()
            count = sum(event["code"] == "scan-failed" for event in self._worker.warnings)
            failed = _("Scans without a proposal: {count}.").format(count=count) if count else ""
            self._say("\n".join(filter(None, [reason or _("All scans are prepared."), failed])))
            self.update()

        arguments = ["project", "prepare", str(self._project.folder), *self.arguments]
        if self._isStale():
            arguments.append("--overwrite")
        self._say(_("Preparing …"))
        self._worker.start(arguments, onEnd, onEvent=onEvent)
        self.update()

    def _isStale(self) -> bool:
        """True if any proposal is by another model than the selected one."""
        model = self._state.proposalModel
        proposals = [read_proposal(self._project, scan.id) for scan in self._project.scans]
        models = [set(proposal.models) for proposal in proposals if proposal is not None and proposal.probabilities]
        return any(model not in names if model else names & set(self._cards) for names in models)


def _classifiers(folder: Path) -> dict[str, Path]:
    """Cards of the project's own classifiers of slices, by name."""
    cards = {card.name: Path(path) for path, card in cardsIn(folder).items() if card.network == NETWORK}
    return {name: path for name, path in cards.items() if path.with_suffix(".safetensors").is_file()}
