"""The command `models`: list, verify, export and install trained models."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from ..core.errors import CTError
from ..core.options import argument, option
from ..core.progress import Progress
from ..networks.configs import ESTIMATORS, ROLES, SCORING
from .options import Command, command, declare_actions

if TYPE_CHECKING:
    from ..models.cards import StoredModel


@dataclass(frozen=True)
class InstallOptions:
    """Install a model for `cac score --model`, or restore the one installed before it.

    Attributes:
        model: The card MODEL.json, its weights beside it, or the folder of a bundle; with --previous the model's name.
        overwrite: Replace an installed model of this name; the replaced model is kept.
        validation: Output of cac evaluate accuracy --before with this model, whose page you have read; the card keeps
            its verdict.
        previous: Undo the latest installation of the model of this name and restore the one that it replaced, if any.
    """

    model: str = argument(metavar="MODEL")
    overwrite: bool = False
    validation: Path | None = option(None, metavar="DIR")
    previous: bool = False


def _list(progress: Progress) -> None:
    """List the available models."""
    from ..models.cards import list_models
    from ..scoring.uncertainty import ScoreCalibration

    models = list_models()
    used = _used(models)
    for model in models:
        calibrated_on = model.card.calibration_as(ScoreCalibration).calibrated_on
        calibrated = "" if calibrated_on is None else f", calibrated on {calibrated_on}"
        verdict = ", without a verdict" if model.card.lacks_verdict else ""
        origin = f"{model.origin}{calibrated}{verdict}; {used[model.path]}"
        print(f"{model.card.name:<24} {model.card.network:<16} {model.card.preset:<10} {origin}")


def _used(models: Sequence[StoredModel]) -> dict[Path, str]:
    """Return by card whether `cac score` uses a model, and why."""
    from ..models.choice import ModelChoice, chosen_models

    selected = chosen_models(ModelChoice())
    used = {model.path for model in (selected.networks | selected.estimates).values()}
    reasons = {}
    for model in models:
        network, later = model.card.network, [m for m in models if m.card.name == model.card.name][-1]
        rivals = [m for m in models if m.card.network == network and m.origin in ("bundled", model.origin)]
        if model.path in used:
            reason = "used: comes with CAC, and --model names no other"
        elif later is not model:
            reason = "not used: yours of this name comes before it with --model"
        elif network in ESTIMATORS and (model.origin == "bundled" or len(rivals) == 1):
            reason = "used with --whole-scan"
        elif network not in SCORING and model.origin == "bundled":
            reason = f"used for {network}: comes with CAC"
        else:
            reason = f"used with --model {model.card.name} only"
        reasons[model.path] = reason
    return reasons


def _verify(progress: Progress) -> None:
    """Verify the models' files."""
    from ..models.cards import list_models, verify_model

    for model in list_models():
        verify_model(model.path)
        print(f"{model.card.name}: whole")


def _export(
    *,
    name: Annotated[str, argument(metavar="NAME")],
    bundle: Annotated[Path, option(metavar="DIR")],
    progress: Progress,
) -> None:
    """Write a model that scores scans as MONAI bundle.

    Args:
        name: The model's name, as `cac models list` shows it.
        bundle: New folder of the bundle.
        progress: Receiver of progress.
    """
    from ..core.errors import ModelError
    from ..models.bundle import write_bundle
    from ..models.cards import list_models

    models = {model.card.name: model for model in list_models()}
    if name not in models:
        raise ModelError(f"There is no model {name!r}. Installed: {', '.join(models)}.")
    write_bundle(models[name].path, bundle)
    print(f"Wrote the bundle {bundle}. {bundle / 'docs' / 'README.md'} names the commands that run it.")


def _extras_of_trial(options: InstallOptions) -> tuple[str, ...]:
    """Return the extras that the trial of a model needs."""
    from ..models.cards import read_card

    with suppress(CTError, KeyError):  # which the command reports
        if not options.previous:
            return tuple(dict.fromkeys(("torch", *ROLES[read_card(_card_path(options)).network].extras)))
    return ("torch",)


def _card_path(options: InstallOptions) -> Path:
    from ..models.bundle import card_in_bundle

    path = Path(options.model)
    return card_in_bundle(path) if path.is_dir() else path


def _install(options: InstallOptions, progress: Progress) -> None:
    if options.previous:
        _restore(options.model)
        return
    from ..models.cards import VERDICT, list_models
    from ..models.store import install_model
    from .model_trial import measure_on_sample

    model = install_model(_card_path(options), options.overwrite, options.validation, measure_on_sample)
    name, network = model.card.name, model.card.network
    estimate = f"--whole-scan {network} " if network in ESTIMATORS else ""
    print(f"Installed {name} for {network}. Use it with: cac score CT {estimate}--model {name} …")
    if any(model.card.name == name and model.origin != "user" for model in list_models()):
        print(f"CAC comes with another model named {name}. Yours is used with --model {name} only.")
    for sentence in model.card.validation.get(VERDICT, {}).get("sentences", ()):
        print(sentence)
    if model.card.lacks_verdict:
        print(
            "Warning: it was trained on your scans, and nothing shows that it scores better. Evaluate it, read the "
            "page, and install it again:\n"
            f"  cac evaluate accuracy --data REFERENCE --output AFTER --model {name} --before BEFORE\n"
            f"  cac models install {options.model} --validation AFTER --overwrite"
        )


def _restore(name: str) -> None:
    from ..models.cards import list_models, user_folder
    from ..models.store import TAKEN_OUT, roll_back

    model = roll_back(name)
    if model is not None:
        print(f"{name} is again the one installed before, SHA-256 {model.card.sha256[:16]}.")
    elif any(entry.card.name == name for entry in list_models()):
        print(f"{name} is again the one that comes with CAC.")
    else:
        print(f"{name} is no longer installed; there was no earlier one.")
    print(f"The removed model is kept in {user_folder() / TAKEN_OUT / name}.")


ACTIONS: dict[str, Command[Any]] = {
    "list": command(_list, (), "Interrupted."),
    "verify": command(_verify, ("torch",), "Interrupted."),
    "export": command(_export, ("torch",), "Interrupted."),
    "install": Command(InstallOptions, _install, _extras_of_trial, "Interrupted."),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's actions."""
    declare_actions(parser, ACTIONS)
