"""Computation of the calcium map from within a segment editor effect: heart, slices and map, in the background."""

# Slicer's naming.
# ruff: noqa: N802, N803

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import qt
import slicer
from slicer.i18n import tr as _

from ...core.errors import CTError
from ..input_section import defaultOf, modelChoices
from ..packages import REQUIREMENTS, ensurePackages
from ..scan_facts import problemOf
from ..scoring import Scorer
from ..widgets import MIN_LETTERS, dataOf, fillBox, messageLabel, say, wideButton

if TYPE_CHECKING:
    from ...mrml.scene import SceneNodes
    from ...review.scene import SceneReview


class MapRun:
    """Row of a model's choice, a button and a bar, and buttons that show what belongs to the map.

    A run scores the CT by all networks and adds its result to the scene; the segmentation refers to that map from then
    on. It goes on while another effect is used.

    Args:
        onChanged: Function called once the segmentation has another map.

    Attributes:
        layout: The rows.
        scorer: Runs the command.
        box: Choice of the model.
        button: Starts and cancels a run.
    """

    def __init__(self, onChanged: Callable[[], object]) -> None:
        self._onChanged = onChanged
        self._segmentation: slicer.vtkMRMLSegmentationNode | None = None
        self._volume: slicer.vtkMRMLScalarVolumeNode | None = None
        self._target: slicer.vtkMRMLSegmentationNode | None = None
        """Segmentation for which a map is being computed."""
        self.layout, row, links = qt.QVBoxLayout(), qt.QHBoxLayout(), qt.QHBoxLayout()
        self.box, self.bar, self._label = qt.QComboBox(), qt.QProgressBar(), messageLabel()
        self.box.setToolTip(_("Model of the calcium map. Choose another one to compute the map again."))
        self.box.currentIndexChanged.connect(lambda *_args: self._showState())
        self.bar.setMaximum(1000)
        self.bar.setTextVisible(False)
        tip = _("Find the heart and the slices with calcium in the CT, and compute its calcium map, in the background.")
        self.button = wideButton(_("Compute the map"), tip, self._pressed)
        row.addWidget(self.box, 1)
        row.addWidget(self.button, 1)
        shown = (
            (_("Heart"), _("Show or hide the outline of the heart."), self.showHeart),
            (_("Slices"), _("Open the result in CAC Scoring, with the curve of its slices."), self.showSlices),
            (_("Projection"), _("Open the projection of the CT in CAC Scoring."), self.showProjection),
        )
        self.links = [wideButton(*link) for link in shown]
        for link in self.links:
            links.addWidget(link)
        for part in (row, links):
            self.layout.addLayout(part)
        for widget in (self.bar, self._label):
            self.layout.addWidget(widget)
        self.box.setSizeAdjustPolicy(qt.QComboBox.AdjustToMinimumContentsLengthWithIcon)
        self.box.setMinimumContentsLength(MIN_LETTERS)
        self.scorer = Scorer()
        self.scorer.job.showIn(self._label, self.bar)
        self.scorer.finished.connect(self._onFinished)
        say(self._label, "")

    def show(self, segmentation, volume) -> None:
        """Show the state for a segmentation and its CT; None for neither."""
        from ...models.cards import list_models

        self._segmentation, self._volume = segmentation, volume
        try:
            models = list_models("decomposition")
        except CTError as error:
            models = []
            say(self._label, str(error))
        default = defaultOf(models)
        choices = modelChoices(models, default)
        name = self._modelOfMap()
        choice = dataOf(self.box) if self.scorer.isRunning else "" if default and name == default.card.name else name
        fillBox(self.box, choices, choice, _("{name} (not installed)").format(name=name))
        if not self.scorer.isRunning and volume is not None and (problem := problemOf(volume)):
            say(self._label, problem)
        self._showState()

    def close(self) -> None:
        """End a run, and stop the process that waits for the next."""
        self._target = None
        self.scorer.close()

    # Actions

    def showHeart(self) -> None:
        from ...mrml.scene import HEART_ROLE

        heart = None if self._segmentation is None else self._segmentation.GetNodeReference(HEART_ROLE)
        if heart is not None:
            heart.SetDisplayVisibility(not heart.GetDisplayVisibility())

    def showSlices(self) -> None:
        self._openPanel("scanPage")

    def showProjection(self) -> None:
        self._openPanel("radiographTab")

    def _openPanel(self, page: str) -> None:
        """Show the result of the map in a page of CAC Scoring."""
        if (nodes := self._nodesOfMap()) is None:
            return
        panel = slicer.util.getModule("CACScoring").widgetRepresentation().self()
        panel.logic.getParameterNode().result = nodes.record
        slicer.util.selectModule("CACScoring")
        panel.ui.pages.setCurrentWidget(getattr(panel.ui, page))

    def _pressed(self) -> None:
        if self.scorer.isRunning:
            self.scorer.cancel()
            return
        if reason := ensurePackages(REQUIREMENTS, requester="CAC Decompose"):
            say(self._label, reason)
            return
        name = dataOf(self.box)
        self._target = self._segmentation
        self.scorer.score(self._volume, ["--model", name] if name else [], prepare=_hideLesions)
        self._showState()

    def _onFinished(self, review: SceneReview | None, message: str) -> None:
        say(self._label, message)
        target, self._target = self._target, None
        if review is not None and target is not None and slicer.mrmlScene.IsNodePresent(target):
            from ...mrml.scene import CALCIUM_MAP_ROLE, HEALTHY_ROLE, HEART_ROLE

            nodes = review.nodes
            parts = {HEART_ROLE: nodes.heart, CALCIUM_MAP_ROLE: nodes.calcium_map, HEALTHY_ROLE: nodes.healthy}
            for role, node in parts.items():
                if node is not None:
                    target.SetNodeReferenceID(role, node.GetID())
        self._showState()
        self._onChanged()

    # The map

    def _nodesOfMap(self) -> SceneNodes | None:
        """Return the nodes of the result that the segmentation's map belongs to; None without one."""
        from ...mrml.scene import CALCIUM_MAP_ROLE, nodes_of_record, records_in

        segmentation = self._segmentation
        calcium_map = None if segmentation is None else segmentation.GetNodeReference(CALCIUM_MAP_ROLE)
        for record in records_in(slicer.mrmlScene) if calcium_map is not None else ():
            try:
                nodes = nodes_of_record(slicer.mrmlScene, record)
            except CTError:
                continue
            if nodes.calcium_map is calcium_map:
                return nodes
        return None

    def _modelOfMap(self) -> str:
        """Return the name of the model that has computed the segmentation's map; empty if unknown."""
        from ...record.score_record import record_from_text

        if (nodes := self._nodesOfMap()) is None:
            return ""
        models = record_from_text(nodes.record.GetText(), nodes.record.GetName()).models
        return next((model.name for model in models if model.network == "decomposition"), "")

    def _showState(self) -> None:
        from ...mrml.scene import CALCIUM_MAP_ROLE

        segmentation, volume, is_running = self._segmentation, self._volume, self.scorer.isRunning
        has_map = segmentation is not None and segmentation.GetNodeReference(CALCIUM_MAP_ROLE) is not None
        start = _("Compute the map again") if has_map else _("Compute the map")
        self.button.setText(_("Cancel") if is_running else start)
        may_start = segmentation is not None and volume is not None and not problemOf(volume)
        self.button.setEnabled(is_running or may_start)
        self.box.setEnabled(not is_running)
        for link in self.links:
            link.setEnabled(self._nodesOfMap() is not None)


def _hideLesions(nodes: SceneNodes) -> None:
    """Hide the lesions that a run has found, which would lie over those that are being edited."""
    nodes.calcium.SetDisplayVisibility(False)
