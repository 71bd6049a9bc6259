"""A scored scan in a scene, whose lesions a reader edits.

The nodes are the only state: lesions and numbers are derived from the segments, whatever edited them (the panel, our
effects, Slicer's own, undo), from the slices' table ("Used") and from an attribute of each segmentation (reviewed). So
a scene that is saved and opened again can be edited on. Knows no Qt.
"""

from __future__ import annotations

from collections.abc import Callable

import slicer

from ..mrml.scene import SceneNodes, keep_in_folder, nodes_of_record
from ..mrml.scene_content import SceneContent
from ..mrml.tables import fill_table, lesion_table, score_table
from .nodes import ReviewNodes
from .review import Difference
from .scan_review import ScanReview
from .state import ReviewChange


class SceneReview(ScanReview):
    """A scored scan in a scene whose lesions a reader edits.

    Args:
        scene: The scene.
        nodes: Nodes of the scan and its results.
        content: As of `ReviewNodes`.
        record_change: As of `ScanReview`.

    Raises:
        CTError: As `ScanReview` and `image_of_volume` do.
    """

    def __init__(
        self,
        scene: slicer.vtkMRMLScene,
        nodes: SceneNodes,
        content: SceneContent | None = None,
        record_change: Callable[[str, ReviewChange], None] | None = None,
    ) -> None:
        self.scene = scene
        self.nodes = nodes
        super().__init__(ReviewNodes(nodes, content), record_change=record_change)

    @classmethod
    def of_record(cls, scene: slicer.vtkMRMLScene, record: slicer.vtkMRMLTextNode) -> SceneReview:
        """Return the review of a result in a reopened scene; see `mrml.scene.nodes_of_record`."""
        return cls(scene, nodes_of_record(scene, record))

    def update_tables(self) -> None:
        """Write the numbers into the table nodes. A method with a problem has no rows."""
        record = self.as_result(images=False).record
        fill_table(self.nodes.scores, score_table(record))
        fill_table(self.nodes.lesions, lesion_table(record))

    def _take_in_voxels(self) -> dict[str, Difference]:
        changed = super()._take_in_voxels()
        if changed:
            keep_in_folder(self.scene, self.nodes)
        return changed
