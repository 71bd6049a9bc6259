"""The panel's state, which is saved with the scene.

Enumerations that the panel compares are equal by value, because after *Reload* a class may have been imported twice.
"""

# Slicer's names.
# ruff: noqa: N815

from __future__ import annotations

from enum import Enum, IntEnum
from typing import Annotated, Any

from slicer import vtkMRMLScalarVolumeNode, vtkMRMLSegmentationNode, vtkMRMLTextNode
from slicer.i18n import tr as _
from slicer.parameterNodeWrapper import WithinRange, parameterNodeWrapper

from ..core.options import rows_of
from ..scoring.rules import ScoringRules


class Method(str, Enum):
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


class Connectivity(IntEnum):
    """Neighbours that join pixels of a slice to one lesion."""

    EIGHT = 8
    FOUR = 4

    def label(self) -> str:
        return _("{count} neighbours").format(count=self.value)


class RadiographSource(str, Enum):
    """Which radiograph to score."""

    FILE = "file"
    VOLUME = "volume"

    def label(self) -> str:
        return {RadiographSource.FILE: _("A file"), RadiographSource.VOLUME: _("A radiograph of a CT")}[self]


class Sex(Enum):
    """Of a patient, as DICOM says it."""

    UNKNOWN = ""
    FEMALE = "F"
    MALE = "M"

    def label(self) -> str:
        return {Sex.UNKNOWN: _("unknown"), Sex.FEMALE: _("female"), Sex.MALE: _("male")}[self]


RULES = {
    "thresholdHU": "threshold_hu",
    "minimumAreaMm2": "minimum_area_mm2",
    "minimumPixels": "minimum_pixels",
    "connectivity": "connectivity",
    "referenceSpacingMm": "reference_spacing_mm",
    "calibration": "calibration_mg_per_mm3_hu",
}
SWITCHES = {
    "adaptToTubeVoltage": "adapt_to_tube_voltage",
    "allowContrast": "allow_contrast",
    "allowReversed": "allow_reversed",
}
"""Fields of `ScoringRules` and of `ScoringSwitches` by the parameters that hold them, in the order of their rows."""

_PUBLISHED = ScoringRules()


def _within(rule: str) -> Any:
    """Limits of a rule, as it declares them."""
    return WithinRange(*rows_of(ScoringRules)[rule].limits)


@parameterNodeWrapper
class CACScoringParameterNode:
    """What was chosen, and which result is being reviewed.

    inputHeart, inputHeartSegment: an existing heart to use; none for the region that is found.
    heartModel, slicesModel, mapModel, vesselsModel, radiomicsModel: names of models; empty for the bundled one.
    heartModel is for territories and heart, or for the heart alone.
    secondOpinions: ask the models that there are for whole-scan estimates too.
    The rules have the limits and the published values of `ScoringRules`; calibration 0 is none.
    result: the record of the result under review, from which all its nodes are found.
    reviewMethod: key of the method whose lesions are listed. fade: of the original, 0, into the healthy image, 1.
    inputLesions: path of a DICOM segmentation or structure set whose lesions are scored; empty to find them.
    exportToDatabase: add exported DICOM objects to Slicer's database. exportIdentify, exportReader: name the patient in
    reports, and who reviewed.
    drr…: of the radiograph of the CT, as in `DrrSettings`; but the spectrum has a switch, and 0 photons are no noise.
    drrCalcium, drrOpacity, drrHeart: what lies over it.
    radiograph…: the radiograph to score, and its patient (0: unknown). radiographModel: empty for the bundled one.
    radiographResult: the record of the radiograph scored last, which refers to its pictures.
    """

    inputVolume: vtkMRMLScalarVolumeNode
    inputHeart: vtkMRMLSegmentationNode
    inputHeartSegment: str = ""
    inputLesions: str = ""
    method: Method = Method.BOTH
    heartModel: str = ""
    slicesModel: str = ""
    mapModel: str = ""
    secondOpinions: bool = False
    vesselsModel: str = ""
    radiomicsModel: str = ""
    device: Device = Device.AUTO
    thresholdHU: Annotated[float, _within("threshold_hu")] = _PUBLISHED.threshold_hu
    minimumAreaMm2: Annotated[float, _within("minimum_area_mm2")] = _PUBLISHED.minimum_area_mm2
    minimumPixels: Annotated[int, _within("minimum_pixels")] = _PUBLISHED.minimum_pixels
    connectivity: Connectivity = Connectivity(_PUBLISHED.connectivity)
    referenceSpacingMm: Annotated[float, _within("reference_spacing_mm")] = _PUBLISHED.reference_spacing_mm
    calibration: Annotated[float, _within("calibration_mg_per_mm3_hu")] = 0.0
    adaptToTubeVoltage: bool = True
    allowContrast: bool = False
    allowReversed: bool = False
    result: vtkMRMLTextNode
    reviewMethod: str = "threshold"
    fade: Annotated[float, WithinRange(0, 1)] = 0.0
    show3D: bool = True
    exportToDatabase: bool = True
    exportIdentify: bool = False
    exportReader: str = ""
    cohortFolder: str = ""
    cohortOutput: str = ""
    cohortCluster: str = ""
    drrAngle: Annotated[float, WithinRange(-180, 180)] = 0.0
    drrTilt: Annotated[float, WithinRange(-45, 45)] = 0.0
    drrMirrored: bool = False
    drrSourceDetector: Annotated[float, WithinRange(500, 5000)] = 1800.0
    drrSourceIsocentre: Annotated[float, WithinRange(300, 5000)] = 1600.0
    drrDetector: Annotated[float, WithinRange(50, 1000)] = 430.0
    drrPixels: Annotated[int, WithinRange(64, 4096)] = 1024
    drrSpectrum: bool = False
    drrKvp: Annotated[float, WithinRange(40, 150)] = 120.0
    drrScatter: Annotated[float, WithinRange(0, 0.9)] = 0.0
    drrPhotons: Annotated[int, WithinRange(0, 1000000)] = 0
    drrLinear: bool = False
    drrTable: bool = False
    drrCalcium: bool = True
    drrOpacity: Annotated[float, WithinRange(0, 1)] = 0.6
    drrHeart: bool = True
    radiographSource: RadiographSource = RadiographSource.FILE
    radiographFile: str = ""
    radiographLateral: str = ""
    radiographVolume: vtkMRMLScalarVolumeNode
    radiographAge: Annotated[float, WithinRange(0, 120)] = 0.0
    radiographSex: Sex = Sex.UNKNOWN
    radiographBmi: Annotated[float, WithinRange(0, 100)] = 0.0
    radiographModel: str = ""
    radiographResult: vtkMRMLTextNode
