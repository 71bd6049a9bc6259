"""Double of the parameters of segment editor effects
(Slicer/Slicer Modules/Loadable/Segmentations/EditorEffects/qSlicerSegmentEditorAbstractEffect.cxx: parameter,
setParameter, setCommonParameter, nodeReference ...)."""

from __future__ import annotations

import slicer


class EffectParameters:
    """Parameters of an effect: attributes of the editor's node, under "<effect>.<name>" or shared by all effects.

    A missing parameter raises here, where Slicer only logs an error.
    """

    def parameter(self, name: str) -> str:
        value = self._node.GetAttribute(f"{self.name}.{name}")
        value = self._node.GetAttribute(name) if value is None else value
        if value is None:
            raise KeyError(f"Parameter {name} cannot be found for effect {self.name}")
        return value

    def integerParameter(self, name: str) -> int:
        return int(self.parameter(name))

    def doubleParameter(self, name: str) -> float:
        return float(self.parameter(name))

    def parameterDefined(self, name: str) -> bool:
        return self.commonParameterDefined(f"{self.name}.{name}")

    def commonParameterDefined(self, name: str) -> bool:
        return self._node is not None and bool(self._node.GetAttribute(name))

    def setParameter(self, name: str, value) -> None:
        self.setCommonParameter(f"{self.name}.{name}", value)

    def setParameterDefault(self, name: str, value) -> None:
        if not self.parameterDefined(name):
            self.setParameter(name, value)

    def setCommonParameter(self, name: str, value) -> None:
        if isinstance(value, bool) or not isinstance(value, (str, int, float)):
            raise TypeError(f"A parameter is a text or a number, not {value!r}")
        # QString::number keeps six digits.
        text = f"{value:g}" if isinstance(value, float) else str(value)
        if text == (self._node.GetAttribute(name) or ""):
            return
        disabled = self._node.GetDisableModifiedEvent()
        # Observers of the node's modification are not notified.
        self._node.SetDisableModifiedEvent(1)
        self._node.SetAttribute(name, text)
        self._node.SetDisableModifiedEvent(disabled)
        self._node.InvokeCustomModifiedEvent(slicer.vtkMRMLSegmentEditorNode.EffectParameterModified)
