"""CAC Lesion: assigns the lesion under a click in a slice view to an artery."""

# Slicer's naming.
# ruff: noqa: N802, N803

from __future__ import annotations

import numpy as np
import vtk
from slicer.i18n import tr as _

from CACScoringLib.core.labels import NOT_CORONARY
from CACScoringLib.panel.effects import clicks
from CACScoringLib.panel.effects.base import LesionEffect, Parameter, helpOf, siteKeys
from CACScoringLib.review.picking import PickLimits, pick_lesion

_DRAG_PIXELS = 4


class SegmentEditorEffect(LesionEffect):
    """Grows the lesion under the cursor, at or above a threshold and within the heart, and adds it to a segment."""

    def __init__(self, scriptedEffect) -> None:
        scriptedEffect.requireSegments = False
        super().__init__(scriptedEffect, "CAC Lesion", __file__)
        self._pick = None
        self._mouse = None
        self._press = None
        self._offer = None  # `clicks.Offer` of the last click

    def helpText(self) -> str:
        actions = {
            _("Move the mouse"): _(
                "the lesion under the cursor lights up: what touches it in 3-D at or above the threshold."
            ),
            _("Left click"): _(
                "add it to the selected artery, as far as it belongs to one site. A second click adds what touches it "
                "at other sites too."
            ),
            _("Left-button drag"): _("add only what lies within the sphere drawn around the click."),
            **siteKeys(),
            _("Key X"): _('reject the lesion under the cursor: it moves to "not-coronary" and is not scored.'),
        }
        return helpOf(
            _("Give calcified lesions to arteries, in slice views"),
            actions,
            _(
                "A lesion that grows too large or too far, into aorta, valve or bone, lights up in red and is not "
                "added."
            ),
        )

    def parameters(self) -> list[Parameter]:
        limits = PickLimits()
        threshold = _("Voxels of a lesion are at or above this value.")
        volume = _("A larger lesion is not added, because it has leaked. The default is {default:g} mm³.")
        volume = volume.format(default=limits.most_volume_mm3)
        depth = _("A lesion that extends further is not added, because it has leaked. The default is {default:g} mm.")
        depth = depth.format(default=limits.most_depth_mm)
        outline = _("When off, lesions may lie anywhere in the slices that show the heart.")
        return [
            Parameter("ThresholdHU", _("Threshold:"), threshold, 130.0, (-100, 3000), _(" HU")),
            Parameter("MostVolumeMm3", _("Maximum volume:"), volume, limits.most_volume_mm3, (1, 100000), _(" mm³")),
            Parameter("MostDepthMm", _("Maximum extent:"), depth, limits.most_depth_mm, (1, 500), _(" mm")),
            Parameter("InsideHeart", _("Only inside the heart outline"), outline, 1),
        ]

    def setMRMLDefaults(self) -> None:
        super().setMRMLDefaults()
        self.scriptedEffect.setParameterDefault("ThresholdOf", "none")

    def updateMRMLFromGUI(self, _value=None) -> None:
        super().updateMRMLFromGUI()
        self.forget()

    # Lifecycle

    def activate(self) -> None:
        super().activate()
        if self.scan.update():
            # Computed ahead, so that the first move of the mouse need not wait for it.
            self.scan.heart(self.scriptedEffect.integerParameter("InsideHeart") != 0)
            self._useValueOfResult("ThresholdHU", "ThresholdOf", self.scan.threshold_hu())

    def deactivate(self) -> None:
        self._press = self._mouse = None
        self.forget()
        super().deactivate()

    # Views

    def onViewEvent(self, interactor, eventId, viewWidget) -> bool:
        if eventId == vtk.vtkCommand.MouseMoveEvent:
            return self._onMove(interactor, viewWidget)
        if eventId == vtk.vtkCommand.LeftButtonPressEvent:
            return not self._views.hasModifier(interactor) and self._onPress(interactor, viewWidget)
        if eventId == vtk.vtkCommand.LeftButtonReleaseEvent:
            return self._onRelease()
        if eventId == vtk.vtkCommand.KeyPressEvent:
            if self._views.pressedKey(interactor) == "x" and self._mouse is not None:
                self.rejectAt(self._views.pixelRas(*self._mouse))
                return True
            return self._arteries.takeKey(interactor)
        if eventId == vtk.vtkCommand.LeaveEvent and self._press is None:
            self._mouse = None
            self.forget()
        return False

    def onViewMoved(self, viewWidget) -> None:
        # The slice under the mouse has changed.
        if self._press is None and self._mouse is not None and self._mouse[0] == viewWidget:
            self._hover(self._views.pixelRas(*self._mouse))

    def _onMove(self, interactor, viewWidget) -> bool:
        self._mouse = (viewWidget, interactor.GetEventPosition())
        ras = self._views.pixelRas(*self._mouse)
        if self._press is None:
            self._hover(ras)
            return False
        moved = np.subtract(interactor.GetEventPosition(), self._press["at"])
        if not self._press["dragged"] and np.abs(moved).max() < _DRAG_PIXELS:
            return True
        self._press["dragged"] = True
        radius = max(float(np.linalg.norm(ras - self._press["ras"])), 0.1)
        self._show(self.pickAt(self._press["ras"], radius))
        self._circleOverlay.show(self._press["ras"], radius, self._views.CANDIDATE_COLOUR)
        return True

    def _onPress(self, interactor, viewWidget) -> bool:
        ras = self._views.pixelRas(viewWidget, interactor.GetEventPosition())
        pick = self.pickAt(ras)
        if pick is None:
            self._say(self._emptyReason(ras))
            return False
        confirmed = self.scriptedEffect.confirmCurrentSegmentVisible()
        # After a dialog, the button's release is lost and the reader has not seen the segment yet.
        if confirmed == self.scriptedEffect.ConfirmedWithoutDialog:
            self._press = {"ras": ras, "at": interactor.GetEventPosition(), "dragged": False}
            self._show(pick)
        return True

    def _onRelease(self) -> bool:
        if self._press is None:
            return False
        press, pick = self._press, self._pick
        self._press = None
        self.forget()
        if pick is not None:
            self._add(pick, None if press["dragged"] else press["ras"])
        return True

    def _hover(self, ras) -> None:
        if not self.scan.update():
            return
        kji = self.scan.index_at(ras)
        if kji is not None and self._pick is not None and self._pick.holds(kji):
            return
        self._show(self.pickAt(ras))

    def _show(self, pick) -> None:
        self._pick = pick
        if pick is None:
            self.forget()
            return
        colour = self._views.LEAK_COLOUR if pick.leaked else self._views.CANDIDATE_COLOUR
        self._voxelOverlay.show(pick, self.scan.index_to_ras, colour)
        self._hint(_worded(clicks.leak_message(pick)) if pick.leaked else self._lesionText(pick))

    def forget(self) -> None:
        if self.scan is None:
            return
        self._pick = None
        self._voxelOverlay.hide()
        self._circleOverlay.hide()
        self._hint("")

    # Actions of the reader; positions are RAS

    def pickAt(self, ras, radiusMm: float | None = None, acrossSites: bool = False, anySize: bool = False):
        """Return the lesion at a position (a `picking.Pick`), or None. It ends where another site begins.

        Args:
            ras: Position.
            radiusMm: Radius of a sphere around the position that limits the lesion instead of other sites.
            acrossSites: Include touching voxels of other sites.
            anySize: Ignore the limits of volume and extent.
        """
        seed = self.scan.index_at(ras) if self.scan.update() else None
        if seed is None:
            return None
        limits = [self.scriptedEffect.doubleParameter(name) for name in ("MostVolumeMm3", "MostDepthMm")]
        limits = PickLimits(radiusMm, *([np.inf, np.inf] if anySize else limits))
        threshold = self.scriptedEffect.doubleParameter("ThresholdHU")
        heart = self.scan.heart(self.scriptedEffect.integerParameter("InsideHeart") != 0)
        allowed = None if heart is None else heart.__getitem__
        sites = self.scan.sites_in if radiusMm is None and not acrossSites else None
        return pick_lesion(self.scan.hu, seed, self.scan.spacing_mm, threshold, allowed, limits, sites)

    def addAt(self, ras, radiusMm: float | None = None) -> int:
        """Add the lesion at a position to the selected segment. Returns the number of voxels that changed."""
        pick = self.pickAt(ras, radiusMm)
        if pick is None:
            self._say(self._emptyReason(ras))
            return 0
        return self._add(pick, ras if radiusMm is None else None)

    def rejectAt(self, ras) -> int:
        """Move the lesion at a position to the non-coronary segment. Returns the number of voxels that changed.

        A lesion that is already labelled may have any size.
        """
        kji = self.scan.index_at(ras) if self.scan.update() else None
        if kji is None:
            return 0
        lesion = self.pickAt(ras, anySize=self.scan.segment_at(kji) is not None)
        if lesion is None:
            self._say(self._emptyReason(ras))
            return 0
        changed = self.scan.change(self.scan.segment_of(NOT_CORONARY), lesion)
        self.forget()
        rejected = _("Rejected: {lesion}. It is not scored.").format(lesion=self._lesionText(lesion))
        self._say(rejected if changed else _("Nothing to reject here: rejected already, or masked."))
        return changed

    def _add(self, pick, ras) -> int:
        """Add a lesion to the selected segment. ras: position of the click; None for a sphere that was drawn.

        A second click within a lesion that touches other sites adds its parts at those sites.
        """
        offer, self._offer = self._offer, None
        selected = self.scan.selected
        if (refusal := clicks.refusal(pick, selected)) is not None:
            self._say(_worded(refusal))
            return 0
        if ras is not None and offer is not None and offer.is_taken(selected, self.scan.index_at(ras)):
            pick, ras = offer.lesion, None
        former = [self.scan.name_of(site) for site in self.scan.sites_of(pick) if site != selected]
        changed = self.scan.change(selected, pick)
        outcome = clicks.outcome(self.scan.name_of(selected), former, self._lesionText(pick), changed)
        offered = "" if ras is None else self._offerAcross(pick, ras)
        self._say(f"{_worded(outcome)} {offered}".rstrip())
        return changed

    def _offerAcross(self, pick, ras) -> str:
        """Store what a second click would add. Returns a sentence about it, or an empty text."""
        across, voxel = self.pickAt(ras, acrossSites=True), float(np.prod(self.scan.spacing_mm))
        self._offer = clicks.offer_across(pick, across, self.scan.selected, self.scan.sites_of, voxel)
        if self._offer is None:
            return ""
        parts = [
            _("{site} {volume:.1f} mm³").format(site=self.scan.name_of(site) or _("unlabelled"), volume=volume)
            for site, volume in self._offer.parts_mm3.items()
        ]
        return _("Left: {parts}. Click again to take it too.").format(parts=", ".join(parts))

    # Messages

    def _lesionText(self, voxels) -> str:
        volume = voxels.count * float(np.prod(self.scan.spacing_mm))
        peak = float(self.scan.hu[voxels.part][voxels.mask].max())
        return _("{volume:.1f} mm³, peak {peak:.0f} HU").format(volume=volume, peak=peak)

    def _emptyReason(self, ras) -> str:
        kji = self.scan.index_at(ras) if self.scan.update() else None
        hu = None if kji is None else float(self.scan.hu[kji])
        return _worded(clicks.nothing_there(hu, self.scriptedEffect.doubleParameter("ThresholdHU")))


def _worded(message: clicks.Message) -> str:
    return _(message.text).format(**message.values)
