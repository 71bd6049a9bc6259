"""Storage of models: save, install, roll back, calibrate.

Two files cannot be exchanged at once. New weights are therefore first written beside the old ones as
`NAME@HASH.safetensors`, where the new card finds them (`cards.weights_of`). The exchange is the moment in which the new
card replaces the old one; then the weights take their final name. A process killed between any two of these steps
leaves one of the two models undamaged.

A replaced model stays in the user's folder, in `taken-out/NAME/N/`; `roll_back` exchanges it with the installed one.
"""

from __future__ import annotations

import contextlib
import dataclasses
import glob
import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from ..core.errors import ModelError
from ..core.files import LEFT_SECONDS, atomic_folder, partial_folder, read_json, remove_partial, write_bytes_atomically
from ..networks.configs import SCORING
from . import cards
from .cards import (
    NAME,
    SAMPLE,
    VERDICT,
    WEIGHTS_ENDING,
    Calibration,
    LoadedModel,
    ModelCard,
    StoredModel,
    read_card,
    read_network,
    read_weights,
    untrained_network,
    user_folder,
    verify_model,
    waiting_weights,
    weights_of,
)
from .inference import prepared

if TYPE_CHECKING:
    import torch

TAKEN_OUT = "taken-out"
"""Folder of replaced and rolled back models, in the user's folder."""


def save_model(network: torch.nn.Module, card: ModelCard, folder: Path, overwrite: bool = False) -> Path:
    """Write a network and its card, the card last, so that no model is ever half written.

    Weights of convolutions and dense layers are stored in 16 bits: measure the card's metrics on the loaded model.
    Returns the card's path. Raises ModelError when the name is bad or taken, or a weight is no
    finite 16-bit number.
    """
    from safetensors.torch import save

    tensors = {}
    for key, tensor in network.state_dict().items():
        tensor = tensor.detach().cpu()
        if tensor.is_floating_point():
            # Normalisation keeps its precision: it is small, and its variances may exceed the 16-bit range.
            tensor = tensor.half() if tensor.ndim > 1 else tensor.float()
            if not tensor.isfinite().all():
                raise ModelError(
                    f"{key} holds values that are not finite 16-bit numbers. Check whether the training diverged."
                )
        tensors[key] = tensor.contiguous()
    data = save(tensors)
    card = dataclasses.replace(_with_graph(card), sha256=hashlib.sha256(data).hexdigest())
    return _write(card, data, folder, overwrite)


def _with_graph(card: ModelCard) -> ModelCard:
    """Return a card with its network's graph, if the network scores scans. Raises ModelError."""
    if card.network not in SCORING:
        return card
    from .graph import write_graph

    return dataclasses.replace(card, graph=write_graph(untrained_network(card)))


def install_model(
    path: Path,
    overwrite: bool = False,
    validation: Path | None = None,
    check: Callable[[LoadedModel], dict[str, object]] | None = None,
) -> StoredModel:
    """Verify a model and copy it into the user's folder. A model of its name is archived (`roll_back`).

    The copy's graph is written anew by this version of CAC; that of the card is not read.

    Args:
        path: The card.
        overwrite: True to replace another model of its name.
        validation: Output of `cac evaluate accuracy --before` with this model, whose verdict the card records; None
            keeps that of an installed model of these weights and this calibration.
        check: Tries the model before it is installed, and returns entries of the card's validation; raises a CTError
            to refuse it.

    Raises:
        ModelError: The model is damaged or not for this version, another one of this name is installed and overwrite
            is False, or the validation is not one of this model; then nothing is changed.
        CTError: The check refuses the model; nothing is changed.
    """
    card, network = read_network(path)
    verdict = _installed_verdict(card) if validation is None else read_verdict(validation, card)
    if verdict is not None:
        card = dataclasses.replace(card, validation={**card.validation, VERDICT: verdict})
    if check is not None:
        measured = check(LoadedModel(card, prepared(network, "cpu")))
        card = dataclasses.replace(card, validation={**card.validation, **measured})
    return _install(_with_graph(card), path, overwrite)


def read_verdict(folder: Path, card: ModelCard) -> dict[str, object]:
    """Read the verdict on a model: title, date and sentences of an output of `cac evaluate accuracy --before`.

    Raises ModelError if the folder holds none, or that of other weights.
    """
    try:
        study = read_json(folder / "study.json")
        sections = {section["name"]: section["text"] for section in study["sections"]}
        facts, sentences = study["facts"], sections[VERDICT][:-1]
        verdict = {"title": study["title"], "date": facts["Date"], "sentences": sentences}
        models = facts["Models"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(
            f"{folder} is no output of cac evaluate accuracy --before ({type(error).__name__}: {error}). Evaluate the "
            f"model first: cac evaluate accuracy --data REFERENCE --output {folder} --model {card.name}.json "
            "--before BEFORE."
        ) from error
    if card.sha256[:16] not in models:
        raise ModelError(f"{folder} is an evaluation of other models ({models}), not of this {card.name}.")
    return verdict


def _installed_verdict(card: ModelCard) -> object | None:
    """Return the verdict on the installed model of a card's name, if it has its weights and calibration."""
    installed = _undamaged_card(user_folder() / f"{_valid_name(card.name)}.json")
    if installed is None or (installed.sha256, installed.calibration) != (card.sha256, card.calibration):
        return None
    return installed.validation.get(VERDICT)


def install_copy(path: Path, changed: ModelCard) -> StoredModel:
    """Verify a model and install its weights under another name, with another card.

    A model of that name is archived (`roll_back`).

    Args:
        path: Card of the model.
        changed: The copy's card.

    Raises:
        ModelError: One of the models is damaged, or the name is another's; then nothing is changed.
    """
    card = verify_model(path)
    _valid_name(changed.name)
    if (cards.bundled_folder() / f"{changed.name}.json").exists() or changed.name == card.name:
        raise ModelError(f"{changed.name} is the name of another model. Choose another one.")
    return _install(dataclasses.replace(changed, sha256=card.sha256), path, overwrite=True)


def _install(card: ModelCard, path: Path, overwrite: bool) -> StoredModel:
    """Install a card with the weights beside `path`, a card with the same hash."""
    target = user_folder() / f"{card.name}.json"
    try:
        data = read_weights(path, card.sha256)
        _remove_partial_files(target)
        if target.exists():
            if _undamaged_card(target) == card:
                return StoredModel(card, target, "user")
            if overwrite:
                _archive(target)
    except OSError as error:
        raise ModelError(f"{card.name} cannot be installed, and nothing was changed: {error}.") from error
    return StoredModel(card, _write(card, data, user_folder(), overwrite), "user")


def roll_back(name: str) -> StoredModel | None:
    """Exchange the installed model of this name with the one that it replaced, and return that, verified.

    If it replaced none, the model is removed from the user's folder, and the result is None. A second call undoes the
    first. Raises ModelError, with nothing changed, if there is no such model, or the earlier one is damaged or not for
    this version.
    """
    target = user_folder() / f"{_valid_name(name)}.json"
    present = _undamaged_card(target)
    earlier = next((c for c in _earlier_cards(target) if present is None or _undamaged_card(c) != present), None)
    if earlier is None and not target.exists():
        names = ", ".join(path.stem for path in sorted(user_folder().glob("*.json"))) or "none"
        bundled = (cards.bundled_folder() / f"{name}.json").exists()
        reason = f"{name} comes with CAC and cannot be rolled back. " if bundled else ""
        raise ModelError(f"{reason}You have not installed a model {name!r}. Installed by you: {names}.")
    try:
        if earlier is None:
            _archive(target)
            _remove(target)
            return None
        card = verify_model(earlier)
        data = read_weights(earlier, card.sha256)
        _archive(target)
        _exchange(card, data, target)
    except ModelError as error:
        raise ModelError(f"The earlier {name} cannot be put back, and nothing was changed. {error}") from error
    except OSError as error:
        raise ModelError(f"{name} cannot be rolled back in {user_folder()}: {error}. Try again.") from error
    return StoredModel(card, target, "user")


def update_card(path: Path, calibration: Calibration, validation: dict[str, object]) -> Path:
    """Add to a model's calibration and validation, replacing entries of the same name; return the card's path.

    What no longer holds is removed (`calibrated`). Raises ModelError.
    """
    card = verify_model(path)
    changed = calibrated(card, {**card.calibration, **calibration})
    return _write_card(dataclasses.replace(changed, validation={**changed.validation, **validation}), path)


def calibrated(card: ModelCard, calibration: Calibration) -> ModelCard:
    """Return a card with another calibration, without what no longer holds if scores change by it.

    That are the figures of its trial, and the repeatability limits but those of a reader, which depend on no
    calibration; limits of the automatic clinical score depend on `candidates` alone.
    """
    changed = dataclasses.replace(card, calibration=calibration)
    before, after = card.scored_by, changed.scored_by
    if before == after:
        return changed
    validation = {name: part for name, part in card.validation.items() if name != SAMPLE}
    stale = {"decomposition"} if before.get("candidates") == after.get("candidates") else {"decomposition", "automatic"}
    study = card.repeatability
    if study is not None and isinstance(limits := study.get("limits"), dict):
        study = {**study, "limits": {kind: part for kind, part in limits.items() if kind not in stale}}
    return dataclasses.replace(changed, validation=validation, repeatability=study)


def store_repeatability(path: Path, repeatability: dict[str, object] | None) -> Path:
    """Replace the result of a scan-rescan study on a card; return the card's path.

    Args:
        path: Card of the decomposition.
        repeatability: Stored `repeatability.Repeatability`; None removes it.

    Raises:
        ModelError: The model is missing, damaged or does not fit.
    """
    card = verify_model(path)
    if card.network != "decomposition":
        raise ModelError(
            f"{card.name} is a model for {card.network!r}; repeatability limits are stored with the model of the "
            "calcium map."
        )
    changed = dataclasses.replace(card, repeatability=repeatability)
    return _write_card(changed, path)


def _write(card: ModelCard, data: bytes, folder: Path, overwrite: bool) -> Path:
    path = folder / f"{_valid_name(card.name)}.json"
    if path.exists() and not overwrite:
        raise ModelError(f"{path} exists already. Choose another name, or overwrite it.")
    try:
        _exchange(card, data, path)
    except OSError as error:
        raise ModelError(f"The model cannot be written to {folder}: {error.strerror}.") from error
    return path


def _write_card(card: ModelCard, path: Path) -> Path:
    try:
        _remove_partial_files(path)
        write_bytes_atomically(path, card.to_json().encode())
    except OSError as error:
        raise ModelError(f"The card cannot be written to {path.parent}: {error.strerror}.") from error
    return path


def _valid_name(name: str) -> str:
    if not NAME.fullmatch(name):
        message = f"{name!r} is not a valid model name: use lower-case letters, digits, dots, dashes and underscores."
        raise ModelError(message)
    return name


def _undamaged_card(path: Path) -> ModelCard | None:
    """Return the card of an undamaged model, whether or not this version can use it, or None."""
    try:
        card = read_card(path)
        data = read_weights(path, card.sha256)
    except (ModelError, OSError):
        return None
    return card if hashlib.sha256(data).hexdigest() == card.sha256 else None


def _earlier_cards(target: Path) -> list[Path]:
    """Return cards of the replaced and rolled back models of a name, the latest first."""
    folders = [path for path in (user_folder() / TAKEN_OUT / target.stem).glob("*") if path.name.isdecimal()]
    return [folder / target.name for folder in sorted(folders, key=lambda folder: int(folder.name), reverse=True)]


def _archive(target: Path) -> None:
    """Copy an undamaged installed model to its archive, and remove all but the latest copy of those before."""
    card = _undamaged_card(target)
    earlier = _earlier_cards(target)
    if card is None or (earlier and _undamaged_card(earlier[0]) == card):  # archived by a process that was killed
        return
    archive = user_folder() / TAKEN_OUT / card.name
    archive.mkdir(parents=True, exist_ok=True)
    remove_partial(archive, LEFT_SECONDS)
    number = int(earlier[0].parent.name) + 1 if earlier else 1
    with atomic_folder(archive / str(number)) as folder:
        for path in (target, weights_of(target, card.sha256)):
            shutil.copyfile(path, folder / path.name)
    for copy in earlier[1:]:
        with partial_folder(copy.parent) as removed:  # renamed first, so that no half copy has a number
            copy.parent.rename(removed / copy.parent.name)


def _exchange(card: ModelCard, weights: bytes, path: Path) -> None:
    """Write a model in place of one of its name; the moment of exchange is the writing of the card at `path`.

    Raises OSError.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove_partial_files(path)
    waiting = waiting_weights(path, card.sha256)
    write_bytes_atomically(waiting, weights)
    write_bytes_atomically(path, card.to_json().encode())
    # The new model is now in place, and undamaged even if tidying fails, as on Windows while a file is open.
    with contextlib.suppress(OSError):
        waiting.replace(path.with_suffix(WEIGHTS_ENDING))
        for weights_file in _all_waiting_weights(path):
            weights_file.unlink()


def _remove(path: Path) -> None:
    """Remove a model, the card first, without which there is no model. Raises OSError."""
    for file in (path, path.with_suffix(WEIGHTS_ENDING), *_all_waiting_weights(path)):
        file.unlink(missing_ok=True)


def _remove_partial_files(path: Path) -> None:
    """Remove half-written cards and weights of killed processes beside a card."""
    remove_partial(path.parent, LEFT_SECONDS, f"{glob.escape(path.stem)}*")


def _all_waiting_weights(path: Path) -> list[Path]:
    return sorted(path.parent.glob(f"{path.stem}@*{WEIGHTS_ENDING}"))
