"""Scans of trainings and studies of whole-scan estimates: tables, test, controls, clinical factors, and preparation.

Each scan is prepared once: it is read, its heart found as in scoring, and processed.
"""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import SimpleITK as sitk

from CACScoringLib.anatomy.heart_region import HeartRegion
from CACScoringLib.cohort.workers import run_jobs, sensible_count
from CACScoringLib.core.ct import CTScan, ScanWarning
from CACScoringLib.core.errors import CTError, TableError
from CACScoringLib.core.files import atomic_write, read_json
from CACScoringLib.core.progress import Progress
from CACScoringLib.io.reading import read_mask
from CACScoringLib.models.cards import LoadedModel, find_model, load_model
from CACScoringLib.models.inference import use_threads

from ..data.scan_table import TableScan, held_out, join, read_cts, table_hash
from ..evaluation.experiment import (
    CONTROL,
    HELD_OUT,
    Cohort,
    Experiment,
    ExperimentSettings,
    FittedModel,
    TrainingBudget,
)
from ..evaluation.measures import ExperimentComparison

if TYPE_CHECKING:
    from ..training.settings import RunOptions


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


def are_digital(scans: Sequence[TableScan]) -> bool:
    """Return True if all scans with calcium are of digital patients or inserted, with a truth beside their CTs."""
    return all((scan.ct.parent / "truth.json").is_file() for scan in scans if scan.total)


def kind_of_data(scans: Sequence[TableScan]) -> str:
    """Describe the scans for a model's card."""
    if not are_digital(scans):
        return "chest CT of a user's table"
    real = [scan for scan in scans if _is_real(scan.ct.parent / "truth.json")]
    inserted = sum(bool(scan.total) for scan in real)
    counts = {"real ones with inserted plaque": inserted, "real ones without any": len(real) - inserted}
    return ", ".join(["digital patients' CT with known calcium", *(f"{n} {kind}" for kind, n in counts.items() if n)])


def _is_real(truth: Path) -> bool:
    """Return True unless it is the truth of a digital patient, whose body it states."""
    return not truth.is_file() or "body" not in read_json(truth)


def on_controls(positive: np.ndarray) -> dict[str, object]:
    """Return a card's result on controls with non-coronary calcium only, bool [n]; empty without controls."""
    if not len(positive):
        return {}
    return {"non_coronary_only": {"patients": len(positive), "called_coronary": int(positive.sum())}}


VALIDATION_PARTS = 5
"""Number of parts of the patients that are not held out; one of them validates the training of a network."""


@dataclass(frozen=True)
class ScanList:
    """Scans of the tables of an experiment.

    Attributes:
        scans: All scans.
        outside: Fold of the scans outside the cross-validation, HELD_OUT or CONTROL, by name.
    """

    scans: tuple[TableScan, ...]
    outside: Mapping[str, int]

    @property
    def controls(self) -> list[TableScan]:
        return [scan for scan in self.scans if self.outside.get(scan.name) == CONTROL]

    def cohort(self, heart_ml: Mapping[str, float], failed: Mapping[str, str], budget: TrainingBudget) -> Cohort:
        """Split the prepared scans; see `Cohort.split`. heart_ml: volume of the heart of prepared scans by name."""
        scans = [scan for scan in self.scans if scan.name in heart_ml]
        factors = np.array([(*scan.factors[:2], heart_ml[scan.name]) for scan in scans], float)
        return Cohort.split(scans, self.outside, budget, factors, failed)


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

    def read(self, scores: Sequence[str], progress: Progress, noncoronary_controls: Path | None = None) -> ScanList:
        """Read all scans without contrast agent.

        Args:
            scores: Scores that each scan must have.
            progress: Progress that is warned of scans left out.
            noncoronary_controls: Table of patients with calcium outside the coronary arteries only, if any.

        Raises:
            CTError: A table cannot be used, or its scans all have contrast agent.
        """

        def scans_of(path: Path | None) -> list[TableScan]:
            scans = read_cts(path, scores, self.gated, progress) if path else ()
            unenhanced = [scan for scan in scans if not scan.contrast]
            if n_enhanced := len(scans) - len(unenhanced):
                message = f"{n_enhanced} scans of {path} are left out: they are contrast-enhanced."
                progress.warning(ScanWarning("scan-left-out", message))
            if path and not unenhanced:
                raise CTError(f"{path} holds no scan without contrast agent. Give others.")
            return unenhanced

        data, test, controls = map(scans_of, (self.data, self.test, noncoronary_controls))
        scans, test_names = join(data, test)
        check_noncoronary_controls(scans, controls)
        controls = [replace(scan, name=f"control {scan.name}") for scan in controls]
        outside = dict.fromkeys(test_names or held_out(scans), HELD_OUT)
        return ScanList((*scans, *controls), outside | {scan.name: CONTROL for scan in controls})


def check_noncoronary_controls(training: Sequence[TableScan], controls: Sequence[TableScan]) -> None:
    """Raise TableError if a patient of the controls is a training patient, or has coronary calcium."""
    join(training, controls)
    if calcified := [scan.name for scan in controls if scan.total]:
        raise TableError(f"{calcified[0]} of noncoronary_controls has coronary calcium. Give patients without any.")


class WholeScanStudy(Experiment):
    """Experiment on estimates from CTs with one outcome; `train` tests its model on held-out patients and controls."""

    SCORES: ClassVar[Sequence[str]]
    """Scores that each scan must have."""
    FACTORS: ClassVar[Sequence[str]] = ("age", "sex", "heart size")

    @classmethod
    @abstractmethod
    def configurations_for(cls, settings: Any, scans: Sequence[TableScan]) -> Sequence[Any]:
        """Return the configurations of a study's settings that the scans allow."""

    @classmethod
    @abstractmethod
    def of_scans(cls, settings: Any, scan_list: ScanList, fits: Sequence[Any], progress: Progress) -> WholeScanStudy:
        """Prepare scans for fits, and return the experiment, whose configurations are the fits' settings.

        settings: of a study.
        """

    @abstractmethod
    def test(
        self, model: LoadedModel, fitted: FittedModel, settings: Any, comparison: ExperimentComparison
    ) -> tuple[dict[str, object], np.ndarray]:
        """Test the model of the last step.

        Args:
            model: The model as scoring loads it.
            fitted: The same as fitted.
            settings: Settings of its fit.
            comparison: Resamples of held-out patients.

        Returns:
            Measures on held-out patients in the format of `CACScoringLib.whole_scan.trust`, and controls that it calls
            coronary, bool [n].
        """

    @classmethod
    def read(cls, settings: Any, progress: Progress) -> WholeScanStudy:
        scan_list = settings.read(cls.SCORES, progress)
        configurations = cls.configurations_for(settings, scan_list.scans)
        fits = [configuration.fit_settings(settings.budget) for configuration in configurations]
        return replace(cls.of_scans(settings, scan_list, fits, progress), configurations=tuple(configurations))

    @classmethod
    def for_training(cls, options: RunOptions, settings: Any, progress: Progress) -> WholeScanStudy:
        sources = settings.sources
        kind: Any = cls.SETTINGS
        study = kind(
            options.only_table(),
            options.folder,
            sources.test,
            budget=TrainingBudget(VALIDATION_PARTS, seed=settings.seed),
            workers=options.workers,
            device=options.device,
            cache=sources.cache or options.folder / "scans",
            **cls.shared_settings(settings),
        )
        scan_list = study.read(cls.SCORES, progress, sources.noncoronary_controls)
        experiment = cls.of_scans(study, scan_list, [cls.settings_of_fit(settings)], progress)
        for name, reason in experiment.cohort.failed.items():
            progress.warning(ScanWarning("scan-left-out", f"{name} was left out: {reason}"))
        return experiment

    @classmethod
    def settings_of_fit(cls, settings: Any) -> Any:
        """Return the settings of `fit` that a training's settings hold."""
        return settings

    @classmethod
    def shared_settings(cls, settings: Any) -> dict[str, Any]:
        """Return further settings of the study, by name, that a training has too."""
        return {}

    @property
    def is_digital(self) -> bool:
        return are_digital(self.cohort.scans)

    def fit_settings(self, configuration: Any) -> Any:
        return configuration.fit_settings(self.settings.budget)

    def test_results(self, model: LoadedModel, settings: Any, fitted: FittedModel) -> dict[str, object]:
        """Return the test of a model for its card."""
        scans = self.cohort.scans_at(self.cohort.held_out)
        patients = [scan.patient for scan in scans]
        comparison = ExperimentComparison(patients, {}, np.random.default_rng(settings.seed))
        measures, called = self.test(model, fitted, settings, comparison)
        about = {"patients": len(set(patients)), "data": kind_of_data(scans)}
        return about | measures | on_controls(called)

    def describe_data(self, counts: Mapping[str, int]) -> str:
        """Describe the data for a model's card. counts: number of scans by their use."""
        scans = self.cohort.scans_at(np.flatnonzero(self.cohort.folds[:, 0] != CONTROL))
        uses = ", ".join(f"{use} {count}" for use, count in counts.items())
        return f"{kind_of_data(scans)}; {uses} scans; table SHA-256 {table_hash(scans)}"


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
    """Return a digest of a scan's current files, the settings, and the network that finds heart and territories."""
    parts = [str(scan.ct.resolve()), str(scan.series), str(scan.heart and scan.heart.resolve()), settings]
    parts.append(find_model("territories").card.sha256)
    for place in (scan.ct, *([scan.heart] if scan.heart else [])):
        for file in sorted(place.rglob("*")) if place.is_dir() else [place]:
            status = file.stat()
            parts.append(f"{file.name} {status.st_size} {status.st_mtime_ns}")
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:24]
