"""Result of scoring a scan."""

from __future__ import annotations

import pickle
import zlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from .core.ct import CTScan, ScanWarning
from .core.labels import NonCoronary, SiteMap
from .core.voxels import ArrayImage
from .record.score_record import ScoredCalcium, severe_first

if TYPE_CHECKING:
    from .anatomy.heart_region import HeartRegion
    from .calcium_map.decomposition import Decomposition
    from .facts.measurement import Measurement
    from .record.score_record import ScoreRecord
    from .record.scores import MethodScore, Score
    from .whole_scan.estimates import WholeScanEstimate

METHOD_TITLES = {"threshold": "Clinical rule (threshold)", "decomposition": "Calcium map (no threshold)"}
"""Titles of the methods of a `ScoreResult`."""

AGATSTON_TITLES = {"threshold": "Agatston", "decomposition": "Adjusted Agatston"}
"""Titles of the sums by the methods' rules; without a threshold they are several times higher than clinical scores."""

CLINICAL_TITLES = {"threshold": "Agatston", "decomposition": "Agatston equivalent"}
"""Titles of the methods' scores on the clinical scale (`Score.clinical_agatston`)."""


@dataclass(frozen=True, repr=False)
class ScoreResult(ScoredCalcium):
    """Scores of one CT with its images; users have it as `api.ScoreResult`.

    All images are on the scan's grid: axial slices, axes towards patient left, posterior and superior. They are
    SimpleITK images, and `np.asarray(image)` is their array [k, j, i].

    Attributes:
        record: What is written to `scores.json`, with its settings and models.
        scan: The scan as read.
        region: The heart that was scored.
        scored: The scan as scored; None if it was not normalised.
        territory_labels: Labels of the territories (`core.labels.TERRITORIES`), uint8 [k, j, i] on the scan's grid;
            None if no network found them.
        decomposition: Calcium map; None without networks, and in a review.
        measurement: Facts that the scores follow from; None of a review, and of a result from another process.
        estimates: Whole-scan estimates that were asked for and succeeded, with their saliency.
    """

    record: ScoreRecord
    scan: CTScan
    region: HeartRegion
    scored: CTScan | None = None
    territory_labels: np.ndarray | None = None
    decomposition: Decomposition | None = None
    estimates: tuple[WholeScanEstimate, ...] = ()
    measurement: Measurement | None = None

    def stating(self, **parts: Any) -> ScoreResult:
        """Return the result with other parts of its record, by the names of its fields."""
        return replace(self, record=replace(self.record, **parts))

    @property
    def _record(self) -> ScoreRecord:
        return self.record

    @property
    def scored_scan(self) -> CTScan:
        """The scan as it was scored, normalised or not."""
        return self.scored or self.scan

    @property
    def methods(self) -> dict[str, MethodScore]:
        """Scores by method: "threshold" is the clinical rule, "decomposition" the calcium map."""
        return self.record.methods

    @property
    def non_coronary(self) -> SiteMap[NonCoronary, Score] | None:
        """Score of each non-coronary site by the clinical rule: `non_coronary["aortic_valve"]`; None if unknown."""
        elsewhere = self.record.non_coronary
        return None if elsewhere is None else elsewhere.scores

    @property
    def warnings(self) -> tuple[ScanWarning, ...]:
        """Doubts about the scan and its scores, severe ones first; read those before any number."""
        return tuple(severe_first(self.record.warnings))

    def _image(self, array: np.ndarray) -> ArrayImage:
        """Return an array on the scan's grid as an image."""
        return ArrayImage(self.scan.grid.image(array))

    @property
    def calcium_map(self) -> ArrayImage | None:
        """HU that calcium adds to each voxel, 0 elsewhere; None if only the clinical rule was used."""
        parts = self.decomposition
        return None if parts is None else self._image(parts.hu)

    @property
    def heart(self) -> ArrayImage:
        """Mask of the heart, uint8, 0 and 1."""
        return self._image(self.region.mask)

    @property
    def territories(self) -> ArrayImage | None:
        """Labels of the vessel territories (`core.labels.TERRITORIES`), uint8; None without that network."""
        territories = self.territory_labels
        return None if territories is None else self._image(territories)

    def to_dict(self) -> dict[str, Any]:
        """Return the content of `scores.json`, without patient name, ID, study date and UIDs."""
        return self.record.as_json()

    def __getstate__(self) -> bytes:
        """Return the fields compressed, as a scan with its masks takes hundreds of megabytes."""
        return zlib.compress(pickle.dumps({**self.__dict__, "measurement": None}), 1)

    def __setstate__(self, state: bytes) -> None:
        self.__dict__.update(pickle.loads(zlib.decompress(state)))
