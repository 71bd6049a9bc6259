"""A radiograph of the CT: a small picture and a 3-D view follow the sliders; in the background it is made whole."""

# Slicer's naming.
# ruff: noqa: N802

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import slicer
from slicer import vtkMRMLScalarVolumeNode
from slicer.i18n import tr as _

from ..lifecycle import Section
from ..parameters import CACScoringParameterNode, RadiographSource
from ..scan_facts import problemOf
from ..threads import StepRunner, inThread
from ..widgets import dataOf, fillBox, singleShot
from ..worker import Task, Worker
from . import radiograph_views

if TYPE_CHECKING:
    import numpy as np
    import SimpleITK as sitk
    import vtk

    from ...drr.job import DrrSettings, ReducedScan
    from ...mrml.drr_nodes import StandNodes
    from ...review.scene import SceneReview

MOVING_MILLISECONDS, RESTING_MILLISECONDS = 10, 250
"""After a change: how soon a fast picture follows, and how soon a finer one when nothing has changed any more."""


class DrrSection(Section):
    """The widgets of the radiograph of the CT.

    worker, preparer: run the making of a radiograph and the search for the body.
    """

    def __init__(self, ui, worker: Worker, preparer: Worker) -> None:
        self._ui = ui
        self._preparer = preparer
        cancelled = _("Cancelled. The scene was not changed.")
        bar = ui.drrBar
        self._task = Task(worker, ui.drrMakeButton, ui.drrStatusLabel, bar, _("Make radiograph"), cancelled)
        self._task.asked.connect(lambda: self._beginning.start(self._make(), self.update))
        self._task.changed.connect(self.update)
        self._review: SceneReview | None = None
        self._stand: StandNodes | None = None
        self._scan: ReducedScan | None = None
        self._coarse: ReducedScan | None = None
        self._withTable: ReducedScan | None = None
        self._skin: vtk.vtkPolyData | None = None
        self._scanOf: tuple | None = None
        self._drawn: tuple | None = None
        fillBox(ui.drrViewBox, _views(), "PA")
        ui.drrViewBox.currentIndexChanged.connect(self._viewChosen)
        ui.drrLayoutButton.clicked.connect(lambda *_args: self._showLayout())
        ui.drrButton.contentsCollapsed.connect(lambda *_args: self.update())
        ui.pages.currentChanged.connect(lambda *_args: self.update())
        self._reducing, self._drawing, self._beginning = StepRunner(), StepRunner(), StepRunner()
        self._moving = False
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
        self._review = None
        self._forgetScan()

    def cancel(self) -> None:
        for runner in (self._reducing, self._drawing, self._beginning):
            runner.stop()
        self._task.worker.cancel()
        self._preparer.cancel()

    def _forgetScan(self) -> None:
        self._reducing.stop()
        self._drawing.stop()
        self._scan = self._coarse = self._withTable = self._skin = self._scanOf = None
        self._preparer.cancel()

    def update(self) -> None:
        """Show the state."""
        state, ui = self._state, self._ui
        if state is None or not self._isInSight():
            self._hide()
            return
        settings = settingsOf(state)
        fillBox(ui.drrViewBox, _views(), settings.view() or "")
        ui.drrKvpBox.setEnabled(state.drrSpectrum)
        volume = state.inputVolume
        problem = _("Choose a CT on the first page.") if volume is None else problemOf(volume)
        ui.drrVolumeLabel.setText(problem or _("From {name}, the CT of the first page.").format(name=volume.GetName()))
        self._task.update(not problem and not self._beginning.isRunning)
        if problem:
            self._forgetScan()
        if problem or ui.drrButton.collapsed:
            self._hide()
            return
        self._takeScan(volume)
        ui.drrCalciumBox.setEnabled(self._scan is not None and self._scan.calcium is not None)
        ui.drrOpacitySlider.setEnabled(ui.drrCalciumBox.enabled and state.drrCalcium)
        ui.drrHeartBox.setEnabled(self._scan is not None and self._scan.heart is not None)
        if self._scan is not None and self._wanted() != self._drawn and not self._movingTimer.active:
            self._movingTimer.start()
        self._updateOverlay()

    # The small picture

    def _takeScan(self, volume: vtkMRMLScalarVolumeNode) -> None:
        """Reduce the CT, where it is another than before; its table is taken out in the background."""
        calcium, heart = self._calciumNode(), self._heartSegment()
        place = tuple(volume.GetOrigin()), tuple(volume.GetSpacing()), volume.GetImageData().GetMTime()
        key = (volume.GetID(), place, calcium and calcium.GetID(), heart and (heart[0].GetID(), heart[1]))
        if key == self._scanOf:
            return
        self._forgetScan()
        self._scanOf = key
        self._reducing.start(self._reduced(volume), self._searchBody)

    def _reduced(self, volume: vtkMRMLScalarVolumeNode) -> Iterator[int]:
        """Steps that reduce the CT."""
        from ...core.ct import CTError
        from ...drr.job import reduced

        try:
            images = self._images(volume)
        except CTError as error:
            self._task.say(str(error))
            return
        yield 0
        self._withTable = yield from inThread(lambda: reduced(*images))
        yield from self._shown(self._withTable)

    def _searchBody(self) -> None:
        from ...drr import job

        self.update()
        if self._withTable is not None:
            folder = self._preparer.newFolder()
            job.write_job(folder, settingsOf(self._state), self._withTable.image)
            found = lambda reason: self._bodyFound(reason, folder)  # noqa: E731
            self._preparer.start(["find_body", str(folder)], found, module="panel.background")

    def _shown(self, scan: ReducedScan) -> Iterator[int]:
        """Steps that make a scan the one that is shown."""
        from ...mrml.drr_nodes import skin_of

        coarse = yield from inThread(lambda: scan.coarser(2))
        skin = yield from inThread(lambda: skin_of(coarse.image))
        self._scan, self._coarse, self._skin, self._drawn = scan, coarse, skin, None

    def _bodyFound(self, reason: str, folder: Path) -> None:
        from dataclasses import replace

        from ...core.ct import CTError
        from ...drr.job import BODY
        from ...io.image_files import read_image

        if not reason:
            try:
                freed = replace(self._scan, image=read_image(folder / BODY))
                self._reducing.start(self._shown(freed), self.update)
            except CTError as error:
                reason = str(error)
        if reason:
            self._task.say(_("The preview still shows the table: {error}").format(error=reason))
            self.update()

    def _wanted(self) -> tuple:
        """What the picture depends on."""
        state = self._state
        opacity = state.drrOpacity if state.drrCalcium else 0.0
        return settingsOf(state), opacity, state.drrHeart, id(self._scan)

    def _drawMoving(self) -> None:
        from ...drr.job import MOVING

        if not (self._drawing.isRunning and self._moving):  # else the next picture follows this one
            self._draw(*MOVING, moving=True)

    def _drawResting(self) -> None:
        from ...drr.job import RESTING

        self._draw(*RESTING, moving=False)

    def _draw(self, factor: int, pixels: int, moving: bool) -> None:
        """Begin to draw the picture, as `drr.job.MOVING` says. moving: whether a finer one is to follow."""
        if self._state is not None and self._scan is not None and self._isInSight():
            self._moving = moving
            self._drawing.start(self._picture(self._wanted(), factor, pixels), self._drawnOnce)

    def _drawnOnce(self) -> None:
        """Go on to the picture of what has changed meanwhile, or to a finer one."""
        if self._state is None or not self._isInSight():
            return
        if self._wanted() != self._drawn:
            self._movingTimer.start()
        elif self._moving:
            self._restingTimer.start()

    def _picture(self, wanted: tuple, factor: int, pixels: int) -> Iterator[int]:
        """Steps that draw a picture. wanted: what it depends on."""
        from ...drr.geometry import ProjectionError
        from ...drr.job import fast_backend, preview, stand_of
        from ...mrml.drr_nodes import StandNodes

        settings, opacity, heart, _scan = wanted
        scan, unfreed = self._scan if factor == 1 else self._coarse, self._withTable

        def drawn() -> np.ndarray:
            projected = unfreed.coarser(factor) if settings.table else scan
            return preview(projected, settings, pixels, opacity, heart, fast_backend())

        try:
            stand = stand_of(settings.geometry(scan.isocentre_mm))
            picture = yield from inThread(drawn)
        except ProjectionError as error:
            self._drawn, self._moving = wanted, False
            self._task.say(str(error))
            self._ui.drrPreviewLabel.setText(_("No preview"))
            self._removeStand()
            return
        self._drawn = wanted
        if self._ui.drrPreviewLabel.text:
            self._task.say("")  # an error before this
        self._ui.drrPreviewLabel.setPixmap(radiograph_views.pixmapOf(picture, self._ui.drrPreviewLabel.minimumHeight))
        self._stand = self._stand or StandNodes(slicer.mrmlScene)
        self._stand.show(stand, picture, self._skin)

    def _hide(self) -> None:
        self._movingTimer.stop()
        self._restingTimer.stop()
        self._drawing.stop()
        self._removeStand()
        self._drawn = None

    def _removeStand(self) -> None:
        if self._stand is not None:
            self._stand.remove()

    # The radiograph

    def _make(self) -> Iterator[int]:
        """Steps that begin to make a radiograph."""
        from ...core.ct import CTError
        from ...drr import job

        state, task = self._state, self._task
        settings, volume, folder = settingsOf(state), state.inputVolume, task.worker.newFolder()
        task.show(_("Preparing …"), 0.0)
        try:
            image, calcium, heart = self._images(volume)
            calcium, heart = calcium if state.drrCalcium else None, heart if state.drrHeart else None
            yield from inThread(lambda: job.write_job(folder, settings, image, calcium, heart))
        except (CTError, OSError, RuntimeError) as error:
            task.cancel()
            task.say(str(error))
            return
        made = lambda reason: self._made(reason, folder, volume, settings)  # noqa: E731
        task.start(["make_radiograph", str(folder)], made, module="panel.background")

    def _made(self, reason: str, folder: Path, volume: vtkMRMLScalarVolumeNode, settings: DrrSettings) -> None:
        from ...core.ct import CTError
        from ...drr import job
        from ...mrml.drr_nodes import add_radiograph

        if not reason and not slicer.mrmlScene.IsNodePresent(volume):
            reason = _("The CT was closed meanwhile.")
        try:
            if not reason:
                picture = job.read_radiograph_of(folder)
                node = add_radiograph(slicer.mrmlScene, picture, volume, settings.title(), settings.view() or "other")
                self._showMade(node)
        except CTError as error:
            reason = str(error)
        self._task.say(reason or _("Made: {name}").format(name=node.GetName()))
        self.update()

    def _showMade(self, node: vtkMRMLScalarVolumeNode) -> None:
        state = self._state
        if state is not None:
            state.radiographVolume = node
            if not (state.radiographFile or state.radiographLateral):
                state.radiographSource = RadiographSource.VOLUME  # what one would score next
            self._show(node)

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
        from ...drr.geometry import VIEWS

        view = dataOf(self._ui.drrViewBox)
        if self._state is None or not view:
            return
        state = self._state
        state.drrTilt = 0.0
        state.drrAngle, state.drrMirrored = VIEWS[view]


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
