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
from ..drr.settings import DrrSettings
from ..record.rules import ScoringRules


class Choice(str, Enum):
    """A choice with the text that boxes show, translated on display. Scenes store the member's name."""

    text: str

    def __new__(cls, value: str, text: str = "") -> Choice:
        member = str.__new__(cls, value)
        member._value_, member.text = value, text
        return member

    def label(self) -> str:
        return _(self.text)


class Method(Choice):
    """Scoring methods to run."""

    BOTH = "both", "Clinical rule and calcium map"
    CLINICAL_RULE = "threshold", "Clinical rule alone (no networks)"


class Device(Choice):
    """Device that the networks run on."""

    AUTO = "auto", "Automatic"
    CPU = "cpu", "Processor"
    CUDA = "cuda", "Graphics card (CUDA)"


class Connectivity(IntEnum):
    """Number of neighbours by which pixels of a slice belong to one lesion."""

    EIGHT = 8
    FOUR = 4

    def label(self) -> str:
        return _("{count} neighbours").format(count=self.value)


class RadiographSource(Choice):
    """Source of the radiograph to score."""

    FILE = "file", "A file"
    VOLUME = "volume", "A radiograph of a CT"


class Sex(Choice):
    """A patient's sex; values as in DICOM (0010,0040)."""

    UNKNOWN = "", "unknown"
    FEMALE = "F", "female"
    MALE = "M", "male"


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
"""Fields of `ScoringRules` and `ScoringSwitches` by panel parameter, in the order of the form's rows."""

DRR = {
    "drrSourceDetector": "source_detector_mm",
    "drrSourceIsocentre": "source_isocentre_mm",
    "drrDetector": "detector_mm",
    "drrPixels": "pixels",
    "drrKvp": "kvp",
    "drrScatter": "scatter_fraction",
    "drrPhotons": "photons",
    "drrLinear": "linear",
    "drrMirrored": "mirrored",
    "drrTable": "table",
}
"""Fields of `DrrSettings` by panel parameter, in the order of the form's rows; angle and tilt have sliders."""

_PUBLISHED, _STAND = ScoringRules(), DrrSettings()


def _range(field: str, kind: type = ScoringRules) -> Any:
    """Return the limits that a setting declares."""
    return WithinRange(*rows_of(kind)[field].limits)


@parameterNodeWrapper
class CACScoringParameterNode:
    """State of the panel: the input, the settings and the result under review.

    Attributes:
        inputVolume: CT to score.
        inputHeart: Segmentation with an existing heart mask; None to find the heart.
        inputHeartSegment: Segment ID of that mask.
        inputLesions: Path of a DICOM segmentation or structure set with the lesions; empty to find them.
        method: Scoring methods to run.
        heartModel: Name of a model for heart and territories; empty for the bundled one.
        slicesModel: Name of a model for the slice network; empty for the bundled one.
        mapModel: Name of a model for the calcium map; empty for the bundled one.
        secondOpinions: Add whole-scan estimates by all installed models.
        vesselsModel: Name of a model for whole-scan estimates by vessels; empty for the default.
        radiomicsModel: Name of a model for whole-scan estimates by radiomics; empty for the default.
        device: Device that the networks run on.
        thresholdHU: `threshold_hu` of `ScoringRules`.
        minimumAreaMm2: `minimum_area_mm2` of `ScoringRules`.
        minimumPixels: `minimum_pixels` of `ScoringRules`.
        connectivity: `connectivity` of `ScoringRules`.
        referenceSpacingMm: `reference_spacing_mm` of `ScoringRules`.
        calibration: `calibration_mg_per_mm3_hu` of `ScoringRules`; 0 for none.
        adaptToTubeVoltage: `adapt_to_tube_voltage` of `ScoringSwitches`.
        allowContrast: `allow_contrast` of `ScoringSwitches`.
        allowReversed: `allow_reversed` of `ScoringSwitches`.
        result: Record of the result under review; refers to all its nodes.
        reviewMethod: Key of the method whose lesions are listed.
        fade: Opacity of the healthy image over the CT.
        show3D: Show surfaces in the 3-D view.
        exportToDatabase: Add exported DICOM objects to Slicer's database.
        exportIdentify: Include the patient's identity in exports.
        exportReader: Name of the reader.
        cohortFolder: Folder or table of the cohort's scans.
        cohortOutput: Folder of the cohort's results.
        cohortCluster: Address of a Dask scheduler; empty for this computer.
        drrAngle: `angle_degrees` of `DrrSettings`; so are the other fields named drr…, see DRR, except these:
        drrCalcium: Show the calcium over the radiograph, with drrOpacity.
        drrHeart: Show the heart's outline over the radiograph.
        radiographSource: Source of the radiograph to score.
        radiographFile: Frontal radiograph.
        radiographLateral: Lateral radiograph.
        radiographVolume: Radiograph of a CT.
        radiographAge: Age in years; 0 if unknown.
        radiographSex: Sex.
        radiographBmi: Body mass index in kg/m²; 0 if unknown.
        radiographModel: Name of a model; empty for the bundled one.
        radiographResult: Record of the radiograph scored last; refers to its pictures.
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
    thresholdHU: Annotated[float, _range("threshold_hu")] = _PUBLISHED.threshold_hu
    minimumAreaMm2: Annotated[float, _range("minimum_area_mm2")] = _PUBLISHED.minimum_area_mm2
    minimumPixels: Annotated[int, _range("minimum_pixels")] = _PUBLISHED.minimum_pixels
    connectivity: Connectivity = Connectivity(_PUBLISHED.connectivity)
    referenceSpacingMm: Annotated[float, _range("reference_spacing_mm")] = _PUBLISHED.reference_spacing_mm
    calibration: Annotated[float, _range("calibration_mg_per_mm3_hu")] = 0.0
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
    drrSourceDetector: Annotated[float, _range("source_detector_mm", DrrSettings)] = _STAND.source_detector_mm
    drrSourceIsocentre: Annotated[float, _range("source_isocentre_mm", DrrSettings)] = _STAND.source_isocentre_mm
    drrDetector: Annotated[float, _range("detector_mm", DrrSettings)] = _STAND.detector_mm
    drrPixels: Annotated[int, _range("pixels", DrrSettings)] = _STAND.pixels
    drrKvp: Annotated[int, _range("kvp", DrrSettings)] = 35
    drrScatter: Annotated[float, _range("scatter_fraction", DrrSettings)] = 0.0
    drrPhotons: Annotated[int, _range("photons", DrrSettings)] = 0
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
