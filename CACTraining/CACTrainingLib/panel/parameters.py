"""State of the training panel, saved with the scene, and the packages that it needs.

Annotations are stored in the project's folder.
"""

# Slicer's naming.
# ruff: noqa: N815

from __future__ import annotations

from enum import Enum
from pathlib import Path

from slicer.parameterNodeWrapper import parameterNodeWrapper

from CACScoringLib.panel.forms import Form, declaredBy
from CACScoringLib.panel.packages import TORCH_REQUIREMENTS, requirementsIn
from CACScoringLib.panel.parameters import Device, LabelledChoice

from ..training.settings import LoopSettings

LIBRARY = "CACTrainingLib"
"""Package whose commands the panel runs."""

TRAINING_REQUIREMENTS = (
    *TORCH_REQUIREMENTS,
    *requirementsIn(Path(__file__).parents[1] / "Resources" / "requirements.txt"),
)
"""Requirements of training and studies, installed together."""


class AnnotationTask(Enum):
    """Annotation task."""

    SLICES = "slices"
    REGIONS = "regions"
    HEART = "heart"


class Order(LabelledChoice):
    """Order of the work list. Values are those of `work_list`."""

    ADDED = "added", "As added"
    UNCERTAIN = "uncertain", "Least certain first"


class Network(LabelledChoice):
    """Network to train. Values are those of the command line."""

    TERRITORIES = "territories", "Heart and territories"
    SLICES = "slices", "Slices"
    DECOMPOSITION = "decomposition", "Calcium map"
    LESIONS = "lesions", "Lesions"


class TrainMethod(LabelledChoice):
    """Training method of the calcium map. Values are those of the command line."""

    SUPERVISED = "supervised", "From known calcium maps (supervised)"
    LABELS = "labels", "From slice labels alone"
    CYCLEGAN = "cyclegan", "From slice labels, with discriminators (CycleGAN)"


class Preset(LabelledChoice):
    """Preset of a training. Values are those of the command line."""

    COMPACT = "compact", "Compact"
    PAPER = "paper", "As published (large)"
    REAL_SLICES = "real-slices", "Real slices and digital patients"
    REAL_LESIONS = "real-lesions", "Painted lesions and digital patients"
    REAL_HEARTS = "real-hearts", "Outlined hearts and digital patients"


class Use(LabelledChoice):
    """Use of the scans that a study takes. Values are those of the project."""

    TEST = "test", "Test"
    VALIDATION = "validation", "Validation"
    TRAINING = "training", "Training"


LOOP = Form(LoopSettings, "train")
"""Settings of a training's loop; 0 leaves that of the preset."""


@parameterNodeWrapper
class CACTrainingParameterNode(declaredBy(LOOP)):  # type: ignore[misc]
    """State of the training panel. Its base holds the settings of `LOOP`.

    Attributes:
        projectFolder: Open project; empty for none.
        annotator: Name of the annotator; empty for none.
        scanId: Id of the open scan; empty for none.
        task: Annotation task.
        order: Order of the work list.
        blind: Hide names and suggestions.
        showSuggestion: Show predicted probabilities of slices.
        proposalModel: Name of the project's model for suggestions; empty for the bundled one.
        trainNetwork: Network to train.
        trainMethod: Training method of the calcium map.
        trainPreset: Preset of the training.
        trainDevice: Device of trainings and studies.
        trainStart: Path of a card or name of a model to start from; empty for random weights.
        trainName: Name of the new model; empty for a default.
        trainAnnotator: Annotator whose labels are used; empty for all.
        trainFolder: Folder of further data; empty for none.
        shownRun: Name of the selected training.
        evaluateStudy: Name of the study.
        evaluateUse: Use of the scans to evaluate.
        evaluateModel: Path of the card of the evaluated model; empty for the bundled models.
        evaluateOther: Path of the card of the model to compare with; empty for the bundled models.
        shownStudy: Name of the selected study.
    """

    projectFolder: str = ""
    annotator: str = ""
    scanId: str = ""
    task: AnnotationTask = AnnotationTask.SLICES
    order: Order = Order.ADDED
    blind: bool = False
    showSuggestion: bool = False
    proposalModel: str = ""
    trainNetwork: Network = Network.SLICES
    trainMethod: TrainMethod = TrainMethod.SUPERVISED
    trainPreset: Preset = Preset.COMPACT
    trainDevice: Device = Device.AUTO
    trainStart: str = ""
    trainName: str = ""
    trainPatience = 10
    trainAnnotator: str = ""
    trainFolder: str = ""
    shownRun: str = ""
    evaluateStudy: str = "detection"
    evaluateUse: Use = Use.TEST
    evaluateModel: str = ""
    evaluateOther: str = ""
    shownStudy: str = ""
