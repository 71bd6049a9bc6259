"""Series that were pulled, scored as a cohort scores its scans."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from ..cohort.cohort import without_uids
from ..cohort.scans import CohortScan
from ..cohort.scoring import ScanJob, ScanOutcome, prepare_scoring
from ..run import ChosenModels, RunSettings


def prepare_series(settings: RunSettings, chosen: ChosenModels) -> Callable[[tuple[Path, Path]], str | None]:
    """What scores the series in a folder into another one; it returns why that failed, None when it did not."""
    return partial(_score, prepare_scoring(settings, chosen))


def _score(score: Callable[[ScanJob], ScanOutcome], job: tuple[Path, Path]) -> str | None:
    series, folder = job
    reason = score(ScanJob(CohortScan(folder.name, series, folder.name), folder, "")).reason
    return None if reason is None else without_uids(reason)
