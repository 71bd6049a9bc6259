"""State of a review: its files, the changes of an action, and the lesions of its methods."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk

from ..anatomy.heart_region import HeartRegion
from ..core.ct import CTScan, same_grid, scan_from_image
from ..core.errors import CTError, UnreadableError
from ..core.grid import Grid
from ..core.labels import Artery, Labelled, NonCoronary
from ..mrml.scene_content import SliceRow
from ..quality.normalisation import normalised
from ..record.provenance import Confirmation
from ..record.score_record import ScoreRecord
from ..scoring.judge import recorded_errors
from ..scoring.score import ScanFacts
from ..scoring.uncertainty import ScanErrors
from ..whole_scan.estimates import recorded_estimates
from .review import Difference, Review, recorded_lesions


@dataclass(frozen=True)
class ReviewChange:
    """Change by one action.

    Attributes:
        voxels: Changed voxels by method.
        slices: Use before and after, by slice index k.
        reviewed: State of confirmation before and after, by method.
    """

    voxels: dict[str, Difference]
    slices: dict[int, tuple[bool, bool]]
    reviewed: dict[str, tuple[bool, bool]]

    def __bool__(self) -> bool:
        return bool(self.voxels or self.slices or self.reviewed)


@dataclass(frozen=True)
class ReviewNotes:
    """Facts of a method's review beside its labels.

    Attributes:
        looked_at: Flat index of a voxel of each lesion that was shown to a reader.
        confirmation: Confirmation of the score; None until it is confirmed.
        assigned: Flat index of a voxel of each lesion that a reader has assigned to a site, and the site's label.
    """

    looked_at: tuple[int, ...] = ()
    confirmation: Confirmation | None = None
    assigned: tuple[tuple[int, int], ...] = ()


class ReviewState(ABC):
    """Labels, slices and marks of a review, and the record of the run that is reviewed.

    Images in a scene or on the disk are read on use.

    Args:
        record: Record of the run.
        image: The CT, with any axes.
        name: Name of the CT, for messages.

    Attributes:
        scan: The CT, with axes as in `CTScan` and the facts of the record.
        scored: The CT as scored, normalised if the run was.
        heart: Mask of the heart on the scan's grid, bool [k, j, i].
        record: Content of `scores.json`.
        estimates: Recorded whole-scan estimates.
        methods: Methods that have labels.
        writing: True while the state is written, when observers must not take changes for edits.

    Raises:
        UnreadableError: The CT is not the scan that was scored, or the record cannot be read.
    """

    heart: np.ndarray
    methods: tuple[str, ...]
    writing = False

    def __init__(self, record: ScoreRecord, image: sitk.Image, name: str) -> None:
        self.record = record
        self.estimates = recorded_estimates(record)
        self.scan = _recorded_scan(record, image, name)
        self.scored = normalised(self.scan, record.normalisation)

    @abstractmethod
    def whole_map(self) -> sitk.Image:
        """Return the calcium map on the scan's grid. Raises UnreadableError if it does not lie on the scan's voxels."""

    @abstractmethod
    def saliency(self) -> sitk.Image | None:
        """Return the saliency of a whole-scan estimate on the scan's grid; None without one."""

    @abstractmethod
    def territories(self) -> np.ndarray | None:
        """Return labels of `TERRITORIES` on the scan's grid, uint8 [k, j, i]; None if unknown."""

    @abstractmethod
    def pericardium(self) -> np.ndarray | None:
        """Return the mask of all within the pericardium, bool [k, j, i] on the scan's grid; None if unknown."""

    def pericardium_signature(self) -> object:
        """Return a value that differs once the pericardium may have changed."""
        return None

    @abstractmethod
    def signature(self, method: str) -> object:
        """Return a value that differs once the labels of a method may have changed."""

    @abstractmethod
    def labelled(self, method: str) -> Labelled:
        """Return the labels of a method. Raises CTError if they contradict each other."""

    @abstractmethod
    def write(self, method: str, labelled: Labelled, alone: bool = False) -> None:
        """Label voxels, 0 for none. alone: Remove the labels of all other voxels."""

    @abstractmethod
    def slices(self) -> list[SliceRow]:
        """Return the slices of the calcium map; empty without a map."""

    @abstractmethod
    def set_used(self, used: dict[int, bool]) -> None:
        """Include or exclude slices of the calcium map, by slice index k."""

    @abstractmethod
    def reviewed(self) -> dict[str, bool]:
        """Return True for each method that a reader has confirmed."""

    @abstractmethod
    def set_reviewed(self, method: str, on: bool) -> None:
        """Set or clear the mark of a confirmed method."""

    @abstractmethod
    def notes(self, method: str) -> ReviewNotes:
        """Return the notes on a method's review."""

    @abstractmethod
    def set_notes(self, method: str, notes: ReviewNotes) -> None:
        """Replace the notes on a method's review."""

    def recorded_notes(self, method: str) -> ReviewNotes:
        """Return the notes with which a review of the recorded run begins."""
        review = self.record.review
        return ReviewNotes(confirmation=None if review is None else review.confirmations.get(method))


def _recorded_scan(record: ScoreRecord, image: sitk.Image, name: str) -> CTScan:
    scan = scan_from_image(image, record.acquisition, is_known=True)  # as the voxels' hash shows below
    size, spacing = record.input.size, record.input.spacing_mm
    if scan.image.GetSize() != size or not np.allclose(scan.image.GetSpacing(), spacing, rtol=1e-5, atol=0):
        raise UnreadableError(f"{name} is not the scan that was scored: its size or spacing differs. Score it again.")
    if record.input.voxels_sha256 != scan.voxels_sha256:
        raise UnreadableError(f"{name} is not the scan that was scored: its voxels differ. Score it again.")
    # A file may round the spacing, and scores are to be those of the run to the last digit.
    scan.image.SetSpacing(spacing)
    return scan


def whole_map(calcium_map: sitk.Image, image: sitk.Image) -> sitk.Image:
    """Return a calcium map in HU, stored on a part of the scan's grid, on the whole grid.

    image: Image on the scan's grid. Raises UnreadableError if the map does not lie on the scan's voxels.
    """
    part = Grid.of(image).box(calcium_map)
    within = all(extent.start >= 0 and extent.stop <= n for extent, n in zip(part, image.GetSize(), strict=True))
    if not within or not same_grid(calcium_map, image[part]):
        raise UnreadableError("The calcium map does not lie on the CT's voxels. Score the scan again.")
    return Grid.of(image).paste(calcium_map)


def reviews_of(state: ReviewState) -> dict[str, Review]:
    """Return a review of each method's lesions as recorded by the run."""
    try:
        errors = recorded_errors(state.record)
    except CTError:  # a broken card keeps nobody from the review
        errors = ScanErrors(familiarity=state.record.familiarity)
    record, reviews = state.record, dict[str, Review]()
    region, rules = HeartRegion(state.heart, None, record.heart.source), record.methods["threshold"].rules
    facts = ScanFacts(state.scored, region, rules, record.measured, record.mass_calibration, errors)
    for method in state.methods:
        recorded, clinical = record.methods[method], method == "threshold"
        elsewhere = recorded.non_coronary if clinical else None
        of_reader = ((Artery, recorded.reviewed), (NonCoronary, elsewhere is not None and elsewhere.reviewed))
        first_status = "candidates" if clinical else "automatic"
        reviews[method] = Review(
            method,
            facts,
            recorded.rules,
            None if clinical else state.whole_map(),
            recorded_lesions(recorded),
            tuple(kind for kind, decided in of_reader if decided),
            first_status if recorded.status == "reviewed" else recorded.status,
            None if clinical else reviews.get("threshold"),
        )
    return reviews
