"""Result of scoring a scan."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from .core.ct import CTScan, ScanWarning

if TYPE_CHECKING:
    from .anatomy.heart_region import HeartRegion
    from .calcium_map.decomposition import Decomposition
    from .record.score_record import ScoreRecord
    from .record.scores import MethodScore, NonCoronaryScore
    from .whole_scan.estimates import WholeScanEstimate

METHOD_TITLES = {"threshold": "Clinical rule (threshold)", "decomposition": "Calcium map (no threshold)"}
"""Titles of the methods of a `ScoreResult`."""

AGATSTON_TITLES = {"threshold": "Agatston", "decomposition": "Adjusted Agatston"}
"""Titles of the sums by the methods' rules; without a threshold they are several times higher than clinical scores."""

CLINICAL_TITLES = {"threshold": "Agatston", "decomposition": "Agatston equivalent"}
"""Titles of the methods' scores on the clinical scale (`Score.clinical_agatston`)."""


@dataclass(frozen=True)
class ScoreResult:
    """Result of scoring a scan: its record, and the images that the record is of.

    Attributes:
        record: What is written to `scores.json`.
        scan: The scan as read.
        heart: The heart that was scored.
        scored: The scan as scored; None if it was not normalised.
        territories: Labels of the territories (`core.labels.TERRITORIES`), uint8 [k, j, i] on the scan's grid; None if
            no network found them.
        decomposition: Calcium map; None without networks, and in a review.
        estimates: Whole-scan estimates that were asked for and succeeded, with their saliency.
    """

    record: ScoreRecord
    scan: CTScan
    heart: HeartRegion
    scored: CTScan | None = None
    territories: np.ndarray | None = None
    decomposition: Decomposition | None = None
    estimates: tuple[WholeScanEstimate, ...] = ()

    def __repr__(self) -> str:
        return f"ScoreResult({self.scan!r}, {self.methods!r})"

    def stating(self, **parts: Any) -> ScoreResult:
        """Return the result with other parts of its record, by the names of its fields."""
        return replace(self, record=replace(self.record, **parts))

    @property
    def scored_scan(self) -> CTScan:
        """The scan as it was scored, normalised or not."""
        return self.scored or self.scan

    @property
    def methods(self) -> dict[str, MethodScore]:
        """Scores by method; "threshold" is the clinical rule, "decomposition" the calcium map."""
        return self.record.methods

    @property
    def non_coronary(self) -> NonCoronaryScore | None:
        """Calcium outside the arteries; None if neither network nor reader separated it."""
        return self.record.non_coronary

    @property
    def warnings(self) -> tuple[ScanWarning, ...]:
        """Warnings of all steps."""
        return self.record.warnings
