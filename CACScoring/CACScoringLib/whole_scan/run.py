"""Whole-scan estimates asked for: which kinds, which models, and what each says of a scored scan.

No score hangs on them: a whole-scan estimate that fails becomes a warning. Networks and packages are loaded only when
asked.
"""

from __future__ import annotations

import importlib.util
import math
import traceback
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path

from ..core.ct import CTError, ScanWarning
from ..core.labels import MAIN_ARTERIES
from ..core.progress import Progress
from ..models.cards import LoadedModel, ModelError, StoredModel, list_models, load_model
from ..results import ScoreResult
from .estimates import ESTIMATORS, RADIOMICS, TITLES, VESSELS, WholeScanEstimate, disagreements
from .trust import trust_in

STEP = "whole-scan estimates"
"""What progress is told."""

ALL = "all"
"""In place of kinds: all that there is a model for."""

FAILED = "second-opinion-failed"
"""Code of the warning."""


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
        raise ModelError(
            f"There is no whole-scan estimate {unknown[0]!r}. Give {known}, or several separated by commas."
        )
    return names


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


def load_estimators(
    models: Mapping[str, StoredModel], device: str
) -> tuple[dict[str, LoadedModel], tuple[ScanWarning, ...]]:
    """Load models for whole-scan estimates.

    Returns:
        The models by kind, and a warning for each whose Python packages are missing.

    Raises:
        ModelError: The model is missing, damaged or does not fit.
        DeviceError: The device is not there or has too little memory.
    """
    missing = [name for name in ("torch", "safetensors") if importlib.util.find_spec(name) is None]
    loaded, warnings = {}, []
    for network, model in models.items():
        try:
            if missing:
                raise ModuleNotFoundError(name=" and ".join(missing))
            loaded[network] = load_model(model.path, device)
        except ImportError as error:
            warnings.append(_failure(network, _lacking(error)))
    return loaded, tuple(warnings)


def with_whole_scan_estimates(
    result: ScoreResult, models: Mapping[str, LoadedModel], saliency: bool = True, progress: Progress | None = None
) -> ScoreResult:
    """A result with whole-scan estimates, and warnings where one fails or differs widely.

    Args:
        result: The scored scan.
        models: Of `load_estimators`.
        saliency: Make pictures of what sways the vessel model, which takes several times as long as its answer.
        progress: Is told STEP.
    """
    estimates: list[WholeScanEstimate] = []
    warnings: list[ScanWarning] = []
    with (progress or Progress()).step(STEP):
        for network, model in models.items():
            try:
                estimate, own_warnings = _ESTIMATE_BY[network](result, model, saliency)
                estimates.append(_checked(estimate))
                warnings += own_warnings
            except CTError as error:
                warnings.append(_failure(network, str(error)))
            except ImportError as error:
                warnings.append(_failure(network, _lacking(error)))
            except Exception as error:  # whatever a whole-scan estimate brings about, the score is there
                warnings.append(_failure(network, _unexpected(error)))
    warnings += disagreements(estimates, result.methods)
    return replace(result, estimates=tuple(estimates), warnings=tuple(dict.fromkeys((*result.warnings, *warnings))))


def _of_vessels(
    result: ScoreResult, model: LoadedModel, saliency: bool
) -> tuple[WholeScanEstimate, tuple[ScanWarning, ...]]:
    from .vessels import vessel_estimate

    warnings: tuple[ScanWarning, ...] = ()
    scan = result.scored_scan
    try:
        told = vessel_estimate(scan, result.heart, model, saliency)
    except ImportError as error:
        if not saliency:
            raise
        message = f"No saliency map of the vessel regression could be made: {_lacking(error)}."
        warnings = (ScanWarning("no-saliency", message),)
        told = vessel_estimate(scan, result.heart, model, False)
    # What an estimate lacks to 0 is as little calcium as there can be.
    agatston = {artery: max(0.0, float(told.agatston[artery])) for artery in MAIN_ARTERIES}
    weights = None if told.slice_weights is None else tuple(float(weight) for weight in told.slice_weights)
    estimate = WholeScanEstimate(
        **_of_card(model, VESSELS),
        agatston=agatston,
        total=max(0.0, float(told.total)),
        slice_weights=weights,
        saliency=told.saliency,
    )
    return estimate, (*told.warnings, *warnings)


def _of_radiomics(
    result: ScoreResult, model: LoadedModel, saliency: bool
) -> tuple[WholeScanEstimate, tuple[ScanWarning, ...]]:
    from .radiomics import radiomics_estimate

    told = radiomics_estimate(result.scored_scan, result.heart, model)
    estimate = WholeScanEstimate(
        **_of_card(model, RADIOMICS),
        probability=float(told.probability),
        limit=float(told.limit),
        contributions={name: float(value) for name, value in told.contributions.items()},
    )
    return estimate, told.warnings


_ESTIMATE_BY: dict[
    str, Callable[[ScoreResult, LoadedModel, bool], tuple[WholeScanEstimate, tuple[ScanWarning, ...]]]
] = {
    VESSELS: _of_vessels,
    RADIOMICS: _of_radiomics,
}


def _of_card(model: LoadedModel, network: str) -> dict[str, str]:
    card = model.card
    return {
        "network": network,
        "model": card.name,
        "sha256": card.sha256,
        "trust": trust_in(network, card.validation),
    }


def _checked(estimate: WholeScanEstimate) -> WholeScanEstimate:
    numbers = [*(estimate.agatston or {}).values(), estimate.total, estimate.probability, estimate.limit]
    numbers += [*estimate.contributions.values(), *(estimate.slice_weights or ())]
    if not all(math.isfinite(number) for number in numbers if number is not None):
        raise CTError(f"{estimate.model} gave no finite number")
    return estimate


def _failure(network: str, reason: str) -> ScanWarning:
    message = (
        f"No whole-scan estimate by {TITLES[network].lower()} could be made: {reason.rstrip('.')}. The scores are "
        "not affected."
    )
    return ScanWarning(FAILED, message)


def _lacking(error: ImportError) -> str:
    return f"the Python package {error.name} is not installed" if error.name else str(error)


def _unexpected(error: Exception) -> str:
    where = traceback.extract_tb(error.__traceback__)[-1]
    return f"unexpected {type(error).__name__} at {Path(where.filename).name}:{where.lineno}: {error}"
