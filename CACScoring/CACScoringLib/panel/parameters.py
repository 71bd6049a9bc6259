"""The panel's state, which is saved with the scene.

Enumerations that the panel compares are equal by value, because after *Reload* a class may have been imported twice.
"""

# Slicer's names.
# ruff: noqa: N815

from __future__ import annotations

from enum import Enum, IntEnum
from typing import Annotated

from slicer import vtkMRMLScalarVolumeNode, vtkMRMLSegmentationNode, vtkMRMLTextNode
from slicer.i18n import tr as _
from slicer.parameterNodeWrapper import WithinRange, parameterNodeWrapper

from ..cli.cohort import CohortOptions
from ..drr.settings import DrrSettings
from ..networks.configs import ROLES
from ..radiograph.settings import RadiographInput
from ..record.rules import ScoringRules, ScoringSwitches
from .forms import Form, declaredBy


class LabelledChoice(str, Enum):
    """A choice with the text that boxes show, translated on display. Scenes store the member's name."""

    text: str

    def __new__(cls, value: str, text: str = "") -> LabelledChoice:
        member = str.__new__(cls, value)
        member._value_, member.text = value, text
        return member

    def label(self) -> str:
        return _(self.text)


class Method(LabelledChoice):
    """Scoring methods to run."""

    BOTH = "both", "Clinical rule and calcium map"
    CLINICAL_RULE = "threshold", "Clinical rule alone (no networks)"


class Device(LabelledChoice):
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


class RadiographSource(LabelledChoice):
    """Source of the radiograph to score."""

    FILE = "file", "A file"
    VOLUME = "volume", "A radiograph of a CT"


class Sex(LabelledChoice):
    """A patient's sex; values as in DICOM (0010,0040)."""

    UNKNOWN = "", "unknown"
    FEMALE = "F", "female"
    MALE = "M", "male"


RULES = Form(ScoringRules, choices={"connectivity": Connectivity})
SWITCHES = Form(ScoringSwitches)
COHORT = Form(CohortOptions, "cohort")
DRR = Form(DrrSettings, "drr")
PATIENT = Form(RadiographInput, "radiograph", {"sex": Sex})
"""Settings whose parameters are made from their declarations."""

MODELS = {name: role.parameter for name, role in ROLES.items() if role.parameter}
"""Parameters that name a model, by network; empty for the default."""


@parameterNodeWrapper
class CACScoringParameterNode(declaredBy(RULES, SWITCHES, COHORT, DRR, PATIENT, texts=tuple(MODELS.values()))):  # type: ignore[misc]
    """State of the panel: the input, the settings and the result under review. Its base holds those that are declared.

    Attributes:
        inputVolume: CT to score.
        inputHeart: Segmentation with an existing heart mask; None to find the heart.
        inputHeartSegment: Segment ID of that mask.
        inputLesions: Path of a DICOM segmentation or structure set with the lesions; empty to find them.
        method: Scoring methods to run.
        secondOpinions: Add whole-scan estimates by all installed models.
        device: Device that the networks run on.
        result: Record of the result under review; refers to all its nodes.
        reviewMethod: Key of the method whose lesions are listed.
        fade: Opacity of the healthy image over the CT.
        show3D: Show surfaces in the 3-D view.
        exportToDatabase: Add exported DICOM objects to Slicer's database.
        exportIdentify: Name the reader who confirmed the score in DICOM reports.
        exportReader: Name of the reader who confirms scores from now on.
        drrCalcium: Show the calcium over the radiograph, with drrOpacity.
        drrHeart: Show the heart's outline over the radiograph.
        radiographSource: Source of the radiograph to score.
        radiographVolume: Radiograph of a CT.
        radiographResult: Record of the radiograph scored last; refers to its pictures.
    """

    inputVolume: vtkMRMLScalarVolumeNode
    inputHeart: vtkMRMLSegmentationNode
    inputHeartSegment: str = ""
    inputLesions: str = ""
    method: Method = Method.BOTH
    secondOpinions: bool = False
    device: Device = Device.AUTO
    result: vtkMRMLTextNode
    reviewMethod: str = "threshold"
    fade: Annotated[float, WithinRange(0, 1)] = 0.0
    show3D: bool = True
    exportToDatabase: bool = True
    exportIdentify: bool = False
    exportReader: str = ""
    drrCalcium: bool = True
    drrOpacity: Annotated[float, WithinRange(0, 1)] = 0.6
    drrHeart: bool = True
    radiographSource: RadiographSource = RadiographSource.FILE
    radiographVolume: vtkMRMLScalarVolumeNode
    radiographResult: vtkMRMLTextNode
