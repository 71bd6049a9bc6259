"""Scans of trainings and studies of whole-scan estimates: tables, test, controls, clinical factors, and preparation.

Each scan is prepared once: it is read, its heart found as in scoring, and processed.
"""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk

from CACScoringLib.anatomy.heart_region import HeartRegion
from CACScoringLib.cohort.workers import run_jobs, sensible_count
from CACScoringLib.core.ct import CTScan, ScanWarning
from CACScoringLib.core.errors import CTError, TableError
from CACScoringLib.core.files import atomic_write
from CACScoringLib.core.progress import Progress
from CACScoringLib.io.reading import read_mask
from CACScoringLib.models.cards import LoadedModel, find_model, load_model
from CACScoringLib.models.inference import use_threads

from ..data.scan_table import TableScan, held_out, join, read_cts, table_hash
from ..evaluation.experiment import Cohort, Experiment, ExperimentSettings, TrainingBudget


@dataclass(frozen=True)
class SourceSettings:
    """Tables for the test, and cache of a training.

    Attributes:
        test: Table of other patients for the test; None for a fifth of --data.
        noncoronary_controls: Table of patients with calcium outside the coronary arteries only, for the test.
        cache: Folder of prepared scans; None for one beside the model.
    """

    test: Path | None = None
    noncoronary_controls: Path | None = None
    cache: Path | None = None

    def read(
        self, data: Path, scores: Sequence[str], progress: Progress
    ) -> tuple[tuple[TableScan, ...], list[str], tuple[TableScan, ...]]:
        """Read all scans of data and test, the names of test scans, and the controls.

        scores: Scores that each scan must have. Raises TableError if a training patient is in the test, or a control
        has coronary calcium.
        """
        training, test, controls = (
            read_cts(path, scores, progress=progress) if path else ()
            for path in (data, self.test, self.noncoronary_controls)
        )
        scans, test_names = join(training, test)
        check_noncoronary_controls(scans, controls)
        return scans, test_names or held_out(scans), controls


def check_noncoronary_controls(training: Sequence[TableScan], noncoronary_controls: Sequence[TableScan]) -> None:
    """Raise TableError if a patient of noncoronary_controls is a training patient, or has coronary calcium."""
    join(training, noncoronary_controls)
    if calcified := [scan.name for scan in noncoronary_controls if scan.total]:
        raise TableError(f"{calcified[0]} of noncoronary_controls has coronary calcium. Give patients without any.")


def are_digital(scans: Sequence[TableScan]) -> bool:
    """Return True if all scans with calcium are of digital patients, with a truth beside their CTs."""
    return all((scan.ct.parent / "truth.json").is_file() for scan in scans if scan.total)


def kind_of_data(scans: Sequence[TableScan]) -> str:
    """Describe the scans for a model's card."""
    if not are_digital(scans):
        return "chest CT of a user's table"
    n_real = sum(not (scan.ct.parent / "truth.json").is_file() for scan in scans)
    return "digital patients' CT with known calcium" + (f" and {n_real} real ones without any" if n_real else "")


def describe_data(scans: Sequence[TableScan], counts: Mapping[str, int]) -> str:
    """Describe the data for a model's card. counts: number of scans by their use."""
    uses = ", ".join(f"{use} {count}" for use, count in counts.items())
    return f"{kind_of_data(scans)}; {uses} scans; table SHA-256 {table_hash(scans)}"


def on_controls(positive: np.ndarray) -> dict[str, object]:
    """Return a card's result on controls with non-coronary calcium only, bool [n]; empty without controls."""
    if not len(positive):
        return {}
    return {"non_coronary_only": {"patients": len(positive), "called_coronary": int(positive.sum())}}


def warn_of_failures(failed: Mapping[str, str], progress: Progress) -> None:
    """Report scans that could not be prepared, by name with their reason."""
    for name, reason in failed.items():
        progress.warning(ScanWarning("scan-left-out", f"{name} was left out: {reason}"))


FACTORS = ("age", "sex", "heart size")
"""Columns of `Cohort.factors`."""


@dataclass(frozen=True)
class WholeScanStudySettings(ExperimentSettings):
    """Settings of a study, besides `ExperimentSettings`; without a table for the test, a fifth of the data is held out.

    Attributes:
        cache: Folder of prepared scans; None for one in the output folder.
    """

    cache: Path | None = None

    @property
    def prepared(self) -> Path:
        """Folder of prepared scans."""
        return self.cache or self.output / "prepared"

    def read(self, scores: Sequence[str], progress: Progress) -> tuple[tuple[TableScan, ...], list[str]]:
        """Read all scans without contrast agent, and the names of held-out ones.

        scores: Scores that each scan must have. Raises CTError.
        """
        data, test = (
            [scan for scan in read_cts(path, scores, self.gated, progress) if not scan.contrast] if path else []
            for path in (self.data, self.test)
        )
        if self.test and not test:
            raise CTError(f"{self.test} holds no scan without contrast agent. Give others as test.")
        scans, test_names = join(data, test)
        return scans, test_names or held_out(scans)


class WholeScanStudy(Experiment):
    """Study of estimates from CTs with one outcome, whose columns are those of `columns_of`."""

    @staticmethod
    @abstractmethod
    def columns_of(truth: np.ndarray, predicted: np.ndarray) -> dict[str, np.ndarray]:
        """Return columns of `predicted_rows` from true and predicted values [m, …]."""

    @property
    def is_digital(self) -> bool:
        return are_digital(self.cohort.scans)

    def outcomes(self, rows: np.ndarray, values: np.ndarray) -> dict[str, dict[str, np.ndarray]]:
        return {"": self.columns_of(self.truth[rows], values)}


def cohort_of(
    scans: Sequence[TableScan],
    test_names: Sequence[str],
    heart_ml: Mapping[str, float],
    failed: Mapping[str, str],
    budget: TrainingBudget,
) -> Cohort:
    """Split the prepared scans; see `Cohort.split`. heart_ml: volume of the heart by name, for prepared scans only."""
    scans = [scan for scan in scans if scan.name in heart_ml]
    factors = np.array([(*scan.factors[:2], heart_ml[scan.name]) for scan in scans], float)
    return Cohort.split(scans, test_names, budget, factors, failed)


def factors_title(columns: Sequence[int]) -> str:
    """Return the title of a comparator by columns of FACTORS."""
    return ", ".join(FACTORS[n] for n in columns).capitalize()


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
