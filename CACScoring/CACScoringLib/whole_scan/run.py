"""Whole-scan estimates of a scored scan by the requested models.

Scores do not depend on them: a failure becomes a warning. Networks and packages are loaded on request only.
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
    """Add whole-scan estimates to a result, and warnings of failures and wide differences.

    Args:
        result: The scored scan.
        models: Loaded models by kind.
        saliency: True to compute the vessel model's attribution, which takes several times as long as its estimate.
        progress: Reports STEP.
    """
    estimates: list[WholeScanEstimate] = []
    warnings: list[ScanWarning] = []
    with (progress or Progress()).step(STEP):
        for network, model in models.items():
            try:
                estimate, estimate_warnings = _estimate(network, result, model, saliency)
                estimates.append(_check_finite(estimate))
                warnings += estimate_warnings
            except CTError as error:
                warnings.append(_failure(network, str(error)))
            except Exception as error:  # no failure of an estimate affects the score
                frame = traceback.extract_tb(error.__traceback__)[-1]
                reason = f"{type(error).__name__} at {Path(frame.filename).name}:{frame.lineno}: {error}"
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


def _check_finite(estimate: WholeScanEstimate) -> WholeScanEstimate:
    numbers = [*(estimate.agatston or {}).values(), estimate.total, estimate.probability, estimate.limit]
    numbers += [*estimate.contributions.values(), *(estimate.slice_weights or ())]
    if not all(math.isfinite(number) for number in numbers if number is not None):
        raise CTError(f"{estimate.model} gave no finite number")
    return estimate


def _failure(network: str, reason: str) -> ScanWarning:
    message = f"No estimate by {TITLES[network].lower()}: {reason.rstrip('.')}. The scores are not affected."
    return ScanWarning(FAILED, message)
