"""What trainings of whole-scan models share: the tables that they learn from and are tested on, and their options."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from CACScoringLib.core.ct import ScanWarning
from CACScoringLib.core.progress import Progress
from CACScoringLib.core.tables import TableError
from CACScoringLib.models.cards import LoadedModel, ModelCard, load_model, save_model

from ..data.scan_table import TableScan
from ..training.settings import RunOptions
from .scan_table import read_scan_table
from .split import learned_and_tested

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class Sources:
    """data: table to learn from. test: to test on; None: a fifth of data. noncoronary_controls: of patients whose
    calcium lies outside the coronaries only, to test on. cache: folder of prepared scans.
    """

    data: Path
    cache: Path
    test: Path | None = None
    noncoronary_controls: Path | None = None

    def read(self) -> tuple[tuple[TableScan, ...], list[str], list[str], tuple[TableScan, ...]]:
        """All scans of data and test, the names of those to learn from and to test on, and the controls.

        Raises TableError where a patient who is learned from is tested on, or a control has coronary calcium.
        """
        data, test, controls = (
            read_scan_table(path) if path else () for path in (self.data, self.test, self.noncoronary_controls)
        )
        scans, learned, tested = learned_and_tested(data, test)
        check_noncoronary_controls(scans, controls)
        return scans, learned, tested, controls


@dataclass(frozen=True)
class SourceSettings:
    """test: table of other patients to test on (None: a fifth of --data). noncoronary_controls: of patients with
    calcium outside the coronaries only, to test on. cache: folder of prepared scans (None: beside the model)."""

    test: Path | None = None
    noncoronary_controls: Path | None = None
    cache: Path | None = None

    def of(self, options: RunOptions) -> Sources:
        """With the table of --data."""
        cache = self.cache or options.folder / "scans"
        return Sources(options.only_table(), cache, self.test, self.noncoronary_controls)


def check_noncoronary_controls(learned: Sequence[TableScan], noncoronary_controls: Sequence[TableScan]) -> None:
    """Raises TableError where a patient of noncoronary_controls is learned from, or has coronary calcium."""
    if both := {scan.patient for scan in learned} & {scan.patient for scan in noncoronary_controls}:
        raise TableError(f"Patient {min(both)} is in noncoronary_controls and is learned from. Test on other patients.")
    if calcified := [scan.name for scan in noncoronary_controls if scan.total]:
        raise TableError(f"{calcified[0]} of noncoronary_controls has coronary calcium. Give patients without any.")


def warn_of_failures(failed: dict[str, str], progress: Progress) -> None:
    """Report scans that could not be prepared, by name with their reason."""
    for name, reason in failed.items():
        progress.warning(ScanWarning("scan-left-out", f"{name} was left out: {reason}"))


def as_loaded(network: nn.Module, card: ModelCard) -> LoadedModel:
    """A trained network as scoring will load it: weights of half precision, layers put together."""
    with tempfile.TemporaryDirectory() as temporary:
        return load_model(save_model(network, card, Path(temporary)), "cpu")
