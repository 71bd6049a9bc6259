"""Preparation of a training's scans, once: each is read, its heart found as in scoring, and processed."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk

from CACScoringLib.anatomy.heart_region import HeartRegion
from CACScoringLib.cohort.workers import run_jobs, sensible_count
from CACScoringLib.core.ct import CTScan
from CACScoringLib.core.errors import CTError
from CACScoringLib.core.files import atomic_write
from CACScoringLib.core.progress import Progress
from CACScoringLib.io.reading import read_mask
from CACScoringLib.models.cards import LoadedModel, find_model, load_model
from CACScoringLib.models.inference import use_threads

from ..data.scan_table import TableScan

Work = Callable[[CTScan, HeartRegion], Mapping[str, Any]]
"""Picklable function from a scan and its heart to arrays by name, run in other processes."""

MEMORY_EACH_BYTES = 2_000_000_000


def prepare(
    scans: Sequence[TableScan],
    folder: Path,
    kind: str,
    work: Work,
    settings_key: str,
    workers: int | None = None,
    progress: Progress | None = None,
) -> tuple[dict[str, Path], dict[str, str]]:
    """Run `work` on every scan that is not yet in the cache `folder`/`kind`.

    A scan that cannot be read or has no heart stops no other.

    Args:
        settings_key: Text of all settings of `work`.
        workers: Processes; None for one per core, as far as memory allows.

    Returns:
        Files by the scan's name (see `load`), and the reasons of failures by name.

    Raises:
        CTError: No scan can be prepared.
    """
    progress = progress or Progress()
    (folder / kind).mkdir(parents=True, exist_ok=True)
    files = {scan.name: folder / kind / f"{_key(scan, settings_key)}.npz" for scan in scans}
    missing = [scan for scan in scans if not files[scan.name].exists()]
    failed: dict[str, str] = {}
    if missing:
        jobs = [(scan, files[scan.name]) for scan in missing]
        count = workers or sensible_count(MEMORY_EACH_BYTES)
        events = run_jobs(partial(_start_worker, work), jobs, count, progress.counted)
        reasons = {scan.name: event.reason or event.result for scan, event in zip(missing, events, strict=True)}
        failed = {name: reason for name, reason in reasons.items() if reason}
    if scans and len(failed) == len(scans):
        name, reason = next(iter(failed.items()))
        raise CTError(f"None of {len(scans)} scans could be prepared; {name}: {reason}")
    return {name: file for name, file in files.items() if name not in failed}, failed


def load(file: Path) -> dict[str, np.ndarray]:
    """Load the arrays of a prepared scan."""
    with np.load(file, allow_pickle=False) as content:
        return {name: content[name] for name in content.files}


def _start_worker(work: Work) -> Callable[[tuple[TableScan, Path]], str]:
    """Set up a worker process: one core, and one heart network for all its scans."""
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    use_threads(1)
    network = load_model(find_model("territories").path, "cpu")
    return partial(_prepare_scan, work, network)


def _prepare_scan(work: Work, network: LoadedModel, job: tuple[TableScan, Path]) -> str:
    """Prepare a scan; returns the reason of a failure, or an empty text."""
    from CACScoringLib.anatomy.heart_search import find_heart
    from CACScoringLib.io.reading import read_ct

    table_scan, file = job
    try:
        scan = read_ct(table_scan.ct, table_scan.series)
        heart = None if table_scan.heart is None else read_mask(table_scan.heart)
        region = find_heart(scan, heart, network)
        arrays = work(scan, region)
    except CTError as error:
        return str(error)
    with atomic_write(file) as unfinished:
        np.savez_compressed(unfinished, **arrays)
    return ""


def _key(scan: TableScan, settings: str) -> str:
    """Return a digest of a scan's current files, the settings, and the heart network if no mask is given."""
    parts = [str(scan.ct.resolve()), str(scan.series), str(scan.heart and scan.heart.resolve()), settings]
    if scan.heart is None:
        parts.append(find_model("territories").card.sha256)
    for place in (scan.ct, *([scan.heart] if scan.heart else [])):
        for file in sorted(place.rglob("*")) if place.is_dir() else [place]:
            status = file.stat()
            parts.append(f"{file.name} {status.st_size} {status.st_mtime_ns}")
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:24]
