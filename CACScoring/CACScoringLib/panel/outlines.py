"""Visibility of a scan's segmentations and overlays, which Slicer would draw over whatever volume the views show."""

# Slicer's naming.
# ruff: noqa: N802, N806

from __future__ import annotations

from collections.abc import Sequence

import slicer
import vtk
from slicer.util import VTKObservationMixin

from . import views
from .widgets import singleShot


class Outlines:
    """Segmentations of a scan and volumes over it, hidden while the slice views show another one.

    Only a change of what the views show hides them or shows them again, so that a user may switch them on anywhere.
    """

    def __init__(self) -> None:
        self._observed = VTKObservationMixin()
        self._segmentations: list[slicer.vtkMRMLSegmentationNode] = []
        self._volumes: list[slicer.vtkMRMLScalarVolumeNode] = []
        self._hidden: list[slicer.vtkMRMLSegmentationNode] = []
        self._overlays: list[tuple[slicer.vtkMRMLSliceCompositeNode, str]] = []
        """Views from which a volume over the scan was removed, with its ID."""
        self._isScanShown = True
        self._timer = singleShot(0, self.update)  # views change in several steps

    def follow(self, nodes: Sequence[slicer.vtkMRMLNode | None]) -> None:
        """Follow the views with the segmentations and the volumes among some nodes, instead of the former ones."""
        self.stop()
        self._segmentations = [node for node in nodes if isinstance(node, slicer.vtkMRMLSegmentationNode)]
        self._volumes = [node for node in nodes if isinstance(node, slicer.vtkMRMLScalarVolumeNode)]
        self.update()

    def stop(self) -> None:
        """Leave the views alone."""
        self._timer.stop()
        self._observed.removeObservers()
        self._segmentations, self._volumes, self._hidden, self._overlays = [], [], [], []
        self._isScanShown = True

    def update(self) -> None:
        """Hide the segmentations if the views have changed to another scan, and show them if they have changed back."""
        if not self._segmentations:
            return
        self._observe()
        is_shown = views.showNoneBut(self._volumes)
        if is_shown == self._isScanShown:
            return
        self._isScanShown = is_shown
        if not is_shown:
            self._hidden = [node for node in self._segmentations if node.GetDisplayVisibility()]
            self._overlays = self._overlaysOnOthers()
        for node in self._hidden:
            node.SetDisplayVisibility(is_shown)
        for composite, volumeId in self._overlays:
            views.setForeground(composite, volumeId if is_shown else None)

    def setVisible(self, segmentation: slicer.vtkMRMLSegmentationNode, on: bool) -> None:
        """Show a segmentation, once the views show its scan, or hide it."""
        if self._isScanShown:
            segmentation.SetDisplayVisibility(on)
        elif on and segmentation not in self._hidden:
            self._hidden.append(segmentation)
        elif not on:
            self._hidden = [node for node in self._hidden if node is not segmentation]

    def _overlaysOnOthers(self) -> list[tuple[slicer.vtkMRMLSliceCompositeNode, str]]:
        """Return the views that show one of the volumes over another scan, with its ID."""
        ids = {volume.GetID() for volume in self._volumes}
        composites = slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode")
        pairs = [(node, node.GetForegroundVolumeID()) for node in composites if node.GetBackgroundVolumeID() not in ids]
        return [(node, volumeId) for node, volumeId in pairs if volumeId in ids]

    def _observe(self) -> None:
        """Observe the layout and its views, which are made when a layout is first shown."""
        for kind in ("vtkMRMLSliceCompositeNode", "vtkMRMLLayoutNode"):
            for node in slicer.util.getNodesByClass(kind):
                if not self._observed.hasObserver(node, vtk.vtkCommand.ModifiedEvent, self._changed):
                    self._observed.addObserver(node, vtk.vtkCommand.ModifiedEvent, self._changed)

    def _changed(self, caller=None, event=None) -> None:
        self._timer.start()
