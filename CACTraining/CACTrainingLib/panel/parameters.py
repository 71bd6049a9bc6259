"""The training panel's state, which is saved with the scene. Annotations are in the project's folder, never here."""

# Slicer's naming.
# ruff: noqa: N802, N815

from __future__ import annotations

from enum import Enum
from typing import Annotated

from slicer.i18n import tr as _
from slicer.parameterNodeWrapper import Minimum, parameterNodeWrapper

from CACScoringLib.panel.parameters import Device


class Task(Enum):
    """What is annotated."""

    SLICES = "slices"
    REGIONS = "regions"
    HEART = "heart"


class Order(Enum):
    """In which order scans are offered. The value is that of `work_list`."""

    ADDED = "added"
    UNCERTAIN = "uncertain"

    def label(self) -> str:
        return {Order.ADDED: _("As added"), Order.UNCERTAIN: _("Least certain first")}[self]


class Network(Enum):
    """What is trained. The value is the command line's."""

    HEART = "heart"
    TERRITORIES = "territories"
    SLICES = "slices"
    DECOMPOSITION = "decomposition"

    def label(self) -> str:
        return {
            Network.HEART: _("Heart"),
            Network.TERRITORIES: _("Heart and territories"),
            Network.SLICES: _("Slices"),
            Network.DECOMPOSITION: _("Calcium map"),
        }[self]

    @property
    def learnsFromScans(self) -> bool:
        """Whether its training takes scans and labels; else it makes digital patients of its own."""
        return self != Network.TERRITORIES


class TrainMethod(Enum):
    """How the calcium map is learned. The value is the command line's."""

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
    """Size of the network. The value is the command line's."""

    COMPACT = "compact"
    PAPER = "paper"

    def label(self) -> str:
        return {Preset.COMPACT: _("Compact"), Preset.PAPER: _("As published (large)")}[self]


class Use(Enum):
    """Which scans of the project a study looks at. The value is the project's."""

    TEST = "test"
    VALIDATION = "validation"
    TRAINING = "training"

    def label(self) -> str:
        return {Use.TEST: _("Test"), Use.VALIDATION: _("Validation"), Use.TRAINING: _("Training")}[self]


@parameterNodeWrapper
class CACTrainingParameterNode:
    """What was chosen.

    projectFolder, annotator, scanId: what is open; empty for none. proposalModel: name of the model of the project that
    suggestions are by; empty for the one that comes with CAC. trainStart: path of a card or a model's name to
    start from; trainName: of the model that is made. trainMinutes, trainSteps: 0 for no limit and for the preset's.
    trainAnnotator: whose labels to learn from; empty for all. trainFolder: further data. shownRun, shownStudy: names.
    evaluateModel, evaluateOther: paths of cards or names; empty for none.
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
