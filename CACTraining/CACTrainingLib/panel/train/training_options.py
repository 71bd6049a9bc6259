"""What the page of training asks for, as arguments of `cac train`, and what it needs to run."""

# Slicer's naming.
# ruff: noqa: N802

from __future__ import annotations

import json
import math
import shlex
from collections.abc import Sequence
from pathlib import Path

from slicer.i18n import tr as _

from ...project.project import Project
from ..model_cards import cardsIn
from ..parameters import CACTrainingParameterNode, Network, Preset, TrainMethod

LOOP_FIELDS = ("minutes", "steps", "patience")
"""Of `LoopSettings`, in the order of the form. Each is a parameter of the panel's state, where 0 leaves it as it is."""

SHORT_STEPS, VALIDATIONS = 1000, 5
"""A training of fewer steps is validated so often; otherwise none might come before its end."""

STARTS = {
    "heart": ("heart",),
    "territories": (),
    "slices": ("slices", "decomposition"),
    "decomposition": ("decomposition",),
}
"""Networks whose weights a training can begin with."""


def startsFor(network: Network, project: Project | None) -> list[tuple[str, str]]:
    """Models that fit a network, by name and place, and paths of their cards: CAC's, the user's, and the project's.

    Cards that cannot be read are left out, for nothing can begin with them.
    """
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


def parameterOf(name: str) -> str:
    """The parameter that holds a setting of a training."""
    return f"train{name.capitalize()}"


def nameOf(state: CACTrainingParameterNode, names: Sequence[str]) -> str:
    """The name of the new model: the one given, or the first that is free."""
    if state.trainName:
        return state.trainName
    return next(name for n in range(1, len(names) + 2) if (name := f"{state.trainNetwork.value}-{n}") not in names)


def argumentsOf(state: CACTrainingParameterNode, data: str, output: str) -> list[str]:
    """Arguments of `cac`, without those that are defaults. data: the project's folder. output: the model's path."""
    arguments, scans = ["train", state.trainNetwork.value], state.trainNetwork.learnsFromScans
    if scans:
        arguments += ["--data", data]
        if state.trainFolder:
            arguments += ["--data", state.trainFolder]
    arguments += ["--output", output, "--preset", _presetOf(state), "--device", state.trainDevice.value]
    options = {f"--{name}": getattr(state, parameterOf(name)) for name in ("minutes", "steps")}
    if scans:
        options = {"--start": state.trainStart, "--annotator": state.trainAnnotator, **options}
    for option, value in options.items():
        if value:
            arguments += [option, f"{value:g}" if isinstance(value, float) else str(value)]
    loop = {"patience": state.trainPatience} if state.trainPatience else {}
    if 0 < state.trainSteps < SHORT_STEPS:
        loop["validate_every"] = math.ceil(state.trainSteps / VALIDATIONS)
    if loop:
        arguments += ["--settings", json.dumps({"loop": loop})]
    return arguments


def _presetOf(state: CACTrainingParameterNode) -> str:
    """The command line's name of the size, and of the method where it is not the usual one."""
    if state.trainNetwork == Network.TERRITORIES and state.trainPreset == Preset.PAPER:
        return "large"  # nobody has published it
    if state.trainNetwork == Network.DECOMPOSITION and state.trainMethod != TrainMethod.SUPERVISED:
        return f"{state.trainPreset.value}-{state.trainMethod.value}"
    return state.trainPreset.value


def commandsElsewhere(state: CACTrainingParameterNode, project: Project, name: str) -> str:
    """The same training as commands for a machine to which the project's folder is copied: alone, and on two GPUs."""
    folder = project.folder.name
    arguments = argumentsOf(state, folder, f"{folder}/models/{name}")
    if "--start" in arguments:
        arguments[arguments.index("--start") + 1] = _placeElsewhere(Path(state.trainStart), project)
    place = arguments.index("--device")
    distributed = [*arguments[:place], *arguments[place + 2 :]]
    torchrun = [".venv/bin/torchrun", "--standalone", "--nproc-per-node=2", "-m", "CACTrainingLib.cli"]
    return f"{shlex.join(['./cac', *arguments])}\n\n{shlex.join([*torchrun, *distributed])}"


def _placeElsewhere(card: Path, project: Project) -> str:
    """Of a model beside the project's folder, or in CAC's own; others have to be copied too."""
    from CACScoringLib.models.cards import bundled_folder

    if bundled_folder() in card.parents:
        return f"CACScoring/CACScoringLib/Resources/Models/{card.relative_to(bundled_folder()).as_posix()}"
    return f"{project.folder.name}/models/{card.name}" if card.parent == project.models_folder else card.name


def isName(name: str) -> bool:
    """Whether a model can be called so."""
    from CACScoringLib.models.cards import NAME

    return NAME.fullmatch(name) is not None


def modelNames(folder: Path) -> list[str]:
    """Names that are taken in a folder of models, by models and by trainings."""
    cards = {path.stem for path in folder.glob("*.json")}
    return sorted(cards | {path.name.removesuffix(".training") for path in folder.glob("*.training")})
