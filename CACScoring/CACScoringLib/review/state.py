"""Where a review is kept, what an action changes in it, and the lesions of its methods."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import SimpleITK as sitk

from ..core.ct import CTError, CTScan
from ..core.labels import Labelled
from ..core.records import recorded_status
from ..mrml.scene_content import SliceRow
from ..quality.calibration_range import Familiarity
from ..scoring.lesions import ScoringRules
from ..scoring.scores import usual_calibration
from ..scoring.uncertainty import ScanErrors
from ..whole_scan.estimates import WholeScanEstimate
from .review import Difference, Review, known_lesions


@dataclass(frozen=True)
class Change:
    """What one action changed. voxels, reviewed: by method. slices: used before and after, by k."""

    voxels: dict[str, Difference]
    slices: dict[int, tuple[bool, bool]]
    reviewed: dict[str, tuple[bool, bool]]

    def __bool__(self) -> bool:
        return bool(self.voxels or self.slices or self.reviewed)


class ReviewState(Protocol):
    """Where a review is kept. Attributes as of `nodes.ReviewNodes`, which documents them."""

    scan: CTScan
    scored: CTScan
    heart: sitk.Image
    record: dict
    estimates: tuple[WholeScanEstimate, ...]
    methods: tuple[str, ...]
    writing: bool

    def calcium_map(self) -> sitk.Image: ...
    def saliency(self) -> sitk.Image | None: ...
    def territories(self) -> sitk.Image | None: ...
    def signature(self, method: str) -> tuple: ...
    def labelled(self, method: str) -> Labelled: ...
    def write(self, method: str, labelled: Labelled) -> None: ...
    def write_all(self, method: str, labelled: Labelled) -> None: ...
    def slices(self) -> list[SliceRow]: ...
    def set_used(self, used: dict[int, bool]) -> None: ...
    def reviewed(self) -> dict[str, bool]: ...
    def set_reviewed(self, method: str, on: bool) -> None: ...


def reviews_of(state: ReviewState) -> dict[str, Review]:
    """The lesions of each method, as the run that the state begins with has recorded and scored them."""
    errors = _errors(state.record)
    return {method: _review(method, state, errors) for method in state.methods}


def _errors(record: dict) -> ScanErrors:
    """By which the scores of a review get intervals. A broken card keeps nobody from the review."""
    try:
        return ScanErrors.recorded(record)
    except CTError:
        return ScanErrors({}, None, None, Familiarity.recorded(record))


def _review(method: str, state: ReviewState, errors: ScanErrors) -> Review:
    rules, recorded = dict(state.record["rules"][method]), state.record["methods"][method]
    rules["weight_bounds_hu"] = tuple(rules["weight_bounds_hu"])
    if method == "decomposition" and "equivalent_mg_per_mm3_hu" not in rules:  # of an earlier version
        own = rules["calibration_mg_per_mm3_hu"]
        rules["equivalent_mg_per_mm3_hu"] = own or usual_calibration(state.scan.acquisition.kvp)
    image, peaks = (state.scored.image, None) if method == "threshold" else (state.calcium_map(), state.scored.image)
    elsewhere = state.record.get("non_coronary") if method == "threshold" else None
    known, by_territory = known_lesions(recorded, elsewhere), state.record.get("territories") is not None
    unreviewed = recorded_status(method, recorded)
    if unreviewed == "reviewed":
        unreviewed = recorded_status(method, {"reviewed": False})
    shown = (ScoringRules(**rules), peaks, state.heart, known, by_territory, unreviewed)
    return Review(method, image, *shown, errors)
