"""CAC Decompose: sets a segment to the calcium map's voxels inside a rough region."""

# Slicer's naming.
# ruff: noqa: N802, N803, N806

from __future__ import annotations

import numpy as np
import qt
import vtk
from slicer.i18n import tr as _

from CACScoringLib.core.labels import Artery
from CACScoringLib.panel.effects.base import LesionEffect, Parameter, helpOf, siteKeys
from CACScoringLib.panel.widgets import blocked_signals, singleShot
from CACScoringLib.review.picking import Voxels, in_parts_with, shown_voxels, values_at

PAINTED, VISIBLE = "Painted", "Shown"
"""Values of the parameter Region."""


class SegmentEditorEffect(LesionEffect):
    """Takes the calcium map's voxels inside the painted or the visible region, with a preview."""

    def __init__(self, scriptedEffect) -> None:
        super().__init__(scriptedEffect, "CAC Decompose", __file__)
        self._preview = None
        self._region = None
        self._regionKind = ""
        self._view = None
        self._observed = []
        self._publishedFloor = 0.0
        self.mapRun = None
        self._lesionLimits = (0.0, 0.0)  # least HU of a lesion in the CT and in the map

    def helpText(self) -> str:
        actions = {
            _("Painted region"): _(
                "what was painted into the selected segment, with CAC Region for example, shrinks to the map's "
                "calcium; its lesions elsewhere stay."
            ),
            _("Visible part of a slice"): _(
                "the map's calcium in the slice view last clicked in is added to the selected segment; what belongs to "
                "another artery or was rejected stays there."
            ),
            **siteKeys(),
        }
        return helpOf(
            _("Replace a rough region by the calcium that the map finds in it, without the 130 HU threshold"),
            actions,
            _("The preview lights up in the slice views. Apply accepts it, Cancel changes nothing."),
        )

    def parameters(self) -> list[Parameter]:
        tip = _("A voxel is taken where calcium adds at least this many HU.")
        return [Parameter("FloorHU", _("Minimum calcium:"), tip, None, (1, 1000), _(" HU"))]

    def _addOptions(self) -> None:
        from CACScoringLib.panel.effects.map_run import MapRun

        self.mapRun = MapRun(self._mapChanged)
        self.scriptedEffect.addOptionsWidget(self.mapRun.layout)
        self._timer = singleShot(0, self.updatePreview)
        self._connections.append((self._timer.timeout, self.updatePreview))
        regions, buttons = qt.QVBoxLayout(), qt.QHBoxLayout()
        self.paintedButton = qt.QRadioButton(_("Painted region"))
        self.visibleButton = qt.QRadioButton(_("Visible part of a slice"))
        self.paintedButton.setToolTip(_("Parts of the segment in a slice that hold more than lesions."))
        self.visibleButton.setToolTip(_("Of the slice view last clicked in."))
        for button in (self.paintedButton, self.visibleButton):
            self._connect(button.toggled, self.updateMRMLFromGUI)
            regions.addWidget(button)
        self.scriptedEffect.addLabeledOptionsWidget(_("Region:"), regions)
        super()._addOptions()
        self.applyButton = qt.QPushButton(_("Apply"))
        self.cancelButton = qt.QPushButton(_("Cancel"))
        for button, pressed in ((self.applyButton, self.onApply), (self.cancelButton, self.onCancel)):
            self._connect(button.clicked, pressed)
            buttons.addWidget(button)
        self.scriptedEffect.addOptionsWidget(buttons)

    def setMRMLDefaults(self) -> None:
        self.scriptedEffect.setParameterDefault("Region", PAINTED)
        self.scriptedEffect.setParameterDefault("FloorOf", "none")

    def updateGUIFromMRML(self) -> None:
        from CACScoringLib.calcium_map.decomposition import DecompositionSettings

        self._publishedFloor = DecompositionSettings().floor_hu
        self.scriptedEffect.setParameterDefault("FloorHU", self._publishedFloor)
        super().updateGUIFromMRML()
        for button, region in ((self.paintedButton, PAINTED), (self.visibleButton, VISIBLE)):
            with blocked_signals(button):
                button.setChecked(self.scriptedEffect.parameter("Region") == region)
        self._schedulePreview()

    def updateMRMLFromGUI(self, _value=None) -> None:
        super().updateMRMLFromGUI()
        self.scriptedEffect.setParameter("Region", PAINTED if self.paintedButton.checked else VISIBLE)
        self._schedulePreview()

    # Lifecycle

    def activate(self) -> None:
        super().activate()
        self._takeMap()
        self.updatePreview()

    def _mapChanged(self) -> None:
        """Use the map that was computed, if the effect is still in use."""
        if self.scriptedEffect.active():
            self._stopObserving()
            self._takeMap()
            self.forget()

    def _showRun(self) -> None:
        node = self.scriptedEffect.parameterSetNode()
        self.mapRun.show(self.scan.segmentation, None if node is None else node.GetSourceVolumeNode())

    def _takeMap(self) -> None:
        """Take the floor of the map's own result, and observe the segmentation."""
        from CACScoringLib.record.rules import ScoringRules

        self._showRun()
        if self.scan.segmentation is not None:
            floor = self.scan.floor_hu()
            self._useValueOfResult("FloorHU", "FloorOf", floor)
            self._lesionLimits = self.scan.threshold_hu() or ScoringRules().threshold_hu, floor or self._publishedFloor
            self._observe()

    def deactivate(self) -> None:
        self._timer.stop()
        self._stopObserving()
        self._region = self._preview = None
        super().deactivate()

    def cleanup(self) -> None:
        super().cleanup()
        self._stopObserving()
        if self.mapRun is not None:
            self.mapRun.close()

    def sourceVolumeNodeChanged(self) -> None:
        if self.mapRun is not None:
            self._showRun()
        self.forget()

    def layoutChanged(self) -> None:
        self._view = None
        self.forget()

    def _observe(self) -> None:
        """Update the preview after the selection or the segment's voxels change, by other tools or undo."""
        node, contents = self.scriptedEffect.parameterSetNode(), self.scan.segmentation.GetSegmentation()
        # Undo invokes SegmentModified only, an edit the other event too.
        for subject, event in (
            (node, vtk.vtkCommand.ModifiedEvent),
            (contents, contents.SegmentModified),
            (contents, contents.SourceRepresentationModified),
        ):
            self._observed.append((subject, subject.AddObserver(event, self.forget)))

    def _stopObserving(self) -> None:
        for subject, tag in self._observed:
            subject.RemoveObserver(tag)
        self._observed = []

    def forget(self, _caller=None, _event=None) -> None:
        self._region = None
        self._schedulePreview()

    def _schedulePreview(self) -> None:
        """Update the preview once after all current changes."""
        if self.scan is not None and self.scriptedEffect.active():
            self._timer.start()

    # Views

    def onViewEvent(self, interactor, eventId, viewWidget) -> bool:
        if eventId == vtk.vtkCommand.KeyPressEvent:
            return self._arteries.takeKey(interactor)
        if eventId == vtk.vtkCommand.LeftButtonPressEvent and self._view != viewWidget:
            self._view = viewWidget
            self.forget()
        return False

    def onViewMoved(self, viewWidget) -> None:
        if self.scriptedEffect.parameter("Region") == VISIBLE and viewWidget == self._regionView():
            self.forget()

    def _regionView(self):
        """Return the slice view whose visible part is the region: the view last clicked in, else the axial view."""
        widgets = self._views.sliceWidgets(self.scriptedEffect)
        return self._view if self._view in widgets else self._views.axialSliceWidget(self.scriptedEffect)

    # Actions of the reader

    def chooseArtery(self, artery) -> None:
        super().chooseArtery(artery)
        self.forget()

    def updatePreview(self) -> None:
        """Show what Apply would keep of the selected segment, or add to it."""
        self._showArtery()
        self._preview = None
        reason = self._readRegion()
        if not reason:
            kji, values = self._region
            floor = self.scriptedEffect.doubleParameter("FloorHU")
            self._preview = Voxels.at(kji[values >= floor])
            reason = self._previewText(kji, values, floor)
        if self._preview is None:
            self._voxelOverlay.hide()
        else:
            self._voxelOverlay.show(self._preview, self.scan.index_to_ras, self._views.CANDIDATE_COLOUR)
        painted = self.scriptedEffect.parameter("Region") == PAINTED
        self.applyButton.setEnabled(self._preview is not None or (painted and self._region is not None))
        self._hint(reason)

    def onApply(self, _checked: bool = False) -> None:
        if self.scriptedEffect.confirmCurrentSegmentVisible() == self.scriptedEffect.NotConfirmed:
            return
        self.updatePreview()
        if self._region is None:
            return
        remainder = None
        if self.scriptedEffect.parameter("Region") == PAINTED:
            kji, values = self._region
            remainder = Voxels.at(kji[~(values >= self.scriptedEffect.doubleParameter("FloorHU"))])
        slices = self._slicesText(self._region[0])
        changed = self.scan.change(self.scan.selected, self._preview, remainder)
        self._region = None
        self.updatePreview()
        name = self.scan.name_of(self.scan.selected)
        done = _("Done: {artery} holds the map's calcium in {slices}; elsewhere it is as before.")
        done = done.format(artery=name, slices=slices)
        self._say(done if changed else _("Nothing changed."))

    def onCancel(self, _checked: bool = False) -> None:
        self.scriptedEffect.selectEffect("")

    # The region and the map inside it

    def _readRegion(self) -> str:
        """Read the map inside the region, unless it was read already. Returns the reason if that is impossible."""
        if not self.scan.update():
            self._region = None
            return _("Choose a segmentation and its source volume.")
        kind = self.scriptedEffect.parameter("Region")
        if self._region is not None and self._regionKind == kind:
            return ""
        self._region, self._regionKind = None, kind
        from CACScoringLib.mrml.scene import CALCIUM_MAP_ROLE

        calcium_map = self.scan.volume_of_role(CALCIUM_MAP_ROLE)
        if calcium_map is None:
            return _("No calcium map belongs to this segmentation. Press Compute the map.")
        if not self.scan.selected:
            return _("Choose an artery first: keys 1 to 9, or a button.")
        kji = self._segmentIndices() if kind == PAINTED else self._visibleIndices()
        image, toImage = calcium_map
        values = values_at(image, kji, toImage)
        if kind == PAINTED and len(kji):
            isPainted = self._isPainted(kji, values)
            kji, values = kji[isPainted], values[isPainted]
        if not len(kji):
            return _("The segment has no painted region. Paint one with CAC Region first.")
        self._region = (kji, values)
        return ""

    def _segmentIndices(self) -> np.ndarray:
        voxels = self.scan.voxels_of(self.scan.selected)
        return np.zeros((0, 3), int) if voxels is None else voxels.kji

    def _isPainted(self, kji: np.ndarray, values: np.ndarray) -> np.ndarray:
        """Return a mask of the painted voxels: parts of a slice with voxels that belong to no lesion of CT or map."""
        threshold, floor = self._lesionLimits
        isRough = (self.scan.hu[tuple(kji.T)] < threshold) & ~(values >= floor)
        return in_parts_with(kji, isRough, self.scan.slice_axis)

    def _visibleIndices(self) -> np.ndarray:
        viewWidget = self._regionView()
        if viewWidget is None:
            return np.zeros((0, 3), int)
        toIndex = np.linalg.solve(self.scan.index_to_ras, self._views.viewToRas(viewWidget))
        kji = shown_voxels(self.scan.hu.shape, toIndex, *viewWidget.mrmlSliceNode().GetDimensions()[:2])
        exempt = {self.scan.selected, self.scan.existing_segment_of(Artery.UNASSIGNED)}
        return self.scan.outside_segments(kji, exempt)

    def _previewText(self, kji: np.ndarray, values: np.ndarray, floor: float) -> str:
        volume = float(np.prod(self.scan.spacing_mm))
        calcium = values[values >= floor]
        text = _("{taken:.1f} of {region:.1f} mm³ in {slices}; calcium adds {most:.0f} HU at most.")
        sizes = {"taken": calcium.size * volume, "region": values.size * volume, "most": np.nanmax(values, initial=0)}
        return text.format(slices=self._slicesText(kji), **sizes)

    def _slicesText(self, kji: np.ndarray) -> str:
        count = len(np.unique(kji[:, self.scan.slice_axis]))
        return _("1 slice") if count == 1 else _("{count} slices").format(count=count)
