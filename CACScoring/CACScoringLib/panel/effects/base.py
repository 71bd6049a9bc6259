"""Base class of the segment editor effects: cloning, options and the selected artery."""

# Slicer's naming.
# ruff: noqa: N802, N803, N806, N815

from __future__ import annotations

from collections.abc import Callable, Mapping
from html import escape
from pathlib import Path
from typing import Any, NamedTuple

import qt
import slicer
import vtk
from SegmentEditorEffects import AbstractScriptedSegmentEditorEffect
from slicer.i18n import tr as _

from ..views import giveKeys
from ..widgets import blocked_signals

_HINT_LINES, _STATUS_LINES = 2, 3
"""Minimum heights of an effect's messages in lines, so that the widgets below them do not move."""


def helpOf(summary: str, actions: Mapping[str, str], closing: str) -> str:
    """Return an effect's help as HTML, from plain text.

    Args:
        summary: Text that is always shown; "Show details" opens the rest.
        actions: Effects of a user's actions.
        closing: Last paragraph.
    """
    items = "".join(f"<li><b>{escape(action)}:</b> {escape(text)}</li>" for action, text in actions.items())
    # Segment Editor's summary ends at the first line break.
    return f'<html>{escape(summary)}<br>.<ul style="margin: 0">{items}</ul><p>{escape(closing)}</p></html>'


class Parameter(NamedTuple):
    """A parameter of an effect, shown as a spin box, or as a check box if it has no limits.

    Attributes:
        name: Name in the segment editor's node.
        label: Label of the widget.
        tip: Tooltip of the widget.
        default: Default; None if the effect sets it later.
        limits: Minimum and maximum; None for a check box.
        suffix: Unit shown in the spin box.
        decimals: Decimals of the spin box.
    """

    name: str
    label: str
    tip: str
    default: float | None
    limits: tuple[float, float] | None = None
    suffix: str = ""
    decimals: int = 0


class LesionEffect(AbstractScriptedSegmentEditorEffect):
    """An effect on the segment of an artery.

    Attributes:
        scan: An `EffectScan`; None until the effect is first used.
        boxes: Widgets of the parameters by name; empty until the effect is first used.
    """

    def __init__(self, scriptedEffect, name: str, source: str) -> None:
        """Prepare.

        Args:
            scriptedEffect: Slicer's object of the effect.
            name: Name by which modules find the effect, not translated.
            source: The effect's own file.
        """
        scriptedEffect.name = name
        scriptedEffect.title = _(name)
        super().__init__(scriptedEffect)
        self._source = Path(source)
        self._parameters: list[Parameter] = []
        self._connections: list[tuple[Any, Callable[..., object]]] = []
        self._arteries: Any = None
        self.scan: Any = None
        self.boxes: dict[str, Any] = {}

    def clone(self):
        import qSlicerSegmentationsEditorEffectsPythonQt as effects

        clonedEffect = effects.qSlicerSegmentEditorScriptedEffect(None)
        clonedEffect.setPythonSource(self._source.as_posix())
        return clonedEffect

    def icon(self):
        # In the source tree each module has its own folder; installed modules share one.
        name = self._source.parent.name.removesuffix("Lib")
        return qt.QIcon(str(self._source.parents[1] / "Resources" / "Icons" / f"{name}.png"))

    def parameters(self) -> list[Parameter]:
        """Return the parameters that have a widget."""
        raise NotImplementedError

    def setMRMLDefaults(self) -> None:
        for parameter in self.parameters():
            if parameter.default is not None:
                self.scriptedEffect.setParameterDefault(parameter.name, parameter.default)

    def setupOptionsFrame(self) -> None:
        """Do nothing: Segment Editor calls this for all effects when it opens, and these take long to load."""

    def _build(self) -> None:
        """Make the options when the effect is used for the first time."""
        if self.scan is not None:
            return
        from . import scan, views

        self._views = views
        self.scan = scan.EffectScan(self.scriptedEffect)
        self._voxelOverlay = views.VoxelOverlay(self.scriptedEffect)
        self._circleOverlay = views.CircleOverlay(self.scriptedEffect)
        self._arteries = views.SiteButtons(self.chooseArtery)
        self.scriptedEffect.addOptionsWidget(self._arteries.layout)
        self._parameters = self.parameters()
        self._addOptions()
        # Two labels, so that the next move of the mouse does not overwrite the result of a click.
        self.hintLabel, self.statusLabel = views.plainLabel(_HINT_LINES), views.plainLabel(_STATUS_LINES)
        for label in (self.hintLabel, self.statusLabel):
            self.scriptedEffect.addOptionsWidget(label)

    def _addOptions(self) -> None:
        """Add the parameters' widgets between the arteries and the messages."""
        for parameter in self._parameters:
            if parameter.limits is None:
                box = qt.QCheckBox(parameter.label)
                self.scriptedEffect.addOptionsWidget(box)
            else:
                box = qt.QDoubleSpinBox()
                box.setRange(*parameter.limits)
                box.setDecimals(parameter.decimals)
                box.setSuffix(parameter.suffix)
                self.scriptedEffect.addLabeledOptionsWidget(parameter.label, box)
            box.setToolTip(parameter.tip)
            self.boxes[parameter.name] = box
            self._connect(box.toggled if parameter.limits is None else box.valueChanged, self.updateMRMLFromGUI)

    def _connect(self, signal, slot: Callable[..., object]) -> None:
        """Connect a signal until `cleanup`."""
        signal.connect(slot)
        self._connections.append((signal, slot))

    def updateGUIFromMRML(self) -> None:
        self._build()
        for parameter in self._parameters:
            box = self.boxes[parameter.name]
            with blocked_signals(box):
                if parameter.limits is None:
                    box.setChecked(self.scriptedEffect.integerParameter(parameter.name) != 0)
                else:
                    box.setValue(self.scriptedEffect.doubleParameter(parameter.name))
        self._showArtery()

    def updateMRMLFromGUI(self, _value=None) -> None:
        for parameter in self._parameters:
            box = self.boxes[parameter.name]
            value = int(box.checked) if parameter.limits is None else box.value
            self.scriptedEffect.setParameter(parameter.name, value)

    def activate(self) -> None:
        self._arteries.takeDigits()
        self._showArtery()
        self._say("")

    def deactivate(self) -> None:
        self._arteries.giveDigits()
        slicer.util.showStatusMessage("")
        self._voxelOverlay.remove()
        self._circleOverlay.remove()

    def cleanup(self) -> None:
        # A connection would keep the effect alive.
        while self._connections:
            signal, slot = self._connections.pop()
            signal.disconnect(slot)

    def sourceVolumeNodeChanged(self) -> None:
        self.forget()

    referenceGeometryChanged = layoutChanged = sourceVolumeNodeChanged

    def forget(self) -> None:
        """Hide what is shown of the input, which has changed."""
        raise NotImplementedError

    # Views

    def processInteractionEvents(self, callerInteractor, eventId, viewWidget) -> bool:
        if not self._views.isSliceWidget(viewWidget):
            return False
        if eventId == vtk.vtkCommand.EnterEvent:
            giveKeys(viewWidget)
        if (other := self._otherScanIn(viewWidget)) is not None:
            text = _("This view shows {name}, which is not the scan of these lesions. Nothing is changed in it.")
            self._hint(text.format(name=other.GetName()))
            return False
        return self.onViewEvent(callerInteractor, eventId, viewWidget)

    def _otherScanIn(self, viewWidget):
        """Return the volume that a slice view shows in place of the edited scan; None if it shows that, or none."""
        from ...mrml.scene import DERIVED_ATTRIBUTE

        background = slicer.mrmlScene.GetNodeByID(viewWidget.mrmlSliceCompositeNode().GetBackgroundVolumeID() or "")
        edited = self.scriptedEffect.parameterSetNode().GetSourceVolumeNode()
        is_other = background is not None and edited is not None and background is not edited
        return background if is_other and not background.GetAttribute(DERIVED_ATTRIBUTE) else None

    def processViewNodeEvents(self, callerViewNode, eventId, viewWidget) -> None:
        if self._views.isSliceWidget(viewWidget):
            self._voxelOverlay.place(viewWidget)
            self.onViewMoved(viewWidget)

    def onViewMoved(self, viewWidget) -> None:
        """React to another slice or another part of it in a slice view."""
        raise NotImplementedError

    def onViewEvent(self, interactor, eventId, viewWidget) -> bool:
        """React to an event in a slice view; return True if it is handled."""
        raise NotImplementedError

    def chooseArtery(self, artery) -> None:
        """Select the segment of a `Site`."""
        if self.scan.update():
            self.scan.select(artery)
            self._showArtery()

    def _useValueOfResult(self, name: str, marker: str, value: float | None) -> None:
        """Set a parameter to the value that the segmentation was scored with, once for each segmentation.

        marker: parameter that holds the ID of the segmentation that the value came from.
        """
        segmentationId = self.scan.segmentation.GetID()
        if value is not None and self.scriptedEffect.parameter(marker) != segmentationId:
            self.scriptedEffect.setParameter(marker, segmentationId)
            self.scriptedEffect.setParameter(name, value)

    def _showArtery(self) -> None:
        segmentation = self.scan.segmentation
        self._arteries.show(self.scan.name_of(self.scan.selected) if segmentation is not None else "")

    def _hint(self, text: str) -> None:
        """Show what a click would do."""
        self.hintLabel.setText(text)

    def _say(self, text: str) -> None:
        """Show the result of an action in the panel and in Slicer's status bar."""
        self.statusLabel.setText(text)
        slicer.util.showStatusMessage(text)


def siteKeys() -> dict[str, str]:
    """Return the help on the keys that all effects share."""
    return {
        _("Keys 1 to 5"): _("choose LM, LAD, LCX, RCA or other, with the mouse in a slice view."),
        _("Keys 6 to 9"): _("choose aortic valve, mitral annulus, thoracic aorta or other non-coronary calcium."),
    }
