"""Common parts of the tasks vessel regression and radiomics: settings, patients, and clinical factors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..data.scan_table import TableScan, held_out, join, read_cts
from ..evaluation.experiment import Cohort, ExperimentSettings, TrainingBudget
from ..evaluation.jobs import StudyError

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
        """Read all scans without contrast agent, and the names of held-out ones. Raises TableError."""
        data, test = (
            [scan for scan in read_cts(path) if not scan.contrast] if path else [] for path in (self.data, self.test)
        )
        if self.test and not test:
            raise StudyError(f"{self.test} holds no scan without contrast agent. Give others with --test.")
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
