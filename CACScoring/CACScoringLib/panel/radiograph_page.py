"""Page of radiographs: parts made from the declared options of a form, and the layout that shows their pictures.

The layout has a radiograph view beside a 3-D view.
"""

# Slicer's naming.
# ruff: noqa: N802

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import qt
import slicer
from slicer.i18n import tr as _

from . import views
from .forms import Form
from .job import BackgroundJob, Steps
from .lifecycle import PanelSection

if TYPE_CHECKING:
    import numpy as np

_MARGIN = 1.02
_FROM_THE_SIDE_MM = (-1600.0, 1200.0, 700.0)
"""The patient's left, front and above, from where the beams of all standard views are visible."""


class FormPage(PanelSection):
    """Part of the page, made from the options that a form declares: its rows, a job in the background, its pictures.

    The names of its widgets begin with the form's prefix.
    """

    def __init__(self, ui, form: Form, button: str, work: Callable[[], Steps[str]]) -> None:
        """Prepare. button: end of the name of the button that starts and cancels the work."""
        self._ui = ui
        self._pending: tuple[object, float] | None = None
        """Picture and opacity to show once the page is in sight: a user may have gone on to a review."""
        label, bar, starter = (getattr(ui, f"{form.prefix}{part}") for part in ("StatusLabel", "Bar", button))
        self.job = BackgroundJob(label, bar, starter, work, _("Cancelled. The scene was not changed."), self.update)
        ui.pages.currentChanged.connect(lambda *_args: self._pageChosen())

    def update(self) -> None:
        """Show the state."""
        raise NotImplementedError

    def closeScene(self) -> None:
        self.cancel()
        self._pending = None

    @property
    def isInSight(self) -> bool:
        return self._ui.pages.currentWidget() is self._ui.radiographTab

    def showPicture(self, picture, opacity: float) -> None:
        """Show a picture in the layout, as soon as the page is in sight."""
        self._pending = picture, opacity
        self._pageChosen()

    def _pageChosen(self) -> None:
        if self._pending is not None and self.isInSight:
            (picture, opacity), self._pending = self._pending, None
            if slicer.mrmlScene.IsNodePresent(picture):
                showPicture(picture, opacity)


def showLayout(volume=None) -> None:
    """Change to the layout and fit the scene into its 3-D view.

    Does nothing without a main window, or if the layout already shows a picture, because a reader may have turned the
    view. volume: volume for the slice view while there is no radiograph.
    """
    manager, is_shown = slicer.app.layoutManager(), views.shownLayout() == views.RADIOGRAPH_LAYOUT_ID
    if manager is None or (
        is_shown and manager.sliceWidget(views.RADIOGRAPH).mrmlSliceCompositeNode().GetBackgroundVolumeID()
    ):
        return
    views.registerLayouts()
    views.changeLayout(views.RADIOGRAPH_LAYOUT_ID)
    if volume is not None:
        widget = manager.sliceWidget(views.RADIOGRAPH)
        widget.mrmlSliceCompositeNode().SetBackgroundVolumeID(volume.GetID())
        widget.sliceLogic().FitSliceToBackground()
    widget = views.shownThreeDWidget()
    if widget is not None:
        view = widget.threeDView()
        view.resetFocalPoint()
        views.lookFrom(view.cameraNode(), _FROM_THE_SIDE_MM)
        views.fitCamera(view)


def showPicture(picture, opacity: float = 0.0) -> None:
    """Show an entire radiograph, upright, in the layout's own view, with the pictures that it refers to over it.

    opacity: Opacity of the picture over it.
    """
    from ..mrml.radiograph_nodes import OUTLINE_ROLE, OVERLAY_ROLE, slice_axes

    manager = slicer.app.layoutManager()
    if manager is None:
        return
    showLayout()
    widget = manager.sliceWidget(views.RADIOGRAPH)
    composite = widget.mrmlSliceCompositeNode()
    composite.SetLinkedControl(False)
    composite.SetBackgroundVolumeID(picture.GetID())
    composite.SetForegroundVolumeID(picture.GetNodeReferenceID(OVERLAY_ROLE))
    composite.SetForegroundOpacity(opacity)
    composite.SetLabelVolumeID(picture.GetNodeReferenceID(OUTLINE_ROLE))
    composite.SetLabelOpacity(1.0)
    node = widget.mrmlSliceNode()
    node.SetUseLabelOutline(True)
    normal, right, centre = slice_axes(picture)
    node.SetSliceToRASByNTP(*normal, *right, *centre, 0)
    (columns, rows, _slices), spacing = picture.GetImageData().GetDimensions(), picture.GetSpacing()
    views.setFieldOfView(node, columns * spacing[0] * _MARGIN, rows * spacing[1] * _MARGIN)


def setOpacity(picture, opacity: float) -> None:
    """Set the opacity of the volume over a picture, if the radiograph view shows that picture."""
    for composite in slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode"):
        if composite.GetLayoutName() == views.RADIOGRAPH and composite.GetBackgroundVolumeID() == picture.GetID():
            composite.SetForegroundOpacity(opacity)


def pixmapOf(picture: np.ndarray, height: int):
    """Return a picture, uint8 [row, column, RGB], as a pixmap of a given height."""
    rows, columns, _colours = picture.shape
    pixmap = qt.QPixmap()
    # In the PPM format, raw pixels follow a line of text.
    pixmap.loadFromData(qt.QByteArray(b"P6 %d %d 255\n" % (columns, rows) + picture.tobytes()))
    return pixmap.scaledToHeight(height, qt.Qt.SmoothTransformation)
