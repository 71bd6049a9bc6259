"""Choice and loading of the models that score a scan: named ones, else the bundled ones."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable
from concurrent.futures import Executor
from dataclasses import dataclass, field

from ..core.ct import ScanWarning
from ..networks.configs import SCORING_CONFIGS
from .cards import LoadedModel, ModelAhead, ModelError, StoredModel, list_models, load_model

SCORING_NETWORKS = tuple(SCORING_CONFIGS)
"""Models of other networks may come with CAC too; a scan is scored without them."""

VESSELS, RADIOMICS = "vessels", "radiomics"
ESTIMATORS = (VESSELS, RADIOMICS)
"""Keys of `networks.van_velzen.NETWORKS` whose models give whole-scan estimates."""

ALL = "all"
"""In place of kinds: all that there is a model for."""


@dataclass(frozen=True)
class ModelChoice:
    """Choice of networks.

    names: of models to use in place of the bundled ones of their kind. threshold_only: none at all, only the clinical
    rule. device: "auto", "cpu" or "cuda". estimates: whole-scan estimates asked for, as `requested_estimators` gives
    them.
    """

    names: tuple[str, ...] = ()
    threshold_only: bool = False
    device: str = "auto"
    estimates: tuple[str, ...] = ()


@dataclass(frozen=True)
class ChosenModels:
    """Models to load, by network: for scoring (none for the clinical rule alone) and for whole-scan estimates; and
    where.

    warnings: about those that are left out.
    """

    networks: dict[str, StoredModel]
    estimates: dict[str, StoredModel] = field(default_factory=dict)
    device: str = "auto"
    warnings: tuple[ScanWarning, ...] = ()


@dataclass(frozen=True)
class Networks:
    """The networks that score without a threshold.

    territories, heart: None where there is no such model. The heart is that of the territories' network, unless there
    is a model that finds hearts alone; without either it is the region between the lungs.
    """

    heart: LoadedModel | None
    slices: LoadedModel
    decomposition: LoadedModel
    territories: LoadedModel | None = None


@dataclass(frozen=True)
class LoadedModels:
    """Models that score scans.

    networks: None for the clinical rule alone. estimates: by kind, for whole-scan estimates. warnings: about those
    left out.
    """

    networks: Networks | None = None
    estimates: dict[str, LoadedModel] = field(default_factory=dict)
    warnings: tuple[ScanWarning, ...] = ()


def requested_estimators(text: str) -> tuple[str, ...]:
    """Parse the kinds of whole-scan estimates asked for.

    Returns:
        Kinds from "vessels,radiomics", "vessels", "radiomics" or "all", each once.

    Raises:
        ModelError: For any other.
    """
    names = tuple(dict.fromkeys(name.strip() for name in text.split(",")))
    if names == (ALL,):
        return names
    if unknown := [name for name in names if name not in ESTIMATORS]:
        known = ", ".join((*ESTIMATORS, ALL))
        raise ModelError(f"There is no whole-scan estimate {unknown[0]!r}. Give {known}, or several with commas.")
    return names


def chosen_models(choice: ModelChoice) -> ChosenModels:
    """The models asked for, and the bundled ones for the rest.

    Without OpenVINO bundled models are left out with a warning, but a model that was named is an error.
    Raises ModelError.
    """
    stored = list_models()
    named = _named_models(choice, {model.card.name: model for model in stored})
    networks: dict[str, StoredModel] = {}
    if not choice.threshold_only:
        networks = {model.card.network: model for model in stored if model.origin == "bundled"} | named
        networks = {network: model for network, model in networks.items() if network in SCORING_NETWORKS}
        if networks and not {"slices", "decomposition"} <= set(networks):
            raise ModelError("Scoring without a threshold needs a model for slices and one for decomposition.")
    estimates: dict[str, StoredModel] = {}
    if choice.estimates:
        of_estimates = [model for network, model in named.items() if network in ESTIMATORS]
        estimates = estimator_models(choice.estimates, of_estimates)
    warnings: tuple[ScanWarning, ...] = ()
    missing = [name for name in ("openvino", "safetensors") if importlib.util.find_spec(name) is None]
    if networks and missing:
        message = f"The networks need the Python packages {' and '.join(missing)}, which are not installed"
        if choice.names:
            raise ModelError(f"{message}. Install them, or leave --model out.")
        message = f"{message}, so the scan is scored by the clinical rule alone."
        networks, warnings = {}, (ScanWarning("networks-left-out", message),)
    if estimates and importlib.util.find_spec("torch") is None:
        message = "Whole-scan estimates need the Python package torch, which is not installed, so there are none."
        estimates, warnings = {}, (*warnings, ScanWarning("networks-left-out", message))
    return ChosenModels(networks, estimates, choice.device, warnings)


def _named_models(choice: ModelChoice, stored: dict[str, StoredModel]) -> dict[str, StoredModel]:
    """The models that were named, by network. Raises ModelError."""
    named: dict[str, StoredModel] = {}
    for name in choice.names:
        if name not in stored:
            raise ModelError(f"There is no model {name!r}. Name one of these: {', '.join(stored) or 'none'}.")
        network = stored[name].card.network
        if network in ESTIMATORS and choice.estimates != (ALL,) and network not in choice.estimates:
            raise ModelError(f"{name} gives a whole-scan estimate. Request it with --whole-scan {network}.")
        if network not in (*SCORING_NETWORKS, *ESTIMATORS):
            raise ModelError(
                f"{name} is a model for {network!r}; scans are scored by models for {', '.join(SCORING_NETWORKS)}."
            )
        if network in named:
            raise ModelError(f"Two models for {network!r} are named. Name one of each kind.")
        named[network] = stored[name]
    return named


def load_models(chosen: ChosenModels, heart_is_given: bool = False, thread: Executor | None = None) -> LoadedModels:
    """Load models; not one that finds hearts alone where a mask is given.

    Args:
        chosen: The models.
        heart_is_given: Whether there is a mask of the heart.
        thread: What loads the networks meanwhile; what is wrong with one is raised where it is first used.

    Raises:
        ModelError: The model is missing, damaged or does not fit.
        DeviceError: The device is not there or has too little memory.
    """
    models = {network: model for network, model in chosen.networks.items() if network != "heart" or not heart_is_given}
    networks = load_networks(models, chosen.device, thread)
    estimates = {network: load_model(model.path, chosen.device) for network, model in chosen.estimates.items()}
    return LoadedModels(networks, estimates, chosen.warnings)


def load_networks(models: dict[str, StoredModel], device: str, thread: Executor | None = None) -> Networks | None:
    """The networks of models by network; None when there are none. thread: as in `load_models`.

    Raises:
        ModelError: The model is missing, damaged or does not fit.
        DeviceError: The device is not there or has too little memory.
    """
    if not models:
        return None
    loaded = {
        network: load_model(model.path, device) if thread is None else ModelAhead(model.path, device, thread)
        for network, model in models.items()
    }
    return Networks(loaded.get("heart"), loaded["slices"], loaded["decomposition"], loaded.get("territories"))


def estimator_models(asked: Iterable[str], named: Iterable[StoredModel] = ()) -> dict[str, StoredModel]:
    """The model of each kind of whole-scan estimate asked for, by kind.

    A model that was named comes first; then the one that comes with CAC; then the user's, if there is only one. Of ALL,
    kinds without a model are left out, but not all of them.

    Args:
        asked: Of `requested_estimators`.
        named: Models for whole-scan estimates, one of a kind.

    Raises:
        ModelError: If a kind has no model, or several.
    """
    asked, chosen = tuple(asked), {model.card.network: model for model in named}
    everything = asked == (ALL,)
    for network in ESTIMATORS if everything else asked:
        stored = [] if network in chosen else list_models(network)
        fitting = [model for model in stored if model.origin == "bundled"] or stored
        if len(fitting) > 1:
            names = ", ".join(model.card.name for model in fitting)
            raise ModelError(f"There are several models for {network!r}: {names}. Name one with --model.")
        if fitting:
            chosen[network] = fitting[0]
        elif network not in chosen and not everything:
            raise ModelError(f"There is no model for {network!r}. {_how_to_get_one(network)}")
    if everything and not chosen:
        raise ModelError(f"There is no model for a whole-scan estimate. {_how_to_get_one(VESSELS)}")
    return {network: chosen[network] for network in ESTIMATORS if network in chosen}


def _how_to_get_one(network: str) -> str:
    return f"Train one (cac train {network}) and install it (cac models install), or leave --whole-scan out."
