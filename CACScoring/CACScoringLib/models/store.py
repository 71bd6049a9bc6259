"""Models written to disk: saved, installed, rolled back, calibrated.

Two files cannot be exchanged at once. Therefore new weights first lie beside the old ones as `NAME@HASH.safetensors`,
where the new card finds them (`cards.weights_of`); the exchange is the moment in which the new card takes the old
one's place. Then the weights take their own name. Whoever is ended between any two of these steps leaves one of the
two models whole.

The model that was installed before stays in the user's folder, in `taken-out/NAME/N/`; `roll_back` exchanges it with
the installed one.
"""

from __future__ import annotations

import contextlib
import dataclasses
import glob
import hashlib
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from ..core.files import LEFT_SECONDS, atomic_folder, partial_folder, remove_partial, write_bytes_atomically
from ..networks.configs import SCORING_CONFIGS
from . import cards
from .cards import (
    NAME,
    WEIGHTS_ENDING,
    Calibration,
    ModelCard,
    ModelError,
    StoredModel,
    read_card,
    read_network,
    untrained_network,
    user_folder,
    verify_model,
    waiting_weights,
    weights_of,
)

if TYPE_CHECKING:
    import torch

TAKEN_OUT = "taken-out"
"""Folder, in the user's one, of models that were replaced or rolled back."""


def save_model(network: torch.nn.Module, card: ModelCard, folder: Path, overwrite: bool = False) -> Path:
    """Write a network and its card; the card comes last, so that no half-written model is ever found.

    Weights of convolutions and dense layers are halved to 16 bits, the rest stays: measure the metrics on the card on
    the model as loaded. Returns the card's path. Raises ModelError when the name is bad or taken, or a weight is no
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
    if card.network not in SCORING_CONFIGS:
        return card
    from .graph import write_graph

    return dataclasses.replace(card, graph=write_graph(untrained_network(card)))


def install_model(path: Path, overwrite: bool = False) -> StoredModel:
    """Verify a model and copy it into the user's folder. One of its name that it replaces is kept (`roll_back`).

    The copy's graph is written anew by this version of CAC; that of the card is not read.

    path: the card. Raises ModelError when it is damaged or not for this version, or when another model of this name is
    installed and overwrite is False; then nothing is changed.
    """
    card, _ = read_network(path)
    return _install(_with_graph(card), path, overwrite)


def install_copy(path: Path, changed: ModelCard) -> StoredModel:
    """Verify a model and install its weights under another name, with another card. One of that name that it replaces
    is kept (`roll_back`).

    Args:
        path: Card of the model.
        changed: The copy's card.

    Raises:
        ModelError: One of the models is damaged, or the name is another's; then nothing is changed.
    """
    card = verify_model(path)
    _checked(changed.name)
    if (cards.bundled_folder() / f"{changed.name}.json").exists() or changed.name == card.name:
        raise ModelError(f"{changed.name} is the name of another model. Choose another one.")
    return _install(dataclasses.replace(changed, sha256=card.sha256), path, overwrite=True)


def _install(card: ModelCard, path: Path, overwrite: bool) -> StoredModel:
    """path: where the weights lie beside, of a card with the same ones."""
    target = user_folder() / f"{card.name}.json"
    try:
        data = weights_of(path, card.sha256).read_bytes()
        _tidy(target)
        if target.exists():
            if _whole(target) == card:
                return StoredModel(card, target, "user")
            if overwrite:
                _keep(target)
    except OSError as error:
        raise ModelError(f"{card.name} cannot be installed, and nothing was changed: {error}.") from error
    return StoredModel(card, _write(card, data, user_folder(), overwrite), "user")


def roll_back(name: str) -> StoredModel | None:
    """Exchange the installed model of this name with the one that it replaced, which is verified and returned.

    Where it replaced none, the model leaves the user's folder, and the result is None. Called again, it undoes that.
    Raises ModelError when there is no such model, or the earlier one is not whole or not for this version; then nothing
    is changed.
    """
    target = user_folder() / f"{_checked(name)}.json"
    present = _whole(target)
    earlier = next((c for c in _taken_out(target) if present is None or _whole(c) != present), None)
    if earlier is None and not target.exists():
        own = ", ".join(path.stem for path in sorted(user_folder().glob("*.json"))) or "none"
        bundled = (cards.bundled_folder() / f"{name}.json").exists()
        comes = f"{name} comes with CAC and cannot be rolled back. " if bundled else ""
        raise ModelError(f"{comes}You have not installed a model {name!r}. Installed by you: {own}.")
    try:
        card = earlier and verify_model(earlier)
        data = card and weights_of(earlier, card.sha256).read_bytes()
        _keep(target)
        if card is None:
            _remove(target)
            return None
        _put(card, data, target)
    except ModelError as error:
        raise ModelError(f"The earlier {name} cannot be put back, and nothing was changed. {error}") from error
    except OSError as error:
        raise ModelError(f"{name} cannot be rolled back in {user_folder()}: {error}. Try again.") from error
    return StoredModel(card, target, "user")


def update_card(path: Path, calibration: Calibration, validation: dict[str, object]) -> Path:
    """Add to a model's calibration and validation, replacing entries of the same name; returns the card's path.

    Limits of repeatability stay: they record the models, settings and evidence that they hold for, so that
    `scoring.comparison` applies no others, and those of a reader depend on none of these. Raises ModelError.
    """
    card = verify_model(path)
    changed = dataclasses.replace(
        card, calibration={**card.calibration, **calibration}, validation={**card.validation, **validation}
    )
    return _write_card(changed, path)


def store_repeatability(path: Path, repeatability: dict[str, object] | None) -> Path:
    """Put the outcome of a scan-rescan study on a card, in place of an earlier one; returns the card's path.

    Args:
        path: Card of the decomposition.
        repeatability: See `repeatability.Repeatability`, which it is read as; None removes it.

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
    path = folder / f"{_checked(card.name)}.json"
    if path.exists() and not overwrite:
        raise ModelError(f"{path} exists already. Choose another name, or overwrite it.")
    try:
        _put(card, data, path)
    except OSError as error:
        raise ModelError(f"The model cannot be written to {folder}: {error.strerror}.") from error
    return path


def _write_card(card: ModelCard, path: Path) -> Path:
    try:
        _tidy(path)
        write_bytes_atomically(path, card.to_json().encode())
    except OSError as error:
        raise ModelError(f"The card cannot be written to {path.parent}: {error.strerror}.") from error
    return path


def _checked(name: str) -> str:
    if not NAME.fullmatch(name):
        message = f"{name!r} is not a valid model name: use lower-case letters, digits, dots, dashes and underscores."
        raise ModelError(message)
    return name


def _whole(path: Path) -> ModelCard | None:
    """The card of a model whose files are whole, whether or not this version can use it; else None."""
    try:
        card = read_card(path)
        data = weights_of(path, card.sha256).read_bytes()
    except (ModelError, OSError):
        return None
    return card if hashlib.sha256(data).hexdigest() == card.sha256 else None


def _taken_out(target: Path) -> list[Path]:
    """Cards of the models of a name that were replaced or rolled back, the latest first."""
    folders = [path for path in (user_folder() / TAKEN_OUT / target.stem).glob("*") if path.name.isdecimal()]
    return [folder / target.name for folder in sorted(folders, key=lambda folder: int(folder.name), reverse=True)]


def _keep(target: Path) -> None:
    """Copy an installed model that is whole, so that it can be put back; of those copied before, the latest stays."""
    card = _whole(target)
    before = _taken_out(target)
    if card is None or (before and _whole(before[0]) == card):  # a process was ended after this step
        return
    place = user_folder() / TAKEN_OUT / card.name
    place.mkdir(parents=True, exist_ok=True)
    remove_partial(place, LEFT_SECONDS)
    number = int(before[0].parent.name) + 1 if before else 1
    with atomic_folder(place / str(number)) as folder:
        for path in (target, weights_of(target, card.sha256)):
            shutil.copyfile(path, folder / path.name)
    for earlier in before[1:]:
        with partial_folder(earlier.parent) as leaving:  # it first loses its number: half of one is no model
            earlier.parent.rename(leaving / earlier.parent.name)


def _put(card: ModelCard, weights: bytes, path: Path) -> None:
    """Write a model, in place of one of its name. path: of its card, before which the old model is there, then the new.

    Raises OSError.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    _tidy(path)
    waiting = waiting_weights(path, card.sha256)
    write_bytes_atomically(waiting, weights)
    write_bytes_atomically(path, card.to_json().encode())
    # From here on the new model is in place: where tidying fails, as on Windows while a file is open, it is whole.
    with contextlib.suppress(OSError):
        waiting.replace(path.with_suffix(WEIGHTS_ENDING))
        for other in _all_waiting(path):
            other.unlink()


def _remove(path: Path) -> None:
    """Remove a model; the card first, for without it there is none. Raises OSError."""
    for file in (path, path.with_suffix(WEIGHTS_ENDING), *_all_waiting(path)):
        file.unlink(missing_ok=True)


def _tidy(path: Path) -> None:
    """Remove what killed programs have left half written beside a card, of it and its weights."""
    remove_partial(path.parent, LEFT_SECONDS, f"{glob.escape(path.stem)}*")


def _all_waiting(path: Path) -> list[Path]:
    return sorted(path.parent.glob(f"{path.stem}@*{WEIGHTS_ENDING}"))
