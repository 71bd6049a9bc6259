"""CAC Region: a brush for rough lesion regions, free of any threshold."""

# Slicer's naming.
# ruff: noqa: N802, N803, N806

from __future__ import annotations

import vtk
from slicer.i18n import tr as _

from CACScoringLib.panel.effects.base import LesionEffect, Parameter, helpOf, siteKeys
from CACScoringLib.review.picking import brush_stroke

_DIAMETER_MM = 10.0
_STEP = 1.2


class SegmentEditorEffect(LesionEffect):
    """Paints with a round brush of a fixed size in millimetres, a disc or a sphere.

    Slicer's own scripted paint effect is not used: it passes no keys, shares its brush size with Paint, and resets it
    with every volume.
    """

    def __init__(self, scriptedEffect) -> None:
        scriptedEffect.requireSegments = False
        super().__init__(scriptedEffect, "CAC Region", __file__)
        self._mouse = None
        self._stroke = None
        self._last = None

    def helpText(self) -> str:
        actions = {
            _("Left-button drag"): _("paint; what is painted is taken from any other artery."),
            **siteKeys(),
            _("Shift + mouse wheel or +/- keys"): _("larger or smaller brush."),
        }
        return helpOf(
            _("Paint rough regions around lesions, each for its artery, whatever the HU"),
            actions,
            _("Erase with the Erase effect. CAC Decompose finds the calcium inside what is painted."),
        )

    def parameters(self) -> list[Parameter]:
        size = _("This is the diameter of the brush (default 10 mm).")
        shape = _("A disc paints the slice shown; a sphere paints its neighbours too.")
        return [
            Parameter("DiameterMm", _("Diameter:"), size, _DIAMETER_MM, (0.5, 100), _(" mm"), 1),
            Parameter("Sphere", _("Sphere brush"), shape, 0),
        ]

    def updateGUIFromMRML(self) -> None:
        super().updateGUIFromMRML()
        self._showBrush()

    def updateMRMLFromGUI(self, _value=None) -> None:
        super().updateMRMLFromGUI()
        self._showBrush()

    # Lifecycle

    def activate(self) -> None:
        self.scan.update()
        super().activate()

    def deactivate(self) -> None:
        self._mouse = None
        self.forget()
        super().deactivate()

    # Views

    def onViewEvent(self, interactor, eventId, viewWidget) -> bool:
        events = vtk.vtkCommand
        if eventId == events.KeyPressEvent:
            key = self._views.pressedKey(interactor)
            factor = {"plus": _STEP, "equal": _STEP, "add": _STEP, "minus": 1 / _STEP, "subtract": 1 / _STEP}.get(key)
            return self._scaleBrush(factor) if factor else self._arteries.takeKey(interactor)
        if eventId in (events.MouseWheelForwardEvent, events.MouseWheelBackwardEvent):
            forward = eventId == events.MouseWheelForwardEvent
            return bool(interactor.GetShiftKey()) and self._scaleBrush(_STEP if forward else 1 / _STEP)
        if eventId == events.MouseMoveEvent:
            self._mouse = (viewWidget, interactor.GetEventPosition())
            self._showBrush()
            return self._stroke is not None and self._moveStroke()
        if eventId == events.LeftButtonPressEvent:
            self._mouse = (viewWidget, interactor.GetEventPosition())
            return not self._views.hasModifier(interactor) and self._beginStroke()
        if eventId == events.LeftButtonReleaseEvent and self._stroke is not None:
            self._mouse = (viewWidget, interactor.GetEventPosition())
            self._moveStroke()
            voxels = self._stroke["voxels"]
            self.forget()
            if voxels is not None:
                self.paint(voxels)
            return True
        if eventId == events.LeaveEvent and self._stroke is None:
            self._mouse = None
            self._circleOverlay.hide()
        return False

    def onViewMoved(self, viewWidget) -> None:
        self._showBrush()

    def _scaleBrush(self, factor: float) -> bool:
        box = self.boxes["DiameterMm"]
        box.setValue(box.value * factor)
        return True

    def _beginStroke(self) -> bool:
        if not self.scan.update():
            return False
        if not self.scan.selected:
            self._say(_("Choose an artery first: keys 1 to 9, or a button."))
            return True
        confirmed = self.scriptedEffect.confirmCurrentSegmentVisible()
        # After a dialog, the button's release is lost.
        if confirmed == self.scriptedEffect.ConfirmedWithoutDialog:
            viewWidget = self._mouse[0]
            normal = None if self._isBall() else tuple(self._views.viewToRas(viewWidget)[:3, 2])
            self._stroke = {"view": viewWidget, "normal": normal, "voxels": None}
            self._last = self._views.pixelRas(*self._mouse)
            self._moveStroke()
        return True

    def _moveStroke(self) -> bool:
        if self._mouse is None or self._mouse[0] != self._stroke["view"]:
            return False
        ras = self._views.pixelRas(*self._mouse)
        covered = self.brushAt(self._last, ras, self._stroke["normal"])
        self._last = ras
        if covered is not None:
            before = self._stroke["voxels"]
            self._stroke["voxels"] = covered if before is None else before.united(covered)
            self._voxelOverlay.show(self._stroke["voxels"], self.scan.index_to_ras, self._colour())
        return True

    def forget(self) -> None:
        if self.scan is None:
            return
        self._stroke = self._last = None
        self._voxelOverlay.hide()
        self._circleOverlay.hide()

    def _showBrush(self) -> None:
        if self._mouse is None:
            return
        view = None if self._isBall() else self._mouse[0]
        radius = self.scriptedEffect.doubleParameter("DiameterMm") / 2
        self._circleOverlay.show(self._views.pixelRas(*self._mouse), radius, self._colour(), view)

    def _isBall(self) -> bool:
        return self.scriptedEffect.integerParameter("Sphere") != 0

    # Actions of the reader; positions are RAS

    def brushAt(self, startRas, endRas, normal=None):
        """Return the voxels (`picking.Voxels`) that the brush covers between two positions; None without any.

        normal: normal of the disc's slice; None for a sphere.
        """
        if not self.scan.update():
            return None
        radius = self.scriptedEffect.doubleParameter("DiameterMm") / 2
        return brush_stroke(self.scan.hu.shape, self.scan.index_to_ras, startRas, endRas, radius, normal)

    def paint(self, voxels) -> int:
        """Add voxels to the selected segment. Returns the number that changed."""
        changed = self.scan.change(self.scan.selected, voxels)
        name = self.scan.name_of(self.scan.selected)
        text = _("Painted for {artery}.") if changed else _("It belongs to {artery} already, or is masked.")
        self._say(text.format(artery=name))
        return changed

    def chooseArtery(self, artery) -> None:
        super().chooseArtery(artery)
        self._showBrush()

    def _colour(self) -> tuple[float, float, float]:
        return self.scan.colour_of(self.scan.selected)
