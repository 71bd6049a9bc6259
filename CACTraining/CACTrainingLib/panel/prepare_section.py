"""Proposals of all scans, hearts and predictions for their slices, computed in the background."""

# Slicer's naming.
# ruff: noqa: N802, N803

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from slicer.i18n import tr as _

from CACScoringLib.panel.job import BackgroundJob, Event, JobError, Steps
from CACScoringLib.panel.lifecycle import PanelSection
from CACScoringLib.panel.packages import ensurePackages
from CACScoringLib.panel.widgets import fillBox

from ..project.project import Project
from ..project.proposals import read_proposal
from .packages import LIBRARY
from .training_options import cardsIn

NETWORK = "slices"


class PrepareSection(PanelSection):
    """Widgets of proposals.

    Args:
        ui: Widgets by name.
        onChanged: Function called when there are new proposals.
    """

    def __init__(self, ui, onChanged: Callable[[], None]) -> None:
        self._ui = ui
        parts, cancelled = (ui.workStatusLabel, None, ui.prepareButton), _("Stopped. Prepared scans are kept.")
        self.job = BackgroundJob(*parts, self._prepare, cancelled, self.update, LIBRARY)
        self._onChanged = onChanged
        self._project: Project | None = None
        self._cards: dict[str, Path] = {}
        self.bind(ui.proposalModelBox, "proposalModel")

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
        box.setEnabled(not self.job.isRunning)
        self.job.update(self._project is not None and bool(self._project.scans))
        if self.job.isRunning:
            ui.prepareButton.setText(_("Stop preparing"))

    @property
    def arguments(self) -> list[str]:
        """Options of `cac project prepare` for the selected model."""
        card = self._cards.get(self._state.proposalModel) if self._state is not None else None
        return [] if card is None else ["--model", str(card)]

    def cancel(self) -> None:
        # Finished proposals are kept.
        if self.job.isRunning:
            self.job.cancel()
            self.update()

    def _prepare(self) -> Steps[str]:
        if reason := ensurePackages(requester="CAC Training", purpose=_("Preparing scans")):
            return reason

        def onEvent(event: Event) -> None:
            if event["event"] == "counted":
                self.job.say(_("Preparing: {done} of {count} scans …").format(**event))

        overwrite = ["--overwrite"] if self._isStale() else []
        self.job.say(_("Preparing …"))
        text = _("All scans are prepared.")
        try:
            arguments = ["project", "prepare", str(self._project.folder), *self.arguments, *overwrite]
            yield from self.job.run(arguments, onEvent=onEvent)
        except JobError as error:
            text = str(error)
        finally:
            self._onChanged()
        count = sum(event["code"] == "scan-failed" for event in self.job.warnings)
        return "\n".join([text, *([_("Scans without a proposal: {count}.").format(count=count)] if count else [])])

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
