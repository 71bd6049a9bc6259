"""Whole-scan estimates asked for: which kinds, which models, and what each says of a scored scan.

No score hangs on them: a whole-scan estimate that fails becomes a warning. Networks and packages are loaded only when
asked.
"""

from __future__ import annotations

import math
import traceback
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

from ..core.ct import CTError, ScanWarning
from ..core.progress import Progress
from ..models.cards import LoadedModel, ModelError, StoredModel, list_models
from ..results import ScoreResult
from .estimates import ESTIMATORS, TITLES, VESSELS, WholeScanEstimate, disagreements

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
        raise ModelError(f"There is no whole-scan estimate {unknown[0]!r}. Give {known}, or several with commas.")
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


def with_whole_scan_estimates(
    result: ScoreResult, models: Mapping[str, LoadedModel], saliency: bool = True, progress: Progress | None = None
) -> ScoreResult:
    """A result with whole-scan estimates, and warnings where one fails or differs widely.

    Args:
        result: The scored scan.
        models: Loaded ones of `estimator_models`.
        saliency: Make pictures of what sways the vessel model, which takes several times as long as its answer.
        progress: Is told STEP.
    """
    estimates: list[WholeScanEstimate] = []
    warnings: list[ScanWarning] = []
    with (progress or Progress()).step(STEP):
        for network, model in models.items():
            try:
                estimate, own_warnings = _estimate(network, result, model, saliency)
                estimates.append(_checked(estimate))
                warnings += own_warnings
            except CTError as error:
                warnings.append(_failure(network, str(error)))
            except Exception as error:  # whatever a whole-scan estimate brings about, the score is there
                where = traceback.extract_tb(error.__traceback__)[-1]
                reason = f"{type(error).__name__} at {Path(where.filename).name}:{where.lineno}: {error}"
                warnings.append(_failure(network, f"unexpected {reason}"))
    warnings += disagreements(estimates, result.methods)
    return replace(result, estimates=tuple(estimates), warnings=tuple(dict.fromkeys((*result.warnings, *warnings))))


def _estimate(
    network: str, result: ScoreResult, model: LoadedModel, saliency: bool
) -> tuple[WholeScanEstimate, tuple[ScanWarning, ...]]:
    if network == VESSELS:
        from .vessels import vessel_estimate

        return vessel_estimate(result.scored_scan, result.heart, model, saliency)
    from .radiomics import radiomics_estimate

    return radiomics_estimate(result.scored_scan, result.heart, model)


def _checked(estimate: WholeScanEstimate) -> WholeScanEstimate:
    numbers = [*(estimate.agatston or {}).values(), estimate.total, estimate.probability, estimate.limit]
    numbers += [*estimate.contributions.values(), *(estimate.slice_weights or ())]
    if not all(math.isfinite(number) for number in numbers if number is not None):
        raise CTError(f"{estimate.model} gave no finite number")
    return estimate


def _failure(network: str, reason: str) -> ScanWarning:
    message = f"No estimate by {TITLES[network].lower()}: {reason.rstrip('.')}. The scores are not affected."
    return ScanWarning(FAILED, message)
