"""Trained networks on disk: find, verify, load. `store` writes them.

A model is two files of one name: `NAME.safetensors` with the weights (half precision; a format that cannot run code)
and `NAME.json`, its card: how it was made, what it is for, the hash of the weights, and the graph with which OpenVINO
runs them. Models come with CAC (`bundled_folder`) or are installed by the user (`user_folder`). OpenVINO and PyTorch
are imported only to verify or load.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import re
from collections.abc import Mapping
from concurrent.futures import Executor, Future
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from ..core.decoding import restore
from ..core.errors import ModelError, WrongValueError
from ..core.files import parse_json, read_file, resource_folder, user_data_folder
from ..networks.configs import (
    ROLES,
    SCORING,
    Config,
    GeneratorConfig,
    SliceClassifierConfig,
    build,
    input_channels,
    name_of,
)
from . import preprocessing
from .inference import ProcessorNetwork, Runner, choose_device, prepared

if TYPE_CHECKING:
    import openvino
    import torch


T = TypeVar("T")

SCHEMA = "cac-model/1"

NAME = re.compile(r"[a-z0-9][a-z0-9_.-]*")

LARGEST = 4096
"""Largest number of channels, blocks or pixels in a network's configuration."""

WEIGHTS_ENDING = ".safetensors"


ABOVE_ZERO = {"temperature", "agatston_scale"}
"""Entries of the calibration that divide or multiply, so that they must be above 0."""

REAL_PATIENTS = "real patients labelled by"
"""Words in `Training.data` of models trained on labelled scans of patients."""

VERDICT = "before_after"
"""Entry of `ModelCard.validation` with the verdict of `cac evaluate accuracy --before`, and the name of its section."""


SAMPLE = "sample"
"""Entry of `ModelCard.validation` with the figures of its trial (`cli.model_trial.Trial`), written at installation."""

_OF_INTERVALS = {"uncertainty", "known", "calibrated_on"}
"""Entries of a calibration on which intervals depend, but no score."""


@dataclass(frozen=True)
class Training:
    """Origin of a model.

    Attributes:
        data: Training data, with versions.
        seed: Seed of the training.
        settings: Settings of the training.
        commit: Commit of the source code.
        curve: Validations during the training, each with `step` and its metrics.
    """

    data: str
    seed: int
    settings: dict[str, object]
    commit: str
    curve: tuple[dict[str, float], ...] = ()


Calibration = dict[str, Any]
"""Calibration of a model by name: numbers, and stored dataclasses."""


@dataclass(frozen=True)
class ModelCard:
    """Description of a model: origin, purpose, measured quality, and what loads it.

    Attributes:
        name: Name of the model and of its files.
        network: Key of `configs.ROLES`.
        preset: Preset that the training began with, or "custom".
        config: Fields of the network's configuration.
        preprocessing_version: `preprocessing.VERSION` of the training.
        training: Origin.
        validation: Metrics, with the data they were measured on and its n.
        calibration: Numbers that scoring takes from the model, such as a threshold or the scale to the clinical range.
        licence: SPDX identifier.
        intended_use: Purpose and its limits, in a sentence or two.
        sha256: Hash of the weights' file.
        repeatability: Differences of two scans of a patient, from a scan-rescan study (`repeatability.Repeatability`);
            None before such a study.
        graph: Graph of a network that scores scans, without weights (`graph.write_graph`); empty for other networks.
    """

    name: str
    network: str
    preset: str
    config: dict[str, Any]
    preprocessing_version: int
    training: Training
    validation: dict[str, Any]
    calibration: Calibration
    licence: str
    intended_use: str
    sha256: str = ""
    repeatability: dict[str, object] | None = None
    graph: str = field(default="", repr=False)

    @property
    def lacks_verdict(self) -> bool:
        """True for a model trained on scans of patients and installed without a verdict on it."""
        return REAL_PATIENTS in self.training.data and VERDICT not in self.validation

    @property
    def lacks_calibration(self) -> bool:
        """True for a map whose lesions would all count, coronary or not."""
        return self.network == "decomposition" and "evidence_weights" not in self.calibration

    @property
    def scored_by(self) -> Calibration:
        """Entries of the calibration that scores depend on."""
        return {name: value for name, value in self.calibration.items() if name not in _OF_INTERVALS}

    def calibration_as(self, kind: type[T]) -> T:
        """Return the calibration as a class, decoded at its first use; entries that are no fields are ignored.

        Raises ModelError if an entry is of another type.
        """
        return self._decoded("calibration", kind, "Calibrate it again")

    def repeatability_as(self, kind: type[T]) -> T | None:
        """Return the repeatability as a class, decoded at its first use; None if none is stored. Raises ModelError."""
        return self._decoded("repeatability", kind, "Store it again") if self.repeatability else None

    def _decoded(self, name: str, kind: type[T], remedy: str) -> T:
        decoded: dict[str, Any] = self.__dict__.setdefault("_by_name", {})
        if name not in decoded:
            try:
                decoded[name] = restore(getattr(self, name), kind)
            except WrongValueError as wrong:
                place = str(wrong).lstrip(".")
                raise ModelError(f"The {name} on the card of {self.name} has no valid {place}. {remedy}.") from None
        return decoded[name]  # type: ignore[no-any-return]

    def to_json(self) -> str:
        return json.dumps({"schema": SCHEMA, **dataclasses.asdict(self)}, indent=2, ensure_ascii=False) + "\n"


@dataclass(frozen=True)
class StoredModel:
    """Model on disk.

    Attributes:
        card: Content of the card.
        path: File of the card.
        origin: "bundled"; "alternative", which comes with CAC and is used only when named; or "user".
    """

    card: ModelCard
    path: Path
    origin: str


@dataclass(frozen=True)
class LoadedModel:
    """Verified model on its device, ready for `inference.predict`.

    A pickle, such as in a result for another process, holds the card alone; network is then None.
    """

    card: ModelCard
    network: Runner | torch.nn.Module

    def __reduce__(self) -> tuple[type[LoadedModel], tuple[ModelCard, None]]:
        return LoadedModel, (self.card, None)


def describe(
    name: str,
    config: Config,
    preset: str,
    training: Training,
    validation: dict[str, object],
    calibration: Calibration,
    licence: str,
    intended_use: str,
) -> ModelCard:
    """Return a card for a network of this configuration and the present preprocessing."""
    network, values, version = name_of(config), dataclasses.asdict(config), preprocessing.VERSION
    return ModelCard(name, network, preset, values, version, training, validation, calibration, licence, intended_use)


def bundled_folder() -> Path:
    """Folder of the bundled models."""
    return resource_folder("Models")


def alternatives_folder() -> Path:
    """Folder of bundled models that are used only when named."""
    return bundled_folder() / "Alternatives"


def user_folder() -> Path:
    """Folder of the user's own models; CAC_MODEL_DIR overrides the system's place for a user's data."""
    if folder := os.environ.get("CAC_MODEL_DIR"):
        return Path(folder)
    return user_data_folder() / "Models"


def list_models(network: str | None = None) -> list[StoredModel]:
    """List the bundled models, their alternatives, then the user's, by name; of one network or of all.

    Raises ModelError for a broken card.
    """
    folders = {"bundled": bundled_folder(), "alternative": alternatives_folder(), "user": user_folder()}
    models = []
    for origin, folder in folders.items():
        models += [StoredModel(read_card(path), path, origin) for path in sorted(folder.glob("*.json"))]
    return [model for model in models if network in (None, model.card.network)]


def find_model(network: str, name: str | None = None) -> StoredModel:
    """Return the model of this name, a user's before one that comes with CAC; without a name, the only bundled one.

    Raises ModelError when there is none, or no name was given and several are bundled.
    """
    models = list_models(network)
    names = ", ".join(f"{m.card.name} ({m.origin})" for m in models) or "none"
    if name is None:
        fitting = [m for m in models if m.origin == "bundled"]
        if len(fitting) != 1:
            message = f"{len(fitting)} models for {network!r} come with CAC. Name one. Installed: {names}."
            raise ModelError(message)
    else:
        fitting = [m for m in models if m.card.name == name]
        if not fitting:
            raise ModelError(f"There is no model {name!r} for {network!r}. Installed: {names}.")
    return fitting[-1]


def read_card(path: Path) -> ModelCard:
    """Read a card; a card of the same content is decoded once in a process. Raises ModelError when it is not one."""
    try:
        return _decoded_card(path, read_file(path))
    except (OSError, ValueError) as error:
        raise ModelError(f"The model card {path} cannot be read ({error}). Install it again or remove it.") from error


@lru_cache(maxsize=256)
def _decoded_card(path: Path, data: bytes) -> ModelCard:
    """Return a card from its file's content. Raises ValueError if it is no card's, ModelError."""
    content = parse_json(data.decode("utf-8-sig"))
    if not isinstance(content, dict) or content.pop("schema", None) != SCHEMA:
        raise ValueError(f"it is not of schema {SCHEMA}")
    try:
        if unknown := content.keys() - {field.name for field in dataclasses.fields(ModelCard)}:
            raise WrongValueError(", ".join(sorted(unknown)))
        card = restore(content, ModelCard)
        json.dumps(card.calibration, allow_nan=False)
    except WrongValueError as wrong:
        message = f"The model card {path} has no valid {wrong}. Install it again or remove it."
        raise ModelError(message) from None
    except ValueError as error:
        message = f"The calibration on the model card {path} holds numbers that are not finite. Calibrate it again."
        raise ModelError(message) from error
    for name in ABOVE_ZERO & card.calibration.keys():
        value = card.calibration[name]
        if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
            raise ModelError(f"The {name} on the model card {path} is {value!r}, not above 0. Calibrate it again.")
    if card.name != path.stem or not NAME.fullmatch(card.name):
        raise ModelError(f"The model card {path} is for {card.name!r}: file and name must agree.")
    return card


def verify_model(path: Path) -> ModelCard:
    """Check that a model is undamaged and fits this version: hash, configuration, weights, graph, preprocessing.

    path: the card. Raises ModelError.
    """
    card, data = _read(path)
    _tensors(card, data)
    if card.network in SCORING:
        _graph(card, data)
    return card


def read_network(path: Path) -> tuple[ModelCard, torch.nn.Module]:
    """Verify a model and load it for further training.

    Returns:
        The card, and the network in float32 on the CPU.

    Raises:
        ModelError: The model is missing, damaged or does not fit.
    """
    card, data = _read(path)
    return card, _module(card, data)


def load_model(path: Path, device: str = "auto") -> LoadedModel:
    """Verify a model and make it ready to run.

    Args:
        path: The card.
        device: "auto", "cpu" or "cuda".

    Raises:
        ModelError: The model is missing, damaged or does not fit.
        CTError: The device is not there or has too little memory.
    """
    device = choose_device(device)
    card, data = _read(path)
    if device == "cpu" and card.network in SCORING:
        return LoadedModel(card, ProcessorNetwork(_graph(card, data)))
    return LoadedModel(card, prepared(_module(card, data), device))


class ModelAhead(LoadedModel):
    """Model whose network is loaded by a thread.

    `network` waits for the thread, and raises the ModelError or CTError of `load_model`.
    """

    _loading: Future[LoadedModel]

    def __init__(self, path: Path, device: str, thread: Executor) -> None:
        """Start loading. Raises ModelError if the card cannot be read."""
        object.__setattr__(self, "card", read_card(path))  # the class is frozen
        object.__setattr__(self, "_loading", thread.submit(load_model, path, device))

    @property
    def network(self) -> Runner | torch.nn.Module:
        return self._loading.result().network


def weights_of(path: Path, sha256: str) -> Path:
    """Return the file of the weights with this SHA-256 of the card at `path`, whether or not it exists."""
    waiting = waiting_weights(path, sha256)
    return waiting if waiting.is_file() else path.with_suffix(WEIGHTS_ENDING)


def read_weights(path: Path, sha256: str) -> bytes:
    """Return the content of `weights_of`. Raises OSError."""
    return read_file(weights_of(path, sha256))


def waiting_weights(path: Path, sha256: str) -> Path:
    """Return the file of weights that wait for their card to be exchanged (`store`)."""
    return path.with_name(f"{path.stem}@{sha256[:16]}{WEIGHTS_ENDING}")


def _read(path: Path) -> tuple[ModelCard, bytes]:
    """Return a card and the content of its verified file of weights. Raises ModelError."""
    card = read_card(path)
    if card.preprocessing_version != preprocessing.VERSION:
        raise ModelError(
            f"The model {card.name} was trained on scans prepared by version {card.preprocessing_version} of the "
            f"preprocessing; this program uses version {preprocessing.VERSION}. Install a model or a program that "
            "matches."
        )
    try:
        data = read_weights(path, card.sha256)
    except OSError as error:
        raise ModelError(f"The weights of {card.name} cannot be read: {error.strerror} ({error.filename}).") from error
    if hashlib.sha256(data).hexdigest() != card.sha256:
        raise ModelError(
            f"The weights of {card.name} are not those that its card describes (SHA-256 differs): the file is "
            "damaged or was replaced. Install the model again."
        )
    return card, data


def _graph(card: ModelCard, data: bytes) -> openvino.Model:
    """Return a card's network with its weights, for OpenVINO. Raises ModelError if they do not fit."""
    from safetensors import SafetensorError
    from safetensors.numpy import load

    from .graph import read_graph

    if not card.graph:
        raise ModelError(
            f"The card of {card.name} was written by an earlier version of CAC. Install the model again: cac models "
            "install."
        )
    try:
        tensors = load(data)
    except SafetensorError as error:
        raise _no_weights(card, error) from error
    _check_weights(card, tensors)
    config = _config(card)
    try:
        graph = read_graph(card.graph, tensors)
        channels = graph.input(0).partial_shape[1].get_length()
        if isinstance(config, SliceClassifierConfig | GeneratorConfig) and channels != input_channels(config):
            raise ValueError(f"the input has {channels} channels instead of {input_channels(config)}")
        return graph
    except ValueError as error:
        raise ModelError(
            f"The weights of {card.name} do not fit the configuration on its card: {error}. Install the model again."
        ) from error


def _module(card: ModelCard, data: bytes) -> torch.nn.Module:
    """Return a card's network with its weights, in PyTorch. Raises ModelError if they do not fit."""
    tensors = _tensors(card, data)
    network = untrained_network(card)
    network.load_state_dict(tensors)
    return network.float()


def _tensors(card: ModelCard, data: bytes) -> dict[str, torch.Tensor]:
    """Return weights that fit a card's network. Raises ModelError."""
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load

    with torch.device("meta"):  # takes no memory, whatever the card says
        network = untrained_network(card)
    try:
        tensors = load(data)
    except SafetensorError as error:
        raise _no_weights(card, error) from error
    expected = {key: tuple(tensor.shape) for key, tensor in network.state_dict().items()}
    shapes = {key: tuple(tensor.shape) for key, tensor in tensors.items()}
    if expected != shapes:
        wrong = sorted(key for key in expected.keys() | shapes.keys() if expected.get(key) != shapes.get(key))
        raise ModelError(
            f"The weights of {card.name} do not fit the configuration on its card: {len(wrong)} differ, among them "
            f"{', '.join(wrong[:3])}. Install the model again."
        )
    _check_weights(card, tensors)
    return tensors


def _check_weights(card: ModelCard, tensors: Mapping[str, Any]) -> None:
    """Refuse weights that are not finite, and layers without any. Raises ModelError. tensors: Of NumPy or PyTorch."""
    for name, tensor in tensors.items():
        weights = np.asarray(tensor)
        is_finite = np.isfinite(weights).all()
        if not is_finite or (card.network in SCORING and weights.ndim > 1 and not weights.any()):
            state = "are all zero" if is_finite else "hold numbers that are not finite"
            raise ModelError(
                f"The weights {name} of {card.name} {state}, as of a training that failed. Train the model again, or "
                "install another one."
            )


def _no_weights(card: ModelCard, error: Exception) -> ModelError:
    return ModelError(f"The weights of {card.name} are not a safetensors file ({error}). Install the model again.")


def _no_network(card: ModelCard, error: Exception) -> ModelError:
    return ModelError(f"No network can be built from the configuration of {card.name} ({error}).")


def untrained_network(card: ModelCard) -> torch.nn.Module:
    """Return a network of a card's configuration, in PyTorch. Raises ModelError where there is none."""
    config = _config(card)
    try:
        return build(config)
    except (TypeError, ValueError, RuntimeError) as error:
        raise _no_network(card, error) from error


def _config(card: ModelCard) -> Config:
    """Return the configuration on a card. Raises ModelError if it is none of a known network."""
    if card.network not in ROLES:
        raise ModelError(f"The model {card.name} is for {card.network!r}; known are {', '.join(ROLES)}.")
    kind = ROLES[card.network].config
    fields = {field.name for field in dataclasses.fields(kind)}
    if set(card.config) != fields:
        wrong = ", ".join(sorted(set(card.config) ^ fields))
        raise ModelError(f"The configuration of {card.name} has missing or unknown fields: {wrong}.")
    numbers = {name: value for name, value in card.config.items() if isinstance(value, float | int)}
    if too_large := [name for name, value in numbers.items() if not value <= LARGEST]:
        raise ModelError(f"The configuration of {card.name} has values above {LARGEST}: {', '.join(too_large)}.")
    try:
        return kind(**card.config)  # type: ignore[no-any-return]
    except ValueError as error:
        raise _no_network(card, error) from error
