"""A reader's reading of a scan in the scene, recorded in the folder of the scan's results."""

# Slicer's naming.
# ruff: noqa: N802

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import slicer
from slicer.i18n import tr as _

from ..core.ct import CTError
from ..readings.blinding import begin_blind, blind_content
from ..readings.cases import ReviewCase
from ..readings.journals import reading_by
from ..readings.recorded_review import RecordedReview
from ..review.journal import JournalError

if TYPE_CHECKING:
    from ..mrml.scene import SceneNodes
    from ..mrml.scene_content import SceneContent
    from ..review.scene import SceneReview
    from ..review.state import Change

MAX_IDLE_SECONDS = 60.0
"""Time without an action that counts as reading, as in the browser."""


class SceneReading:
    """A reading that a reader does in the scene.

    The scene does not save its nodes: the journal in the results holds the reading, and reopens it.

    Attributes:
        case: Scan that is read.
        kind: FIRST or AGAIN.
        reader: Name of the reader.
        name: Name of the scan that the reader sees.
        blind: True if the networks' results are hidden.
        review: The review; None until it is open.
    """

    def __init__(self, case: ReviewCase, kind: str, reader: str, name: str, blind: bool) -> None:
        self.case, self.kind, self.reader, self.name, self.blind = case, kind, reader, name, blind
        self.review: SceneReview | None = None
        self.fault = ""
        self.onFault: Callable[[], object] = lambda: None
        self._recorded: _Recorded | None = None
        self._seconds, self._lastActive = 0.0, time.monotonic()

    @property
    def journalName(self) -> str:
        """Name of the reading, by which its journal is found."""
        return reading_by(self.reader, self.kind)

    def begin(self, content: SceneContent) -> SceneContent:
        """Begin the journal of a blind reading; return the content that the reader may see. Raises CTError."""
        if not self.blind:
            return content
        begin_blind(self.case, self.journalName)
        return blind_content(content)

    def open(self, nodes: SceneNodes, content: SceneContent) -> SceneReview:
        """Return the review of new nodes as its journal has it. Raises CTError."""
        from ..review.scene import SceneReview

        for node in _nodesIn(nodes):
            node.SetSaveWithScene(False)
        self._recorded = _Recorded(self, lambda record: SceneReview(slicer.mrmlScene, nodes, content, record))
        self.review = self._recorded.review
        self.review.reader = self.reader
        if self.blind:
            self.review.make_blind()
        self.review.update_tables()
        self._lastActive = time.monotonic()
        return self.review

    def noteActivity(self) -> None:
        """Count the time since the last action, up to a limit, as reading."""
        now = time.monotonic()
        self._seconds += min(now - self._lastActive, MAX_IDLE_SECONDS)
        self._lastActive = now

    def takeSeconds(self) -> float:
        self.noteActivity()
        seconds, self._seconds = self._seconds, 0.0
        return seconds

    def fail(self, reason: str) -> None:
        """Stop recording, because a change could not be stored."""
        self.fault = reason
        self.onFault()

    def close(self) -> None:
        """Record the time and the lesions shown since the last change, and remove the nodes from the scene."""
        recorded, self._recorded = self._recorded, None
        if recorded is None:
            return
        if not self.fault and (seconds := self.takeSeconds()) > 1:
            try:
                recorded.note("time", self.reader, "", seconds)
            except CTError as error:
                self.fault = str(error)
        if slicer.mrmlScene.IsClosing():
            return
        nodes = recorded.review.nodes
        for node in _nodesIn(nodes):
            if slicer.mrmlScene.IsNodePresent(node):
                slicer.mrmlScene.RemoveNode(node)
        hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
        hierarchy.RemoveItem(nodes.folder)


class _Recorded(RecordedReview):
    """Review whose changes the reader of a reading makes in the scene."""

    def __init__(self, reading: SceneReading, make: Callable[..., SceneReview]) -> None:
        self._of = reading
        super().__init__(reading.case, reading.journalName, make)

    def present_action(self) -> tuple[str, str, float]:
        return self._of.reader, _("in 3D Slicer"), self._of.takeSeconds()

    def _record(self, kind: str, change: Change) -> None:
        if self._of.fault:
            return  # what follows a lost change cannot be stored either
        try:
            super()._record(kind, change)
        except JournalError as error:
            self._of.fail(str(error))
            raise


def _nodesIn(nodes: SceneNodes) -> list[slicer.vtkMRMLNode]:
    return [node for node in vars(nodes).values() if isinstance(node, slicer.vtkMRMLNode)]
