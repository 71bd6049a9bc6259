"""Digitally reconstructed radiograph of the CT: a live preview and a 3-D view, and full quality in the background."""

# Slicer's naming.
# ruff: noqa: N802

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import qt
import slicer
from slicer import vtkMRMLScalarVolumeNode
from slicer.i18n import tr as _

from . import radiograph_section
from .job import BackgroundJob, JobError, Steps, inThread
from .parameters import DRR, CACScoringParameterNode, RadiographSource
from .scan_facts import problemOf
from .widgets import dataOf, fillBox, singleShot

if TYPE_CHECKING:
    import numpy as np
    import SimpleITK as sitk
    import vtk

    from ..drr.pictures import ReducedScan
    from ..mrml.radiograph_nodes import StandNodes
    from ..review.scene import SceneReview

DRAW_MILLISECONDS = 10
"""Delay of the preview after a change."""


class DrrSection(radiograph_section.PictureSection):
    """Widgets of the radiograph of the CT."""

    def __init__(self, ui) -> None:
        super().__init__(ui, DRR)
        self.addRows(ui.drrForm.layout(), 1, "angle_degrees", "tilt_degrees")
        section, place = ui.drrButton.layout(), 3
        self.addRows(self.addAdvanced(section, place), 0, *DRR.fields)
        tip = _("Make the radiograph at full size, in the background, as a new volume.")
        show = ui.drrLayoutButton = qt.QPushButton(_("Show with 3-D"))
        show.setToolTip(_("Show the radiograph beside a 3-D view of source, detector and patient."))
        show.clicked.connect(lambda *_args: self._showLayout())
        command = _("Make radiograph"), tip, self._make, _(radiograph_section.UNCHANGED)
        self.addCommand(section, place + 1, *command, extra_widgets=[show])
        self._preparing, self._drawing = BackgroundJob(), BackgroundJob()
        self._review: SceneReview | None = None
        self._stand: StandNodes | None = None
        self._scan: ReducedScan | None = None
        self._withTable: ReducedScan | None = None
        self._skin: vtk.vtkPolyData | None = None
        self._scanKey: tuple[Any, ...] | None = None
        self._drawnKey: tuple[Any, ...] | None = None
        fillBox(ui.drrViewBox, _views(), "PA")
        ui.drrViewBox.currentIndexChanged.connect(self._viewChosen)
        ui.drrButton.contentsCollapsed.connect(lambda *_args: self.update())
        self._drawTimer = singleShot(DRAW_MILLISECONDS, self._draw)

    # Calls from the panel

    def setState(self, state: CACScoringParameterNode | None) -> None:
        super().setState(state)
        if state is None:
            self._hide()

    def setReview(self, review: SceneReview | None) -> None:
        """Use a review's calcium map and heart, if it is a review of the chosen CT; None for no review."""
        self._review = review
        self.update()

    def closeScene(self) -> None:
        super().closeScene()
        self._hide()
        self._review = None
        self._forgetScan()

    def cancel(self) -> None:
        super().cancel()
        self._preparing.cancel()
        self._drawing.cancel()

    def _pageChosen(self) -> None:
        super()._pageChosen()
        self.update()

    def _forgetScan(self) -> None:
        self._preparing.cancel()
        self._drawing.cancel()
        self._scan = self._withTable = self._skin = self._scanKey = None

    def update(self) -> None:
        """Show the state."""
        state, ui = self._state, self.ui
        if state is None or not self.isInSight:
            self._hide()
            return
        settings = DRR.values(state)
        fillBox(ui.drrViewBox, _views(), settings.view() or "")
        volume = state.inputVolume
        problem = _("Choose a CT on the first page.") if volume is None else problemOf(volume)
        ui.drrVolumeLabel.setText(problem or _("From {name}, the CT of the first page.").format(name=volume.GetName()))
        self.job.update(not problem)
        if problem:
            self._forgetScan()
        if problem or ui.drrButton.collapsed:
            self._hide()
            return
        self._takeScan(volume)
        ui.drrCalciumBox.setEnabled(self._scan is not None and self._scan.calcium is not None)
        ui.drrOpacitySlider.setEnabled(ui.drrCalciumBox.enabled and state.drrCalcium)
        ui.drrHeartBox.setEnabled(self._scan is not None and self._scan.heart is not None)
        if self._scan is not None and self._pictureKey() != self._drawnKey and not self._drawTimer.active:
            self._drawTimer.start()
        self._updateOverlay()

    # The small picture

    def _takeScan(self, volume: vtkMRMLScalarVolumeNode) -> None:
        """Reduce the CT if it has changed, then remove its table."""
        calcium, heart = self._calciumNode(), self._heartSegment()
        place = tuple(volume.GetOrigin()), tuple(volume.GetSpacing()), volume.GetImageData().GetMTime()
        key = (volume.GetID(), place, calcium and calcium.GetID(), heart and (heart[0].GetID(), heart[1]))
        if key == self._scanKey:
            return
        self._forgetScan()
        self._scanKey = key
        self._preparing.start(self._prepare(volume), self._onPrepared)

    def _prepare(self, volume: vtkMRMLScalarVolumeNode) -> Steps[None]:
        from ..drr.pictures import reduced
        from ..drr.projection import body_only

        images = self._images(volume)
        yield 0
        self._withTable = with_table = yield from inThread(lambda: reduced(*images))
        yield from self._use(with_table)
        body = yield from inThread(lambda: body_only(with_table.image))
        yield from self._use(replace(with_table, image=body))

    def _use(self, scan: ReducedScan) -> Steps[None]:
        """Make a scan the source of the preview."""
        import SimpleITK as sitk

        from ..mrml.radiograph_nodes import skin_of

        coarse = sitk.BinShrink(scan.image, [min(2, n) for n in scan.image.GetSize()])
        self._skin = yield from inThread(lambda: skin_of(coarse))
        self._scan, self._drawnKey = scan, None
        self.update()
        yield 0

    def _onPrepared(self, _nothing: None, reason: str) -> None:
        if reason:
            text = _("The preview still shows the table: {error}").format(error=reason)
            self.job.say(reason if self._scan is None else text)
        self.update()

    def _pictureKey(self) -> tuple[Any, ...]:
        """Return the settings that the preview depends on."""
        state = self._state
        return DRR.values(state), self._opacity, state.drrHeart, id(self._scan)

    def _draw(self) -> None:
        """Begin to draw the preview; the next one follows the one that is being drawn."""
        if self._state is not None and self._scan is not None and self.isInSight and not self._drawing.isRunning:
            self._drawing.start(self._picture(self._pictureKey()), self._onDrawn)

    def _onDrawn(self, _nothing: None, reason: str) -> None:
        """Draw again if the settings have changed meanwhile."""
        if not reason and self._state is not None and self._pictureKey() != self._drawnKey:
            self._drawTimer.start()

    def _picture(self, key: tuple[Any, ...]) -> Steps[None]:
        """Draw a preview. key: settings from `_pictureKey`."""
        from ..core.errors import ProjectionError
        from ..drr.pictures import PREVIEW_PIXELS, preview, stand_of
        from ..mrml.radiograph_nodes import StandNodes

        settings, opacity, heart, _scan = key
        scan, with_table = self._scan, self._withTable

        def project() -> np.ndarray:
            projected = with_table if settings.table else scan
            return preview(projected, settings, PREVIEW_PIXELS, opacity, heart)

        try:
            stand = stand_of(settings.geometry(scan.isocentre_mm))
            picture = yield from inThread(project)
        except ProjectionError as error:
            self._drawnKey = key
            self.job.say(str(error))
            self.ui.drrPreviewLabel.setText(_("No preview"))
            self._removeStand()
            return
        self._drawnKey = key
        if self.ui.drrPreviewLabel.text:
            self.job.say("")  # clear an earlier error
        self.ui.drrPreviewLabel.setPixmap(radiograph_section.pixmapOf(picture, self.ui.drrPreviewLabel.minimumHeight))
        self._stand = self._stand or StandNodes(slicer.mrmlScene)
        self._stand.show(stand, picture, self._skin)

    def _hide(self) -> None:
        self._drawTimer.stop()
        self._drawing.cancel()
        self._removeStand()
        self._drawnKey = None

    def _removeStand(self) -> None:
        if self._stand is not None:
            self._stand.remove()

    # The radiograph

    def _make(self) -> Steps[str]:
        from ..drr.pictures import make_radiograph
        from ..mrml.radiograph_nodes import add_radiograph

        state, job = self._state, self.job
        settings, volume = DRR.values(state), state.inputVolume
        job.show(_("Preparing …"), 0.0)
        yield 0
        image, calcium, heart = self._images(volume)
        calcium, heart = calcium if state.drrCalcium else None, heart if state.drrHeart else None
        picture = yield from job.call(make_radiograph, settings, image, calcium, heart)
        if not slicer.mrmlScene.IsNodePresent(volume):
            raise JobError(_("The CT was closed meanwhile."))
        node = add_radiograph(slicer.mrmlScene, picture, volume, settings.title(), settings.view() or "other")
        self._showMade(node)
        return _("Made: {name}").format(name=node.GetName())

    def _showMade(self, node: vtkMRMLScalarVolumeNode) -> None:
        state = self._state
        if state is not None:
            state.radiographVolume = node
            if not (state.radiographPa or state.radiographLateral):
                state.radiographSource = RadiographSource.VOLUME  # the radiograph to score next
            self.showPicture(node, self._opacity)

    @property
    def _opacity(self) -> float:
        return self._state.drrOpacity if self._state.drrCalcium else 0.0

    def _showLayout(self) -> None:
        from ..mrml.radiograph_nodes import is_radiograph

        node = self._state.radiographVolume
        if is_radiograph(node):
            self.showPicture(node, self._opacity)
        else:
            radiograph_section.showLayout(self._state.inputVolume)

    def _updateOverlay(self) -> None:
        state = self._state
        if state.radiographVolume is not None:
            radiograph_section.setOpacity(state.radiographVolume, self._opacity)

    # The projected images

    def _images(self, volume: vtkMRMLScalarVolumeNode) -> tuple[sitk.Image, sitk.Image | None, sitk.Image | None]:
        """Return the CT, its calcium map and its heart mask. Raises CTError."""
        from ..mrml.scene import image_of_volume
        from ..mrml.segments import mask_image

        image, calcium, heart = image_of_volume(volume), self._calciumNode(), self._heartSegment()
        mask = None if heart is None else mask_image(*heart, image)
        return image, None if calcium is None else image_of_volume(calcium), mask

    def _calciumNode(self) -> vtkMRMLScalarVolumeNode | None:
        return self._review.nodes.calcium_map if self._isReviewed() else None

    def _heartSegment(self) -> tuple[Any, str] | None:
        """Return segmentation and segment of the heart: the result's, or else the one chosen on the first page."""
        from ..mrml.lesion_segments import HEART_ID

        state = self._state
        if self._isReviewed():
            return self._review.nodes.heart, HEART_ID
        return (state.inputHeart, state.inputHeartSegment) if state.inputHeart and state.inputHeartSegment else None

    def _isReviewed(self) -> bool:
        return self._review is not None and self._review.nodes.volume is self._state.inputVolume

    def _viewChosen(self, *_args: object) -> None:
        from ..drr.geometry import VIEWS

        view = dataOf(self.ui.drrViewBox)
        if self._state is None or not view:
            return
        state = self._state
        state.drrTiltDegrees = 0.0
        state.drrAngleDegrees, state.drrMirrored = VIEWS[view]


def _views() -> list[tuple[str, str]]:
    return [(_("PA"), "PA"), (_("Left lateral"), "lateral"), (_("AP"), "AP"), (_("Other angle"), "")]
