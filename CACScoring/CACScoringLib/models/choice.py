"""Choice and loading of the models that score a scan: named ones, else the bundled ones."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable, Mapping
from concurrent.futures import Executor
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from ..core.ct import ScanWarning
from ..core.errors import ModelError
from ..core.files import file_sha256
from ..core.text import MODEL
from ..networks.configs import ESTIMATORS, JUDGES, SCORING, VESSELS
from ..record.provenance import Provenance, provenance_of
from ..record.score_record import ModelRecord
from .cards import (
    LoadedModel,
    ModelAhead,
    ModelCard,
    StoredModel,
    list_models,
    load_model,
    read_card,
)
from .inference import choose_device

ALL = "all"
"""Value of --whole-scan for all kinds that have a model."""


@dataclass(frozen=True)
class ModelChoice:
    """Choice of networks.

    Attributes:
        names: Names, or paths of cards, of models that replace the bundled ones of their kind.
        threshold_only: True for the clinical rule alone, without networks.
        device: "auto", "cpu" or "cuda".
        estimates: Kinds of whole-scan estimates, from `requested_estimators`.
    """

    names: tuple[str, ...] = ()
    threshold_only: bool = False
    device: str = "auto"
    estimates: tuple[str, ...] = ()


@dataclass(frozen=True)
class ChosenModels:
    """Models to load.

    Attributes:
        networks: Models that score, by network; none for the clinical rule alone.
        estimates: Models of whole-scan estimates, by kind.
        device: "auto", "cpu" or "cuda".
        warnings: Warnings about models that are left out.
    """

    networks: dict[str, StoredModel]
    estimates: dict[str, StoredModel] = field(default_factory=dict)
    device: str = "auto"
    warnings: tuple[ScanWarning, ...] = ()


@dataclass(frozen=True)
class Networks:
    """Networks that score without a threshold.

    Attributes:
        slices: Slice classifier.
        decomposition: Network of the calcium map.
        territories: Network that segments heart and territories; None for the region between the lungs.
        lesions: Network that names what is dense; None to leave none of them out.
    """

    slices: LoadedModel
    decomposition: LoadedModel
    territories: LoadedModel | None = None
    lesions: LoadedModel | None = None

    @cached_property
    def calibrated(self) -> ModelCard:
        """Card of the map with the calibration of all scores that these networks give."""
        return with_verdicts(self.decomposition.card, {record.network: record.sha256 for record in self.records})

    @property
    def records(self) -> tuple[ModelRecord, ...]:
        """The networks as results name them."""
        loaded = (getattr(self, network) for network in SCORING)
        return tuple(ModelRecord(m.card.name, m.card.network, m.card.sha256) for m in loaded if m)


@dataclass(frozen=True)
class LoadedModels:
    """Models that score scans.

    Attributes:
        networks: Networks that score without a threshold; None for the clinical rule alone.
        estimates: Models of whole-scan estimates, by kind.
        warnings: Warnings about models that are left out.
        cards_sha256: SHA-256 of the models' cards, by network.
        device: Device of the networks, "cpu" or "cuda"; empty without networks.
    """

    networks: Networks | None = None
    estimates: dict[str, LoadedModel] = field(default_factory=dict)
    warnings: tuple[ScanWarning, ...] = ()
    cards_sha256: dict[str, str] = field(default_factory=dict)
    device: str = ""

    def provenance(self, settings: Mapping[str, Any], inputs: Mapping[str, Path]) -> Provenance:
        """Return the provenance of a result of these models. Arguments as of `provenance_of`."""
        return provenance_of(settings, inputs, self.cards_sha256, self.device)


def requested_estimators(text: str) -> tuple[str, ...]:
    """Parse the requested kinds of whole-scan estimates.

    Returns:
        Kinds from "vessels,radiomics", "vessels", "radiomics" or "all", each once.

    Raises:
        ModelError: For any other.
    """
    names = tuple(dict.fromkeys(name.strip() for name in text.split(",")))
    if names == (ALL,):
        return names
    if unknown := [name for name in names if name not in ESTIMATORS]:
        choices = ", ".join((*ESTIMATORS, ALL))
        raise ModelError(f"There is no whole-scan estimate {unknown[0]!r}. Give {choices}, or several with commas.")
    return names


def chosen_models(choice: ModelChoice) -> ChosenModels:
    """Select the requested models, and the bundled ones for other networks.

    Without OpenVINO bundled models are left out with a warning, but a model that was named is an error.

    Raises:
        ModelError: A model is missing, or two of a kind are named.
    """
    networks, estimates = _selected(choice)
    warnings = tuple(
        ScanWarning("model-without-verdict", _WITHOUT_VERDICT.format(name=model.card.name))
        for model in networks.values()
        if model.card.lacks_verdict
    )
    missing = [name for name in ("openvino", "safetensors") if importlib.util.find_spec(name) is None]
    if networks and missing:
        message = f"The networks need the Python packages {' and '.join(missing)}, which are not installed"
        if choice.names:
            raise ModelError(f"{message}. Install them, or leave {MODEL} out.")
        message = f"{message}, so the scan is scored by the clinical rule alone."
        networks, warnings = {}, (ScanWarning("networks-left-out", message),)
    if estimates and importlib.util.find_spec("torch") is None:
        message = "Whole-scan estimates need the Python package torch, which is not installed, so there are none."
        estimates, warnings = {}, (*warnings, ScanWarning("networks-left-out", message))
    return ChosenModels(networks, estimates, choice.device, warnings)


def requested_estimates(choice: ModelChoice) -> tuple[str, ...]:
    """Return the kinds of the whole-scan estimates that a choice gives. Raises CTError as `chosen_models`."""
    return tuple(_selected(choice)[1])


def _selected(choice: ModelChoice) -> tuple[dict[str, StoredModel], dict[str, StoredModel]]:
    """Return the models that score, and those of whole-scan estimates, by network, whatever packages there are."""
    stored = list_models()
    named = _named_models(choice, {model.card.name: model for model in stored})
    networks: dict[str, StoredModel] = {}
    if not choice.threshold_only:
        networks = {model.card.network: model for model in stored if model.origin == "bundled"} | named
        networks = {network: model for network, model in networks.items() if network in SCORING}
        needed = [network for network, role in SCORING.items() if not role.is_optional]
        if networks and not set(needed) <= set(networks):
            raise ModelError(f"Scoring without a threshold needs a model for each of {', '.join(needed)}.")
    estimates: dict[str, StoredModel] = {}
    if choice.estimates:
        estimates = estimator_models(choice.estimates, [m for network, m in named.items() if network in ESTIMATORS])
    return networks, estimates


_WITHOUT_VERDICT = (
    "The model {name} was trained on a user's scans, and no comparison with a reference shows that it scores better "
    "than the one that comes with CAC."
)


def _named_models(choice: ModelChoice, stored: dict[str, StoredModel]) -> dict[str, StoredModel]:
    """Return the named models by network. Raises ModelError."""
    named: dict[str, StoredModel] = {}
    for name in choice.names:
        if name.endswith(".json"):
            stored = {**stored, name: StoredModel(read_card(Path(name)), Path(name), "user")}
        if name not in stored:
            raise ModelError(f"There is no model {name!r}. Name one of these: {', '.join(stored) or 'none'}.")
        network = stored[name].card.network
        if network in ESTIMATORS and choice.estimates != (ALL,) and network not in choice.estimates:
            raise ModelError(f"{name} gives a whole-scan estimate. Request it with --whole-scan {network}.")
        if network not in {**SCORING, **ESTIMATORS}:
            kinds = ", ".join(SCORING)
            raise ModelError(f"{name} is for {network!r}, and scores no CT. Leave it out, or name a model for {kinds}.")
        if network in named:
            raise ModelError(f"Two models for {network!r} are named. Name one of each kind.")
        named[network] = stored[name]
    return named


def load_models(models: ChosenModels, thread: Executor | None = None) -> LoadedModels:
    """Load models.

    Args:
        models: Models to load.
        thread: Executor that loads the networks meanwhile; errors are raised at their first use.

    Raises:
        ModelError: The model is missing, damaged or does not fit.
        CTError: The device is not there or has too little memory.
    """
    networks = load_networks(models.networks, models.device, thread)
    estimates = {kind: load_model(model.path, models.device) for kind, model in models.estimates.items()}
    cards = {name: file_sha256(model.path) for name, model in (models.networks | models.estimates).items()}
    device = choose_device(models.device) if cards else ""
    return LoadedModels(networks, estimates, models.warnings, cards, device)


def load_networks(models: dict[str, StoredModel], device: str, thread: Executor | None = None) -> Networks | None:
    """Load scoring models by network; None if there are none. thread: Executor, see `load_models`.

    Raises:
        ModelError: The model is missing, damaged or does not fit.
        CTError: The device is not there or has too little memory.
    """
    if not models:
        return None
    loaded = {
        network: load_model(model.path, device) if thread is None else ModelAhead(model.path, device, thread)
        for network, model in models.items()
    }
    return Networks(**loaded)


def recorded_networks(models: Iterable[ModelRecord]) -> Networks | None:
    """Return the networks of a result with their cards alone, of which none can run; None without networks.

    Raises:
        ModelError: One of them is not installed.
    """
    loaded = {}
    for record in models:
        stored = (model.card for model in list_models(record.network))
        card = next((card for card in stored if (card.name, card.sha256) == (record.name, record.sha256)), None)
        if card is None:
            raise ModelError(
                f"The model {record.name} of the result is not installed. Install it, or score the CT again."
            )
        loaded[record.network] = LoadedModel(card, None)  # type: ignore[arg-type]  # as of a pickle
    return Networks(**loaded) if loaded else None


def with_verdicts(card: ModelCard, models_sha256: Mapping[str, str]) -> ModelCard:
    """Return a map's card, with the bundled map's calibration of the clinical rule if it has none.

    The networks that judge candidates must be those of the calibration; the map only adds to their judgement, or takes
    from it.
    """
    judges = {network: models_sha256[network] for network in JUDGES if network in models_sha256}
    for bundled in (model.card for model in list_models("decomposition") if model.origin == "bundled"):
        fits = bundled.validation.get("automatic_score", {}).get("models") == judges
        if fits and "candidates" in bundled.calibration.keys() - card.calibration:
            stored = {name: part for name, part in bundled.calibration.items() if name in ("candidates", "known")}
            errors = {n: e for n, e in bundled.calibration.get("uncertainty", {}).items() if n == "automatic"}
            errors |= card.calibration.get("uncertainty", {})
            return replace(card, calibration={**stored, **card.calibration, "uncertainty": errors})
    return card


def estimator_models(kinds: Iterable[str], named: Iterable[StoredModel] = ()) -> dict[str, StoredModel]:
    """Select the model of each requested kind of whole-scan estimate, by kind.

    A named model comes first, then the one that comes with CAC, then the user's if there is only one, then a bundled
    alternative. ALL skips kinds without a model or with alternatives alone, but needs one model.

    Args:
        kinds: From `requested_estimators`.
        named: Models for whole-scan estimates, at most one of a kind.

    Raises:
        ModelError: If a kind has no model, or several.
    """
    kinds, models = tuple(kinds), {model.card.network: model for model in named}
    everything = kinds == (ALL,)
    for network in ESTIMATORS if everything else kinds:
        stored = [] if network in models else list_models(network)
        origins = ("bundled", "user") if everything else ("bundled", "user", "alternative")
        by_origin = ([model for model in stored if model.origin == origin] for origin in origins)
        fitting = next(filter(None, by_origin), [])
        if len(fitting) > 1:
            names = ", ".join(model.card.name for model in fitting)
            raise ModelError(f"There are several models for {network!r}: {names}. Name one with {MODEL}.")
        if fitting:
            models[network] = fitting[0]
        elif network not in models and not everything:
            raise ModelError(f"There is no model for {network!r}. {_how_to_get_one(network)}")
    if everything and not models:
        raise ModelError(f"There is no model for a whole-scan estimate. {_how_to_get_one(VESSELS)}")
    return {network: models[network] for network in ESTIMATORS if network in models}


def _how_to_get_one(network: str) -> str:
    return f"Train one (cac train {network}) and install it (cac models install), or leave --whole-scan out."
