"""The panel's state, which is saved with the scene."""

# Slicer's names.
# ruff: noqa: N815

from __future__ import annotations

from enum import Enum
from typing import Annotated

from slicer import vtkMRMLScalarVolumeNode, vtkMRMLSegmentationNode, vtkMRMLTextNode
from slicer.i18n import tr as _
from slicer.parameterNodeWrapper import WithinRange, parameterNodeWrapper


class Method(Enum):
    """How to score. Kept in the scene by name."""

    BOTH = "both"
    CLINICAL_RULE = "threshold"

    def label(self) -> str:
        return {
            Method.BOTH: _("Clinical rule and calcium map"),
            Method.CLINICAL_RULE: _("Clinical rule alone (no networks)"),
        }[self]


class Device(Enum):
    """Where the networks run."""

    AUTO = "auto"
    CPU = "cpu"
    CUDA = "cuda"

    def label(self) -> str:
        return {Device.AUTO: _("Automatic"), Device.CPU: _("Processor"), Device.CUDA: _("Graphics card (CUDA)")}[self]


class Connectivity(Enum):
    """Neighbours that join pixels of a slice to one lesion."""

    EIGHT = 8
    FOUR = 4

    def label(self) -> str:
        return _("{count} neighbours").format(count=self.value)


@parameterNodeWrapper
class CACScoringParameterNode:
    """What was chosen, and which result is being reviewed.

    inputHeart, inputHeartSegment: an existing heart to use; none for the region that is found.
    heartModel, slicesModel, mapModel: names of models; empty for the bundled one.
    The rules' defaults are those published (see `ScoringRules`); calibration 0 is none.
    result: the record of the result under review, from which all its nodes are found.
    reviewMethod: key of the method whose lesions are listed. fade: of the original, 0, into the healthy image, 1.
    """

    inputVolume: vtkMRMLScalarVolumeNode
    inputHeart: vtkMRMLSegmentationNode
    inputHeartSegment: str = ""
    method: Method = Method.BOTH
    heartModel: str = ""
    slicesModel: str = ""
    mapModel: str = ""
    device: Device = Device.AUTO
    thresholdHU: Annotated[float, WithinRange(1, 1000)] = 130.0
    minimumAreaMm2: Annotated[float, WithinRange(0, 100)] = 1.0
    minimumPixels: Annotated[int, WithinRange(1, 100)] = 1
    connectivity: Connectivity = Connectivity.EIGHT
    referenceSpacingMm: Annotated[float, WithinRange(0.1, 20)] = 3.0
    calibration: Annotated[float, WithinRange(0, 0.1)] = 0.0
    adaptToTubeVoltage: bool = False
    allowContrast: bool = False
    result: vtkMRMLTextNode
    reviewMethod: str = "threshold"
    fade: Annotated[float, WithinRange(0, 1)] = 0.0
    show3D: bool = False
    cohortFolder: str = ""
    cohortOutput: str = ""
