"""Prepared scans of a training, made once: each is read, its heart found as scoring finds it, and worked on."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from CACScoringLib.anatomy.heart_region import HeartRegion
from CACScoringLib.cohort.workers import run_jobs, sensible_count
from CACScoringLib.core.ct import CTError, CTScan
from CACScoringLib.core.files import atomic_write
from CACScoringLib.core.progress import Progress
from CACScoringLib.io.reading import read_mask
from CACScoringLib.models.cards import find_model, load_model
from CACScoringLib.models.inference import use_threads

from ..data.scan_table import TableScan

Work = Callable[[CTScan, HeartRegion], dict[str, np.ndarray]]
"""What is kept of a scan, arrays by name; importable or picklable, for it runs in other processes."""

MEMORY_EACH_BYTES = 2_000_000_000


@dataclass(frozen=True)
class Prepared:
    """files: of the scans by name, see `load`. failed: why the others were left out, by name."""

    files: dict[str, Path]
    failed: dict[str, str]


def prepare(
    scans: Sequence[TableScan],
    folder: Path,
    kind: str,
    work: Work,
    settings_key: str,
    workers: int | None = None,
    progress: Progress | None = None,
) -> Prepared:
    """Do `work` on every scan and keep what it gives below `folder`/`kind`; done before, it is not done again.

    settings_key: stands for all that the work depends on beside the scan. workers: processes; one per core, as far as
    the memory allows, when None. A scan that cannot be read or has no heart stops no other: `failed` has the reason.
    Raises CTError where none can be prepared.
    """
    progress = progress or Progress()
    (folder / kind).mkdir(parents=True, exist_ok=True)
    files = {scan.name: folder / kind / f"{_key(scan, settings_key)}.npz" for scan in scans}
    missing = [scan for scan in scans if not files[scan.name].exists()]
    failed: dict[str, str] = {}
    if missing:
        jobs = [(scan, files[scan.name]) for scan in missing]
        count = workers or sensible_count(MEMORY_EACH_BYTES)
        events = run_jobs(partial(_begin, work), jobs, count, progress.counted)
        reasons = {scan.name: event.reason or event.result for scan, event in zip(missing, events, strict=True)}
        failed = {name: reason for name, reason in reasons.items() if reason}
    if len(failed) == len(scans):
        name, reason = next(iter(failed.items()))
        raise CTError(f"None of {len(scans)} scans could be prepared; {name}: {reason}")
    return Prepared({name: file for name, file in files.items() if name not in failed}, failed)


def load(file: Path) -> dict[str, np.ndarray]:
    """The arrays that were kept of a scan."""
    with np.load(file, allow_pickle=False) as content:
        return {name: content[name] for name in content.files}


def _begin(work: Work) -> Callable[[tuple[TableScan, Path]], str]:
    """In a process of its own: one core each, and one heart network for all its scans."""
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    use_threads(1)
    network = load_model(find_model("territories").path, "cpu")
    return partial(_prepare_one, work, network)


def _prepare_one(work: Work, network: object, job: tuple[TableScan, Path]) -> str:
    """Returns why it failed, or nothing."""
    from CACScoringLib.anatomy.heart_search import find_heart
    from CACScoringLib.io.reading import read_ct

    table_scan, file = job
    try:
        scan = read_ct(table_scan.ct, table_scan.series)
        heart = None if table_scan.heart is None else read_mask(table_scan.heart)
        region = find_heart(scan, heart, None, network)
        arrays = work(scan, region)
    except CTError as error:
        return str(error)
    with atomic_write(file) as half:
        np.savez_compressed(half, **arrays)
    return ""


def _key(scan: TableScan, settings: str) -> str:
    """Of a scan's files as they are now, of settings, and of the network that finds the heart where none is given."""
    parts = [str(scan.ct.resolve()), str(scan.series), str(scan.heart and scan.heart.resolve()), settings]
    if scan.heart is None:
        parts.append(find_model("territories").card.sha256)
    for place in (scan.ct, *([scan.heart] if scan.heart else [])):
        for file in sorted(place.rglob("*")) if place.is_dir() else [place]:
            status = file.stat()
            parts.append(f"{file.name} {status.st_size} {status.st_mtime_ns}")
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:24]
