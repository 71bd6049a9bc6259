"""State of the training panel, saved with the scene. Annotations are stored in the project's folder."""

# Slicer's naming.
# ruff: noqa: N815

from __future__ import annotations

from enum import Enum
from typing import Annotated

from slicer.i18n import tr as _
from slicer.parameterNodeWrapper import Minimum, parameterNodeWrapper

from CACScoringLib.panel.parameters import Device


class Task(Enum):
    """Annotation task."""

    SLICES = "slices"
    REGIONS = "regions"
    HEART = "heart"


class Order(Enum):
    """Order of the work list. Values are those of `work_list`."""

    ADDED = "added"
    UNCERTAIN = "uncertain"

    def label(self) -> str:
        return {Order.ADDED: _("As added"), Order.UNCERTAIN: _("Least certain first")}[self]


class Network(Enum):
    """Network to train. Values are those of the command line."""

    HEART = "heart"
    TERRITORIES = "territories"
    SLICES = "slices"
    DECOMPOSITION = "decomposition"
    LESIONS = "lesions"

    def label(self) -> str:
        return {
            Network.HEART: _("Heart"),
            Network.TERRITORIES: _("Heart and territories"),
            Network.SLICES: _("Slices"),
            Network.DECOMPOSITION: _("Calcium map"),
            Network.LESIONS: _("Lesions"),
        }[self]


class TrainMethod(Enum):
    """Training method of the calcium map. Values are those of the command line."""

    SUPERVISED = "supervised"
    LABELS = "labels"
    CYCLEGAN = "cyclegan"

    def label(self) -> str:
        return {
            TrainMethod.SUPERVISED: _("From known calcium maps (supervised)"),
            TrainMethod.LABELS: _("From slice labels alone"),
            TrainMethod.CYCLEGAN: _("From slice labels, with discriminators (CycleGAN)"),
        }[self]


class Preset(Enum):
    """Preset of a training. Values are those of the command line."""

    COMPACT = "compact"
    PAPER = "paper"
    REAL_SLICES = "real-slices"
    REAL_LESIONS = "real-lesions"

    def label(self) -> str:
        return {
            Preset.COMPACT: _("Compact"),
            Preset.PAPER: _("As published (large)"),
            Preset.REAL_SLICES: _("Real slices and digital patients"),
            Preset.REAL_LESIONS: _("Painted lesions and digital patients"),
        }[self]


class Use(Enum):
    """Use of the scans that a study takes. Values are those of the project."""

    TEST = "test"
    VALIDATION = "validation"
    TRAINING = "training"

    def label(self) -> str:
        return {Use.TEST: _("Test"), Use.VALIDATION: _("Validation"), Use.TRAINING: _("Training")}[self]


@parameterNodeWrapper
class CACTrainingParameterNode:
    """State of the training panel.

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
        trainMinutes: Time limit in minutes; 0 for none.
        trainSteps: Number of steps; 0 for the preset's.
        trainPatience: Validations without improvement before training stops; 0 for the preset's.
        trainAnnotator: Annotator whose labels are used; empty for all.
        trainFolder: Folder of further data; empty for none.
        shownRun: Name of the selected training.
        evaluateStudy: Name of the study.
        evaluateUse: Use of the scans to evaluate.
        evaluateModel: Path of a card or name of a model; empty for none.
        evaluateOther: Path of a card or name of the model to compare with; empty for none.
        shownStudy: Name of the selected study.
    """

    projectFolder: str = ""
    annotator: str = ""
    scanId: str = ""
    task: Task = Task.SLICES
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
    trainMinutes: Annotated[float, Minimum(0)] = 0.0
    trainSteps: Annotated[int, Minimum(0)] = 0
    trainPatience: Annotated[int, Minimum(0)] = 10
    trainAnnotator: str = ""
    trainFolder: str = ""
    shownRun: str = ""
    evaluateStudy: str = "detection"
    evaluateUse: Use = Use.TEST
    evaluateModel: str = ""
    evaluateOther: str = ""
    shownStudy: str = ""
