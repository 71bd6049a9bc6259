"""Whole-scan estimates of a scored scan by the requested models.

Scores do not depend on them: a failure becomes a warning. Networks and packages are loaded on request only.
"""

from __future__ import annotations

import importlib
import math
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ..anatomy.heart_region import HeartRegion
from ..core.ct import CTScan, ScanWarning
from ..core.errors import CTError
from ..core.progress import Progress
from ..models.cards import LoadedModel
from ..networks.configs import ESTIMATORS, VESSELS
from ..record.scores import MethodScore
from .estimates import TITLES, WholeScanEstimate, disagreements

STEP = "whole-scan estimates"
"""Name of the step in the progress."""

FAILED = "second-opinion-failed"
"""Code of the warning."""


@dataclass(frozen=True)
class WholeScanEstimates:
    """Whole-scan estimates of a scan.

    Attributes:
        estimates: Estimates that succeeded.
        warnings: Warnings about estimates that failed, or differ widely from each other or the scores.
    """

    estimates: tuple[WholeScanEstimate, ...]
    warnings: tuple[ScanWarning, ...]


def estimate_whole_scan(
    scan: CTScan,
    heart: HeartRegion,
    methods: Mapping[str, MethodScore],
    models: Mapping[str, LoadedModel],
    saliency: bool = True,
    progress: Progress | None = None,
) -> WholeScanEstimates:
    """Estimate the calcium of a scored scan by models that score no lesions.

    Args:
        scan: The scan as scored.
        heart: The heart.
        methods: The scan's scores by method, to compare with.
        models: Loaded models of `estimator_models`.
        saliency: Compute the attribution of the vessel model, which takes several times as long as its answer.
        progress: Reports STEP.
    """
    estimates: list[WholeScanEstimate] = []
    warnings: list[ScanWarning] = []
    with (progress or Progress()).step(STEP):
        for network, model in models.items():
            try:
                estimate, estimate_warnings = _estimate(network, scan, heart, model, saliency)
                estimates.append(_check_finite(estimate))
                warnings += estimate_warnings
            except CTError as error:
                warnings.append(_failure(network, str(error)))
            except Exception as error:  # no failure of an estimate affects the score
                frame = traceback.extract_tb(error.__traceback__)[-1]
                reason = f"{type(error).__name__} at {Path(frame.filename).name}:{frame.lineno}: {error}"
                warnings.append(_failure(network, f"unexpected {reason}"))
    return WholeScanEstimates(tuple(estimates), (*warnings, *disagreements(estimates, methods)))


def _estimate(
    network: str, scan: CTScan, heart: HeartRegion, model: LoadedModel, saliency: bool
) -> tuple[WholeScanEstimate, tuple[ScanWarning, ...]]:
    module, name = ESTIMATORS[network].estimator.split(".")
    estimator = getattr(importlib.import_module(f".{module}", __package__), name)
    options = {"saliency": saliency} if network == VESSELS else {}
    return estimator(scan, heart, model, **options)  # type: ignore[no-any-return]


def _check_finite(estimate: WholeScanEstimate) -> WholeScanEstimate:
    record = estimate.record
    numbers = [*(record.agatston or {}).values(), record.total, record.probability, record.limit]
    numbers += [*record.contributions.values(), *(record.slice_weights or ())]
    if not all(math.isfinite(number) for number in numbers if number is not None):
        raise CTError(f"{record.model.name} gave no finite number")
    return estimate


def _failure(network: str, reason: str) -> ScanWarning:
    message = f"No estimate by {TITLES[network].lower()}: {reason.rstrip('.')}. The scores are not affected."
    return ScanWarning(FAILED, message)
