"""Whole-scan estimates asked for: which kinds, which models, and what each says of a scored scan.

No score hangs on them: a whole-scan estimate that fails becomes a warning. Networks and packages are loaded only when
asked.
"""

from __future__ import annotations

import math
import traceback
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from ..core.ct import CTError, ScanWarning
from ..core.progress import Progress
from ..models.cards import LoadedModel
from ..models.choice import VESSELS
from ..results import ScoreResult
from .estimates import TITLES, WholeScanEstimate, disagreements

STEP = "whole-scan estimates"
"""Name of the step in the progress."""

FAILED = "second-opinion-failed"
"""Code of the warning."""


def with_whole_scan_estimates(
    result: ScoreResult, models: Mapping[str, LoadedModel], saliency: bool = True, progress: Progress | None = None
) -> ScoreResult:
    """A result with whole-scan estimates, and warnings where one fails or differs widely.

    Args:
        result: The scored scan.
        models: Loaded ones of `estimator_models`.
        saliency: Compute the attribution of the vessel model, which takes several times as long as its answer.
        progress: Reports STEP.
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
