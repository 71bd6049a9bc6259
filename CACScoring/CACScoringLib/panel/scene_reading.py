"""A reader's reading of a scan in the scene, recorded in the folder of the scan's results."""

# Slicer's naming.
# ruff: noqa: N802

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import slicer
from slicer.i18n import tr as _

from ..core.errors import CTError

if TYPE_CHECKING:
    from ..mrml.scene import SceneNodes
    from ..mrml.scene_content import SceneContent
    from ..readings.cases import ReviewCase
    from ..readings.recorded_review import RecordedReview
    from ..review.scene import SceneReview
    from ..review.state import ReviewChange

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
        self._recorded: RecordedReview | None = None
        self._seconds, self._lastActive = 0.0, time.monotonic()

    @property
    def journalName(self) -> str:
        """Name of the reading, by which its journal is found."""
        from ..readings.journals import reading_by

        return reading_by(self.reader, self.kind)

    @property
    def isOpen(self) -> bool:
        return self.review is not None and bool(slicer.mrmlScene.IsNodePresent(self.review.nodes.record))

    @property
    def isConfirmed(self) -> bool:
        return self.review is not None and self.review.reviewed["threshold"]

    def begin(self, content: SceneContent) -> SceneContent:
        """Begin the journal of a blind reading; return the content that the reader may see. Raises CTError."""
        from ..readings.recorded_review import begin_blind, blind_content

        if not self.blind:
            return content
        begin_blind(self.case, self.journalName)
        return blind_content(content)

    def open(self, nodes: SceneNodes, content: SceneContent) -> SceneReview:
        """Return the review of new nodes as its journal has it. Raises CTError."""
        from ..readings.recorded_review import RecordedReview
        from ..review.scene import SceneReview

        for node in _nodesIn(nodes):
            node.SetSaveWithScene(False)
        opened: list[SceneReview] = []

        def make(record: Callable[[str, ReviewChange], None]) -> SceneReview:
            opened.append(SceneReview(slicer.mrmlScene, nodes, content, self._recording(record)))
            return opened[0]

        self._recorded = RecordedReview(self.case, self.journalName, make, self._action)
        self.review = review = opened[0]
        review.reader = self.reader
        if self.blind:
            review.make_blind(self.journalName)
        review.update_tables()
        self._lastActive = time.monotonic()
        return review

    def _action(self) -> tuple[str, str, float]:
        return self.reader, _("in 3D Slicer"), self.takeSeconds()

    def _recording(self, record: Callable[[str, ReviewChange], None]) -> Callable[[str, ReviewChange], None]:
        """Return a function that records changes until one cannot be stored."""
        from ..core.errors import JournalError

        def recordUnlessFaulty(kind: str, change: ReviewChange) -> None:
            if self.fault:
                return  # what follows a lost change cannot be stored either
            try:
                record(kind, change)
            except JournalError as error:
                self.fault = str(error)
                self.onFault()
                raise

        return recordUnlessFaulty

    def noteActivity(self) -> None:
        """Count the time since the last action, up to a limit, as reading."""
        now = time.monotonic()
        self._seconds += min(now - self._lastActive, MAX_IDLE_SECONDS)
        self._lastActive = now

    def takeSeconds(self) -> float:
        self.noteActivity()
        seconds, self._seconds = self._seconds, 0.0
        return seconds

    def close(self) -> None:
        """Record the time and the lesions shown since the last change."""
        recorded, self._recorded = self._recorded, None
        if recorded is not None and not self.fault and (seconds := self.takeSeconds()) > 1:
            try:
                recorded.note("time", self.reader, "", seconds)
            except CTError as error:
                self.fault = str(error)

    def removeNodes(self) -> None:
        """Remove the nodes from the scene; the CT stays if it was scored anew meanwhile."""
        from ..mrml.scene import records_in, remove_node, volume_of_record

        if not self.isOpen:
            return
        nodes = self.review.nodes
        scored_volumes = [
            volume_of_record(record) for record in records_in(slicer.mrmlScene) if record is not nodes.record
        ]
        for node in _nodesIn(nodes):
            if node is nodes.volume and node in scored_volumes:
                node.SetSaveWithScene(True)
            elif slicer.mrmlScene.IsNodePresent(node):
                remove_node(slicer.mrmlScene, node)
        hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
        if nodes.volume not in scored_volumes:
            hierarchy.RemoveItem(nodes.folder)


def _nodesIn(nodes: SceneNodes) -> list[slicer.vtkMRMLNode]:
    return [node for node in vars(nodes).values() if isinstance(node, slicer.vtkMRMLNode)]
