"""A radiograph of the CT: a small picture and a 3-D view follow the sliders; in the background it is made whole."""

# Slicer's naming.
# ruff: noqa: N802

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import slicer
from slicer import vtkMRMLScalarVolumeNode
from slicer.i18n import tr as _

from ..lifecycle import Section
from ..parameters import CACScoringParameterNode, RadiographSource
from ..scan_facts import problemOf
from ..widgets import dataOf, fillBox, singleShot
from ..worker import Worker, showIn
from . import radiograph_views

if TYPE_CHECKING:
    import SimpleITK as sitk

    from ...drr.job import DrrSettings
    from ...drr.preview import ReducedScan
    from ...review.scene import SceneReview

MOVING_MILLISECONDS, RESTING_MILLISECONDS = 10, 250
"""After a change: how soon a fast picture follows, and how soon a finer one when nothing has changed any more."""


class DrrSection(Section):
    """The widgets of the radiograph of the CT.

    worker, preparer: run the making of a radiograph and the search for the body.
    """

    def __init__(self, ui, worker: Worker, preparer: Worker) -> None:
        from ...drr.preview import Pace
        from ...mrml.drr_nodes import StandNodes

        self._ui = ui
        self._worker, self._preparer = worker, preparer
        self._review: SceneReview | None = None
        self._stand = StandNodes(slicer.mrmlScene)
        self._pace = Pace()
        self._level = 0
        self._scan: ReducedScan | None = None
        self._coarse: ReducedScan | None = None
        self._withTable: ReducedScan | None = None
        self._scanOf: tuple | None = None
        self._drawn: tuple | None = None
        self._folder: Path | None = None
        self._bodyFolder: Path | None = None
        self._making: tuple[vtkMRMLScalarVolumeNode, DrrSettings] | None = None
        fillBox(ui.drrViewBox, _views(), "PA")
        ui.drrViewBox.currentIndexChanged.connect(self._viewChosen)
        ui.drrMakeButton.clicked.connect(self._makeOrCancel)
        ui.drrLayoutButton.clicked.connect(lambda *_args: self._showLayout())
        ui.drrButton.contentsCollapsed.connect(lambda *_args: self.update())
        ui.pages.currentChanged.connect(lambda *_args: self.update())
        ui.drrBar.setVisible(False)
        self._showProgress = showIn(ui.drrStatusLabel, ui.drrBar)
        self._movingTimer = singleShot(MOVING_MILLISECONDS, self._drawMoving)
        self._restingTimer = singleShot(RESTING_MILLISECONDS, self._drawResting)

    # What the panel tells

    def setState(self, state: CACScoringParameterNode | None) -> None:
        super().setState(state)
        if state is None:
            self._hide()

    def setReview(self, review: SceneReview | None) -> None:
        """review: of the result whose calcium map and heart are shown where it is of the CT chosen; None for none."""
        self._review = review
        self.update()

    def closeScene(self) -> None:
        self.cancel()
        self._hide()
        self._review = self._scan = self._coarse = self._withTable = self._scanOf = None

    def cancel(self) -> None:
        for worker in (self._worker, self._preparer):
            worker.cancel()
        self._making = None
        self._removeFolder()
        self._removeBodyFolder()

    def update(self) -> None:
        """Show the state."""
        state, ui = self._state, self._ui
        if state is None:
            return
        settings = settingsOf(state)
        fillBox(ui.drrViewBox, _views(), settings.view() or "")
        ui.drrKvpBox.setEnabled(state.drrSpectrum)
        volume, running = state.inputVolume, self._worker.isRunning
        problem = _("Choose a CT on the first page.") if volume is None else problemOf(volume)
        ui.drrVolumeLabel.setText(problem or _("From {name}, the CT of the first page.").format(name=volume.GetName()))
        ui.drrMakeButton.setText(_("Cancel") if running else _("Make radiograph"))
        ui.drrMakeButton.setEnabled(running or not problem)
        ui.drrBar.setVisible(running)
        if problem:
            self._scan = self._coarse = self._withTable = self._scanOf = None
            self._preparer.cancel()
            self._removeBodyFolder()
        if problem or not self._isInSight() or ui.drrButton.collapsed:
            self._hide()
            return
        self._takeScan(volume)
        ui.drrCalciumBox.setEnabled(self._scan is not None and self._scan.calcium is not None)
        ui.drrOpacitySlider.setEnabled(ui.drrCalciumBox.enabled and state.drrCalcium)
        ui.drrHeartBox.setEnabled(self._scan is not None and self._scan.heart is not None)
        if self._wanted() != self._drawn and not self._movingTimer.active:
            self._movingTimer.start()
        self._updateOverlay()

    # The small picture

    def _takeScan(self, volume: vtkMRMLScalarVolumeNode) -> None:
        """Reduce the CT, where it is another than before; its table is taken out in the background."""
        from ...core.ct import CTError
        from ...drr.preview import reduced

        calcium, heart = self._calciumNode(), self._heartSegment()
        place = tuple(volume.GetOrigin()), tuple(volume.GetSpacing()), volume.GetImageData().GetMTime()
        key = (volume.GetID(), place, calcium and calcium.GetID(), heart and (heart[0].GetID(), heart[1]))
        if key == self._scanOf:
            return
        self._scanOf = key
        self._preparer.cancel()
        self._removeBodyFolder()
        try:
            images = self._images(volume)
            self._setScan(reduced(*images))
        except CTError as error:
            self._scan = self._coarse = self._withTable = None
            self._say(str(error))
            return
        self._withTable = self._scan
        self._findBody()

    def _setScan(self, scan: ReducedScan) -> None:
        self._scan, self._coarse, self._drawn = scan, scan.coarser(2), None

    def _findBody(self) -> None:
        from ...drr import job as drr_job

        self._bodyFolder = Path(tempfile.mkdtemp(prefix="cac-radiograph-"))
        drr_job.write_job(self._bodyFolder, settingsOf(self._state), self._scan.image)
        self._preparer.start(["body", str(self._bodyFolder)], self._bodyFound, module="panel.project_ct")

    def _bodyFound(self, reason: str) -> None:
        from dataclasses import replace

        from ...core.ct import CTError
        from ...drr.job import BODY
        from ...io.image_files import read_image

        if not reason:
            try:
                self._setScan(replace(self._scan, image=read_image(self._bodyFolder / BODY)))
            except CTError as error:
                reason = str(error)
        if reason:
            self._say(_("The preview still shows the table: {error}").format(error=reason))
        self._removeBodyFolder()
        self.update()

    def _wanted(self) -> tuple:
        """What the picture depends on."""
        state = self._state
        opacity = state.drrOpacity if state.drrCalcium else 0.0
        return settingsOf(state), opacity, state.drrHeart, id(self._scan)

    def _drawMoving(self) -> None:
        if self._draw(self._pace.moving):
            self._restingTimer.start()

    def _drawResting(self) -> None:
        if self._pace.resting > self._level:
            self._draw(self._pace.resting)

    def _draw(self, level: int) -> bool:
        """Draw the picture at a level of `drr.preview.LEVELS`. Whether there is one."""
        from ...drr.geometry import ProjectionError
        from ...drr.preview import LEVELS, fast_backend, preview, stand_of

        if self._state is None or self._scan is None or not self._isInSight():
            return False
        settings, opacity, heart, _scan = self._drawn = self._wanted()
        self._level = level
        factor, pixels = LEVELS[level]
        scan = self._scan if factor == 1 else self._coarse
        if settings.table:
            scan = self._withTable.coarser(factor)
        try:
            picture = self._pace.timed(level, lambda: preview(scan, settings, pixels, opacity, heart, fast_backend()))
            stand = stand_of(settings.geometry(scan.isocentre_mm))
        except ProjectionError as error:
            self._say(str(error))
            self._ui.drrPreviewLabel.setText(_("No preview"))
            self._stand.remove()
            return False
        if self._ui.drrPreviewLabel.text:
            self._say("")  # an error before this
        self._ui.drrPreviewLabel.setPixmap(radiograph_views.pixmapOf(picture, self._ui.drrPreviewLabel.minimumHeight))
        self._stand.show(stand, picture, self._coarse.image)
        return True

    def _hide(self) -> None:
        self._movingTimer.stop()
        self._restingTimer.stop()
        self._stand.remove()
        self._drawn = None

    # The radiograph

    def _makeOrCancel(self, *_args: object) -> None:
        if self._worker.isRunning:
            self._worker.cancel()
            self._making = None
            self._removeFolder()
            self._say(_("Cancelled. The scene was not changed."))
        else:
            self._make()
        self.update()

    def _make(self) -> None:
        from ...core.ct import CTError
        from ...drr import job as drr_job

        state = self._state
        settings, volume = settingsOf(state), state.inputVolume
        self._folder = Path(tempfile.mkdtemp(prefix="cac-radiograph-"))
        self._showProgress(_("Preparing …"), 0.0)
        try:
            image, calcium, heart = self._images(volume)
            drr_job.write_job(
                self._folder, settings, image, calcium if state.drrCalcium else None, heart if state.drrHeart else None
            )
        except (CTError, OSError, RuntimeError) as error:
            self._removeFolder()
            self._say(str(error))
            return
        self._making = volume, settings
        arguments = ["radiograph", str(self._folder)]
        self._worker.start(arguments, self._made, self._showProgress, module="panel.project_ct")

    def _made(self, reason: str) -> None:
        from ...core.ct import CTError
        from ...drr import job as drr_job
        from ...mrml.drr_nodes import add_radiograph

        (volume, settings), self._making = self._making, None
        try:
            if reason:
                self._say(reason)
            elif not slicer.mrmlScene.IsNodePresent(volume):
                self._say(_("The CT was closed meanwhile."))
            else:
                made = drr_job.read_radiograph_of(self._folder)
                node = add_radiograph(slicer.mrmlScene, made, volume, settings.title(), settings.view() or "other")
                self._say(_("Made: {name}").format(name=node.GetName()))
                if self._state is not None:
                    self._state.radiographVolume = node
                    if not (self._state.radiographFile or self._state.radiographLateral):
                        self._state.radiographSource = RadiographSource.VOLUME  # what one would score next
                    self._show(node)
        except CTError as error:
            self._say(str(error))
        finally:
            self._removeFolder()
            self.update()

    def _show(self, node: vtkMRMLScalarVolumeNode) -> None:
        from ...mrml.drr_nodes import CALCIUM_ROLE, HEART_ROLE

        state = self._state
        over, outline = node.GetNodeReference(CALCIUM_ROLE), node.GetNodeReference(HEART_ROLE)
        radiograph_views.showPicture(node, over, outline, state.drrOpacity if state.drrCalcium else 0.0)

    def _showLayout(self) -> None:
        from ...mrml.drr_nodes import is_radiograph

        node = self._state.radiographVolume
        if is_radiograph(node):
            self._show(node)
        else:
            radiograph_views.showLayout(self._state.inputVolume)

    def _updateOverlay(self) -> None:
        state = self._state
        if state.radiographVolume is not None:
            radiograph_views.setOpacity(state.radiographVolume, state.drrOpacity if state.drrCalcium else 0.0)

    # What is projected

    def _images(self, volume: vtkMRMLScalarVolumeNode) -> tuple[sitk.Image, sitk.Image | None, sitk.Image | None]:
        """The CT, its calcium map and its heart. Raises CTErrors."""
        import SimpleITK as sitk

        from ...mrml.scene import image_of_volume
        from ...mrml.segments import segment_mask

        image = image_of_volume(volume)
        calcium, heart = self._calciumNode(), self._heartSegment()
        mask = None
        if heart is not None:
            mask = sitk.GetImageFromArray(segment_mask(*heart, image).astype("uint8"))
            mask.CopyInformation(image)
        return image, None if calcium is None else image_of_volume(calcium), mask

    def _calciumNode(self) -> vtkMRMLScalarVolumeNode | None:
        return self._review.nodes.calcium_map if self._isReviewed() else None

    def _heartSegment(self) -> tuple | None:
        """Segmentation and segment of the heart: the result's, else the one chosen on the first page."""
        from ...mrml.lesion_segments import HEART_ID

        state = self._state
        if self._isReviewed():
            return self._review.nodes.heart, HEART_ID
        return (state.inputHeart, state.inputHeartSegment) if state.inputHeart and state.inputHeartSegment else None

    def _isReviewed(self) -> bool:
        return self._review is not None and self._review.nodes.volume is self._state.inputVolume

    # Small things

    def _isInSight(self) -> bool:
        return self._ui.pages.currentWidget() is self._ui.radiographTab

    def _viewChosen(self, *_args: object) -> None:
        from ...drr.job import PRESETS

        view = dataOf(self._ui.drrViewBox)
        if self._state is None or not view:
            return
        state = self._state
        state.drrTilt = 0.0
        state.drrAngle, state.drrMirrored = PRESETS[view]

    def _removeFolder(self) -> None:
        folder, self._folder = self._folder, None
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)

    def _removeBodyFolder(self) -> None:
        folder, self._bodyFolder = self._bodyFolder, None
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)

    def _say(self, text: str) -> None:
        self._ui.drrStatusLabel.setText(text)


def settingsOf(state: CACScoringParameterNode) -> DrrSettings:
    """How the panel says that a radiograph is to be made."""
    from ...drr.job import DrrSettings

    return DrrSettings(
        state.drrAngle,
        state.drrTilt,
        state.drrMirrored,
        state.drrSourceDetector,
        state.drrSourceIsocentre,
        state.drrDetector,
        state.drrPixels,
        state.drrKvp if state.drrSpectrum else None,
        state.drrLinear,
        state.drrScatter,
        state.drrPhotons or None,
        state.drrTable,
    )


def _views() -> list[tuple[str, str]]:
    return [(_("PA"), "PA"), (_("Left lateral"), "lateral"), (_("AP"), "AP"), (_("Other angle"), "")]
