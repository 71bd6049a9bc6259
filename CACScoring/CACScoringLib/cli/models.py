"""The command `models`: list, verify, install and roll back trained models."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..core.progress import Progress


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's actions."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    for name, text in (("list", "list the available models"), ("verify", "verify the models' files")):
        action = actions.add_parser(name, help=text, description=text)
        action.set_defaults(run={"list": _list, "verify": _verify}[name])
    install = actions.add_parser("install", help="install a model for `cac score --model`")
    install.add_argument("card", type=Path, metavar="MODEL.json", help="the model's card, with its weights beside it")
    install.add_argument(
        "--overwrite", action="store_true", help="replace an installed model of this name; the replaced model is kept"
    )
    install.set_defaults(run=_install)
    text = "undo the latest installation of a model and restore the one that it replaced, if any"
    rollback = actions.add_parser("rollback", help=text, description=text)
    rollback.add_argument("name", metavar="NAME", help="name of a model that you installed (see cac models list)")
    rollback.set_defaults(run=_roll_back)
    for action in actions.choices.values():
        action.set_defaults(interrupted="Interrupted.")


def _list(options: argparse.Namespace, progress: Progress) -> None:
    from ..models.cards import list_models
    from ..scoring.uncertainty import CalibratedOn

    for model in list_models():
        known = CalibratedOn.stored(model.card.calibration)
        calibrated = "" if known is None else f", calibrated on {known}"
        print(f"{model.card.name:<24} {model.card.network:<16} {model.card.preset:<10} {model.origin}{calibrated}")


def _verify(options: argparse.Namespace, progress: Progress) -> None:
    from ..models.cards import list_models, verify_model

    for model in list_models():
        verify_model(model.path)
        print(f"{model.card.name}: whole")


def _install(options: argparse.Namespace, progress: Progress) -> None:
    from ..models.cards import install_model
    from ..whole_scan.estimates import ESTIMATORS

    model = install_model(options.card, options.overwrite)
    name, network = model.card.name, model.card.network
    estimate = f"--whole-scan {network} " if network in ESTIMATORS else ""
    print(f"Installed {name} for {network}. Use it with: cac score CT {estimate}--model {name} …")


def _roll_back(options: argparse.Namespace, progress: Progress) -> None:
    from ..models.cards import TAKEN_OUT, list_models, roll_back, user_folder

    model = roll_back(options.name)
    kept = user_folder() / TAKEN_OUT / options.name
    if model is not None:
        print(f"{model.card.name} is again the one installed before, SHA-256 {model.card.sha256[:16]}.")
    elif any(other.card.name == options.name for other in list_models()):
        print(f"{options.name} is again the one that comes with CAC.")
    else:
        print(f"{options.name} is no longer installed; there was no earlier one.")
    print(f"The removed model is kept in {kept}.")
