"""State of the training panel, saved with the scene, what follows from it, and the packages that it needs.

Annotations are stored in the project's folder.
"""

# Slicer's naming.
# ruff: noqa: N802, N815

from __future__ import annotations

import json
import math
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING

from slicer.i18n import tr as _
from slicer.parameterNodeWrapper import parameterNodeWrapper

from CACScoringLib.core.errors import CTError
from CACScoringLib.core.options import command_line
from CACScoringLib.panel.forms import Form, declaredBy
from CACScoringLib.panel.packages import TORCH_REQUIREMENTS, requirementsIn
from CACScoringLib.panel.parameters import Device, LabelledChoice

from ..cli.evaluate import EvaluateOptions
from ..project.project import Project
from ..training.settings import LoopSettings, RunOptions

if TYPE_CHECKING:
    from CACScoringLib.models.cards import ModelCard


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


class StudyChoice(LabelledChoice):
    """Studies of the page. Values are those of the command line, but for the comparison."""

    DETECTION = "detection", "Detection: which scans, arteries and lesions are found"
    ACCURACY = "accuracy", "Accuracy: agreement with reference scores"
    REPRODUCIBILITY = "reproducibility", "Reproducibility: two scans of each patient"
    HEART = "heart", "Heart: agreement of its outline with the true one"
    ABLATION = "ablation", "Ablation: contribution of each part of the method"
    COMPARISON = "comparison", "Comparison: scores of two models on the same scans"


@dataclass(frozen=True)
class TrainingChoice:
    """Choices of the training page that are no option of the command line by themselves.

    Attributes:
        network: What the network is to find.
        method: How the calcium map is learned.
        name: Name of the new model: lower-case letters, digits, dots, dashes and underscores.
    """

    network: Network = Network.SLICES
    method: TrainMethod = TrainMethod.SUPERVISED
    name: str = ""


@dataclass(frozen=True)
class ComparisonChoice:
    """Choice of the evaluation page that is no option of the command line by itself.

    Attributes:
        other: Model of the same network to compare with; empty for the bundled ones.
    """

    other: str = ""


TRAINING = Form(TrainingChoice, "train")
RUN = Form(RunOptions, "train", {"preset": Preset, "device": Device})
LOOP = Form(LoopSettings, "train")
EVALUATE = Form(EvaluateOptions, "evaluate", {"study": StudyChoice, "use": Use})
COMPARISON = Form(ComparisonChoice, "evaluate")
"""Choices and options whose parameters are made from their declarations; 0 leaves a setting of LOOP to the preset."""


@parameterNodeWrapper
class CACTrainingParameterNode(declaredBy(TRAINING, RUN, LOOP, EVALUATE, COMPARISON)):  # type: ignore[misc]
    """State of the training panel. Its base holds the choices and options of the forms.

    Attributes:
        projectFolder: Open project; empty for none.
        annotator: Name of the annotator; empty for none.
        scanId: Id of the open scan; empty for none.
        task: Annotation task.
        order: Order of the work list.
        blind: Hide names and suggestions.
        showSuggestion: Show predicted probabilities of slices.
        proposalModel: Name of the project's model for suggestions; empty for the bundled one.
        shownRun: Name of the selected training.
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
    trainPatience = 10
    shownRun: str = ""
    shownStudy: str = ""


SHORT_STEPS, VALIDATIONS = 1000, 5
"""Steps below which a training is validated VALIDATIONS times, so that a short one is validated at all."""

STARTS = {
    "territories": ("territories",),
    "slices": ("slices", "decomposition"),
    "decomposition": ("decomposition",),
    "lesions": ("lesions",),
}
"""Networks whose weights a training can start from."""


_UNPUBLISHED = (Network.TERRITORIES, Network.LESIONS)
"""Networks of no paper, whose larger preset is called "large"."""

_REAL_PRESETS = {
    **dict.fromkeys((Network.SLICES, Network.DECOMPOSITION), Preset.REAL_SLICES),
    Network.LESIONS: Preset.REAL_LESIONS,
    Network.TERRITORIES: Preset.REAL_HEARTS,
}
"""Preset that learns from annotated scans and digital patients, by network."""


def startsFor(network: Network, project: Project | None) -> list[tuple[str, str]]:
    """List CAC's, the user's and the project's models that a network can start from, by title and path of the card."""
    from CACScoringLib.models.cards import alternatives_folder, bundled_folder, user_folder

    comes = _("comes with CAC")
    places = {bundled_folder(): comes, alternatives_folder(): comes, user_folder(): _("installed")}
    if project is not None:
        places[project.models_folder] = _("of this project")
    return [
        (f"{card.name} ({card.network}, {origin})", path)
        for folder, origin in places.items()
        for path, card in cardsIn(folder).items()
        if card.network in STARTS[network.value]
    ]


def presetsFor(network: Network) -> list[tuple[str, str]]:
    """List the presets of a network by label and value."""
    large = _("Large") if network in _UNPUBLISHED else Preset.PAPER.label()
    real = _REAL_PRESETS[network]
    return [(Preset.COMPACT.label(), Preset.COMPACT.value), (large, Preset.PAPER.value), (real.label(), real.value)]


def presetOf(state: CACTrainingParameterNode) -> Preset:
    """Chosen preset; compact if the network does not have it."""
    available = [value for _label, value in presetsFor(state.trainNetwork)]
    return state.trainPreset if state.trainPreset.value in available else Preset.COMPACT


def learnsFromScans(state: CACTrainingParameterNode) -> bool:
    """True if the training takes scans and labels; False if it simulates digital patients alone."""
    return state.trainNetwork not in _UNPUBLISHED or presetOf(state) in (Preset.REAL_LESIONS, Preset.REAL_HEARTS)


def nameOf(state: CACTrainingParameterNode, names: Sequence[str]) -> str:
    """Name of the new model: the user's, or the first free one."""
    if state.trainName:
        return state.trainName
    return next(name for n in range(1, len(names) + 2) if (name := f"{state.trainNetwork.value}-{n}") not in names)


def argumentsOf(state: CACTrainingParameterNode, data: str, output: str) -> list[str]:
    """Arguments of `cac` for a training, without defaults, from the project's folder and the model's path."""
    options, loop = RUN.settings(state), LOOP.settings(state)
    options["data"] = (data, options["data"])
    if not learnsFromScans(state):
        options |= dict.fromkeys(("data", "start", "annotator"))
    options |= {"preset": _presetName(state), "output": output}
    changes = {"patience": patience} if (patience := loop.pop("patience")) else {}
    if loop["steps"] and loop["steps"] < SHORT_STEPS:
        changes["validate_every"] = math.ceil(loop["steps"] / VALIDATIONS)
    words = [*command_line(RunOptions, options), *command_line(LoopSettings, loop)]
    settings = ["--settings", json.dumps({"loop": changes})] if changes else []
    return ["train", state.trainNetwork.value, *words, *settings]


def methodOf(state: CACTrainingParameterNode) -> TrainMethod:
    """Training method of the calcium map; real slices have labels alone."""
    return TrainMethod.LABELS if presetOf(state) == Preset.REAL_SLICES else state.trainMethod


def lacksDigitalPatients(state: CACTrainingParameterNode, project: Project) -> bool:
    """True if the preset mixes real slices with digital patients, and none are chosen."""
    has_digital = bool(state.trainData) or any(scan.truth for scan in project.scans)
    return presetOf(state) == Preset.REAL_SLICES and not has_digital


def _presetName(state: CACTrainingParameterNode) -> str:
    """Preset of the command line for that of the page and, unless supervised, the method."""
    preset = presetOf(state)
    if state.trainNetwork in _UNPUBLISHED and preset == Preset.PAPER:
        return "large"
    sized = state.trainNetwork == Network.DECOMPOSITION and preset != Preset.REAL_SLICES
    if sized and state.trainMethod != TrainMethod.SUPERVISED:
        return f"{preset.value}-{state.trainMethod.value}"
    return preset.value


def commandsElsewhere(state: CACTrainingParameterNode, project: Project, name: str) -> str:
    """Commands of the same training for a copy of the project on another machine: on one device, and on two GPUs."""
    folder = project.folder.name
    arguments = argumentsOf(state, folder, f"{folder}/models/{name}")
    if "--start" in arguments:
        arguments[arguments.index("--start") + 1] = _placeElsewhere(Path(state.trainStart), project)
    place = arguments.index("--device")
    distributed = [*arguments[:place], *arguments[place + 2 :]]
    torchrun = [".venv/bin/torchrun", "--standalone", "--nproc-per-node=2", "-m", "CACTrainingLib.cli"]
    return f"{shlex.join(['./cac', *arguments])}\n\n{shlex.join([*torchrun, *distributed])}"


def _placeElsewhere(card: Path, project: Project) -> str:
    """Path of a card on another machine: in CAC's folder, in the project's, or else a copied file."""
    from CACScoringLib.models.cards import bundled_folder

    if bundled_folder() in card.parents:
        return f"CACScoring/CACScoringLib/Resources/Models/{card.relative_to(bundled_folder()).as_posix()}"
    return f"{project.folder.name}/models/{card.name}" if card.parent == project.models_folder else card.name


def isName(name: str) -> bool:
    """True if a name is valid for a model."""
    from CACScoringLib.models.cards import NAME

    return NAME.fullmatch(name) is not None


def modelNames(folder: Path) -> list[str]:
    """Names of the models and trainings in a folder."""
    cards = {path.stem for path in folder.glob("*.json")}
    return sorted(cards | {path.name.removesuffix(".training") for path in folder.glob("*.training")})


def cardsIn(folder: Path) -> dict[str, ModelCard]:
    """Read the cards in a folder, by path; unreadable ones are skipped."""
    from CACScoringLib.models.cards import read_card

    cards = {}
    for path in sorted(folder.glob("*.json")):
        try:
            cards[str(path)] = read_card(path)
        except CTError:
            continue
    return cards
