"""Scans of trainings and studies of whole-scan estimates: their tables, the test, controls, and clinical factors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from CACScoringLib.core.ct import ScanWarning
from CACScoringLib.core.errors import CTError, TableError
from CACScoringLib.core.progress import Progress

from ..data.scan_table import TableScan, held_out, join, read_cts, table_hash
from ..evaluation.experiment import Cohort, ExperimentSettings, TrainingBudget


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

    def read(self, data: Path) -> tuple[tuple[TableScan, ...], list[str], tuple[TableScan, ...]]:
        """Read all scans of data and test, the names of test scans, and the controls.

        Raises TableError if a training patient is in the test, or a control has coronary calcium.
        """
        training, test, controls = (
            read_cts(path) if path else () for path in (data, self.test, self.noncoronary_controls)
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

    def read(self) -> tuple[tuple[TableScan, ...], list[str]]:
        """Read all scans without contrast agent, and the names of held-out ones. Raises CTError."""
        data, test = (
            [scan for scan in read_cts(path) if not scan.contrast] if path else [] for path in (self.data, self.test)
        )
        if self.test and not test:
            raise CTError(f"{self.test} holds no scan without contrast agent. Give others as test.")
        scans, test_names = join(data, test)
        return scans, test_names or held_out(scans)


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
