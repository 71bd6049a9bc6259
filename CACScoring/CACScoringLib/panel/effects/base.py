"""What the segment editor effects share towards Slicer: how they are registered, copied and shown, and their artery."""

# Slicer's naming.
# ruff: noqa: N802, N803, N806

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import qt
import slicer
from SegmentEditorEffects import AbstractScriptedSegmentEditorEffect
from slicer.i18n import tr as _

from ..widgets import quiet

_HINT_LINES, _STATUS_LINES = 2, 3
"""Lines of text that an effect's messages have room for, so that they do not move what stands below them."""


def registerEffect(package: ModuleType) -> None:
    """Make known the effect whose `SegmentEditorEffect.py` lies in a package; a second call changes nothing.

    The package has to be imported before: see its `__init__`.
    """
    import qSlicerSegmentationsEditorEffectsPythonQt as effects

    instance = effects.qSlicerSegmentEditorScriptedEffect(None)
    instance.setPythonSource((Path(package.__file__).parent / "SegmentEditorEffect.py").as_posix())
    instance.self().register()


def helpOf(summary: str, actions: Mapping[str, str], closing: str) -> str:
    """An effect's help as HTML, from plain text.

    summary: always shown; the rest opens by "Show details". actions: what a user does, and what that does.
    """
    listed = "".join(f"<li><b>{escape(does)}:</b> {escape(text)}</li>" for does, text in actions.items())
    # Segment Editor cuts at the first line break.
    return f'<html>{escape(summary)}<br>.<ul style="margin: 0">{listed}</ul><p>{escape(closing)}</p></html>'


class Parameter(NamedTuple):
    """A parameter of an effect, and what shows it: a spin box of a range, or a check box without one.

    name: in the segment editor's node. default: None where the effect sets it later.
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

    name: not translated, because modules find effects by it. source: the effect's own file. scan: an `EffectScan`,
    boxes: the parameters' widgets by name; both are made when the effect is used for the first time.
    """

    def __init__(self, scriptedEffect, name: str, source: str) -> None:
        scriptedEffect.name = name
        scriptedEffect.title = _(name)
        super().__init__(scriptedEffect)
        self._source = Path(source)
        self._parameters: list[Parameter] = []
        self._arteries = None
        self.scan = None
        self.boxes: dict[str, object] = {}

    def clone(self):
        import qSlicerSegmentationsEditorEffectsPythonQt as effects

        clonedEffect = effects.qSlicerSegmentEditorScriptedEffect(None)
        clonedEffect.setPythonSource(self._source.as_posix())
        return clonedEffect

    def icon(self):
        # The folder of the source tree is named as the module; where Slicer installs it, all modules lie together.
        name = self._source.parent.name.removesuffix("Lib")
        return qt.QIcon(str(self._source.parents[1] / "Resources" / "Icons" / f"{name}.png"))

    def parameters(self) -> list[Parameter]:
        """Those with a widget of their own."""
        raise NotImplementedError

    def setMRMLDefaults(self) -> None:
        for parameter in self.parameters():
            if parameter.default is not None:
                self.scriptedEffect.setParameterDefault(parameter.name, parameter.default)

    def setupOptionsFrame(self) -> None:
        """Nothing yet: Segment Editor makes the options of all effects when it opens, and what these need takes long
        to load."""

    def _build(self) -> None:
        """Make the options when the effect is used for the first time."""
        if self.scan is not None:
            return
        from . import scan, views

        self._views = views
        self.scan = scan.EffectScan(self.scriptedEffect)
        self._light = views.VoxelOverlay(self.scriptedEffect)
        self._ball = views.CircleOverlay(self.scriptedEffect)
        self._arteries = views.SiteButtons(self.chooseArtery)
        self.scriptedEffect.addOptionsWidget(self._arteries.layout)
        self._parameters = self.parameters()
        self._addOptions()
        # Two, so that the next move of the mouse does not overwrite what a click has done.
        self.hintLabel, self.statusLabel = views.plainLabel(_HINT_LINES), views.plainLabel(_STATUS_LINES)
        for label in (self.hintLabel, self.statusLabel):
            self.scriptedEffect.addOptionsWidget(label)

    def _addOptions(self) -> None:
        """Make what lies between the arteries and the messages: the parameters' boxes."""
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
            self._signalOf(parameter).connect(self.updateMRMLFromGUI)

    def _signalOf(self, parameter: Parameter):
        box = self.boxes[parameter.name]
        return box.toggled if parameter.limits is None else box.valueChanged

    def updateGUIFromMRML(self) -> None:
        self._build()
        for parameter in self._parameters:
            box = self.boxes[parameter.name]
            with quiet(box):
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
        self._light.remove()
        self._ball.remove()

    def cleanup(self) -> None:
        # A connection would keep the effect alive.
        for parameter in self._parameters:
            self._signalOf(parameter).disconnect(self.updateMRMLFromGUI)

    def chooseArtery(self, artery) -> None:
        """Work on the segment of a `Site` from now on."""
        if self.scan.update():
            self.scan.select(artery)
            self._showArtery()

    def _useValueOfResult(self, name: str, marker: str, value: float | None) -> None:
        """A scored segmentation is edited with the value it was scored with, until the reader changes it.

        marker: parameter that names the segmentation whose value was taken.
        """
        own = self.scan.segmentation.GetID()
        if value is not None and self.scriptedEffect.parameter(marker) != own:
            self.scriptedEffect.setParameter(marker, own)
            self.scriptedEffect.setParameter(name, value)

    def _showArtery(self) -> None:
        segmentation = self.scan.segmentation
        self._arteries.show(self.scan.name_of(self.scan.selected) if segmentation is not None else "")

    def _hint(self, text: str) -> None:
        """Show what could be done now."""
        self.hintLabel.setText(text)

    def _say(self, text: str) -> None:
        """Show what has been done: here, and at the foot of the application, wherever the panel is scrolled to."""
        self.statusLabel.setText(text)
        slicer.util.showStatusMessage(text)


def siteKeys() -> dict[str, str]:
    """The keys that all effects know, for their help."""
    return {
        _("Keys 1 to 5"): _("choose LM, LAD, LCX, RCA or other, in the view last clicked in."),
        _("Keys 6 to 9"): _("choose aortic valve, mitral annulus, thoracic aorta or other non-coronary calcium."),
    }
