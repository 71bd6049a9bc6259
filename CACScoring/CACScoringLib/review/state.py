"""State of a review in memory or of a folder of results, the changes of an action, and the lesions of its methods."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from ..anatomy.heart_region import HeartRegion
from ..calcium_map.decomposition import healthy_image
from ..core.ct import CTScan, same_grid, scan_from_image
from ..core.errors import CTError, UnreadableError
from ..core.grid import Grid
from ..core.labels import Artery, Labelled, NonCoronary
from ..core.voxels import voxels_of
from ..facts.measurement import ScanFacts
from ..io.image_files import read_image
from ..mrml.scene_content import SliceRow, content_of_folder
from ..quality.normalisation import normalised
from ..record.provenance import Confirmation
from ..record.score_record import ScoreRecord, record_from_text
from ..scoring.judge import recorded_errors
from ..scoring.lesions import labelled_voxels
from ..scoring.uncertainty import ScanErrors
from ..whole_scan.estimates import recorded_estimates
from .review import Difference, Review

_FILES = {"threshold": "lesions", "decomposition": "map_lesions"}
"""Label image of each method: file stem in a results folder and field of `SceneContent`."""


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


def replayed(labels: dict[str, Labelled], steps: Iterable[tuple[str, ReviewChange]]) -> dict[str, Labelled]:
    """Return labels by method after recorded changes, each "begin", "edit", "undo" or "redo"."""
    labels = dict(labels)
    for kind, change in steps:
        for method, voxels in change.voxels.items():
            if method in labels:
                values = voxels.before if kind == "undo" else voxels.after
                labels[method] = labels[method].with_labels(voxels.flat, values)
    return labels


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


class ReviewState:
    """Labels, slices and marks of a review, in memory, and the record of the run that is reviewed.

    Subclasses fill them (`ReviewFolder`), or keep them elsewhere (`scene.ReviewNodes`). Images in a scene or on
    the disk are read on use.

    Args:
        record: Record of the run.
        image: The CT, with any axes.
        name: Name of the CT, for messages.
        methods: Methods that have labels.

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
    writing = False

    def __init__(self, record: ScoreRecord, image: sitk.Image, name: str, methods: Collection[str]) -> None:
        self.record = record
        self.estimates = recorded_estimates(record)
        self.scan = _recorded_scan(record, image, name)
        self.scored = normalised(self.scan, record.normalisation)
        self.methods = tuple(method for method in record.methods if method in methods)
        self._labels: dict[str, Labelled] = {}
        self._versions = dict.fromkeys(self.methods, 0)
        self._slices: dict[int, SliceRow] = {}
        self._reviewed = {method: record.methods[method].reviewed for method in self.methods}
        self._notes = {method: self.recorded_notes(method) for method in self.methods}

    def whole_map(self) -> sitk.Image:
        """Return the calcium map on the scan's grid. Raises UnreadableError if it does not lie on the scan's voxels."""
        raise NotImplementedError

    def saliency(self) -> sitk.Image | None:
        """Return the saliency of a whole-scan estimate on the scan's grid; None without one."""
        raise NotImplementedError

    def territories(self) -> np.ndarray | None:
        """Return labels of `TERRITORIES` on the scan's grid, uint8 [k, j, i]; None if unknown."""
        raise NotImplementedError

    def pericardium(self) -> np.ndarray | None:
        """Return the mask of all within the pericardium, bool [k, j, i] on the scan's grid; None if unknown."""
        raise NotImplementedError

    def pericardium_signature(self) -> object:
        """Return a value that differs once the pericardium may have changed."""
        return None

    def signature(self, method: str) -> object:
        """Return a value that differs once the labels of a method may have changed."""
        return self._versions[method]

    def labelled(self, method: str) -> Labelled:
        """Return the labels of a method. Raises CTError if they contradict each other."""
        return self._labels[method]

    def write(self, method: str, labelled: Labelled, alone: bool = False) -> None:
        """Label voxels, 0 for none. alone: Remove the labels of all other voxels."""
        self._labels[method] = labelled if alone else self._labels[method].with_labels(labelled.flat, labelled.values)
        self._versions[method] += 1

    def slices(self) -> list[SliceRow]:
        """Return the slices of the calcium map; empty without a map."""
        return list(self._slices.values())

    def set_used(self, used: dict[int, bool]) -> None:
        """Include or exclude slices of the calcium map, by slice index k."""
        self._slices |= {k: replace(self._slices[k], used=on) for k, on in used.items()}

    def reviewed(self) -> dict[str, bool]:
        """Return True for each method that a reader has confirmed."""
        return dict(self._reviewed)

    def set_reviewed(self, method: str, on: bool) -> None:
        """Set or clear the mark of a confirmed method."""
        self._reviewed[method] = on

    def notes(self, method: str) -> ReviewNotes:
        """Return the notes on a method's review."""
        return self._notes[method]

    def set_notes(self, method: str, notes: ReviewNotes) -> None:
        """Replace the notes on a method's review."""
        self._notes[method] = notes

    def recorded_notes(self, method: str) -> ReviewNotes:
        """Return the notes with which a review of the recorded run begins."""
        review = self.record.review
        return ReviewNotes(confirmation=None if review is None else review.confirmations.get(method))


class ReviewFolder(ReviewState):
    """Labels, slices and marks of a review, which begin as `cac score` wrote them.

    Args:
        folder: Folder of the results.
        ct: The scan that was scored.

    Raises:
        UnreadableError: A file is missing or damaged, or the files do not fit together.
    """

    def __init__(self, folder: Path, ct: CTScan) -> None:
        self._folder = folder
        self._content = content_of_folder(folder, ct.image, folder.name)
        super().__init__(record_from_text(self._content.record, folder.name), ct.image, folder.name, _FILES)
        recorded_series, series = self.record.input.series_sha256, ct.acquisition.series_sha256
        if recorded_series and series and recorded_series != series:
            raise UnreadableError(f"{folder.name} was scored from another DICOM series. Score this one again.")
        self.heart = voxels_of(self._on_grid(self._content.heart, "heart")) != 0
        images = {method: getattr(self._content, _FILES[method]) for method in self.methods}
        self._labels = {method: _labels(self._on_grid(image, method)) for method, image in images.items()}
        self._slices = {row.k: row for row in self._content.slices}

    def healthy(self) -> sitk.Image:
        """Return the scan without its calcium map. Needs a decomposition."""
        return healthy_image(self.scan.image, self.whole_map())

    def whole_map(self) -> sitk.Image:
        return self._on_grid(self._content.whole_map, "calcium map")

    def saliency(self) -> sitk.Image | None:
        return self._content.saliency

    def territories(self) -> np.ndarray | None:
        labels = self._content.territories
        return None if labels is None else voxels_of(labels)

    def pericardium(self) -> np.ndarray | None:
        outline = self._content.pericardium
        return None if outline is None else voxels_of(self._on_grid(outline, "pericardium")) != 0

    def _on_grid(self, image: sitk.Image | None, name: str) -> sitk.Image:
        if image is None or not same_grid(image, self.scan.image):
            raise UnreadableError(f"The {name} in {self._folder.name} is not on the grid of the CT. Score it again.")
        image.CopyInformation(self.scan.image)
        return image


def labels_as_scored(folder: Path) -> dict[str, Labelled]:
    """Return the initial labels of a review of a results folder, by method. Raises CTError."""
    files = {method: folder / f"{name}.nii.gz" for method, name in _FILES.items()}
    return {method: _labels(read_image(file)) for method, file in files.items() if file.is_file()}


def _labels(image: sitk.Image) -> Labelled:
    labelled = labelled_voxels(voxels_of(image))
    return Labelled(labelled.flat, labelled.values.astype(np.uint8))


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
    facts = ScanFacts(state.scored, region, rules, record.measured, record.mass_calibration)
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
            recorded.table.lesions,
            tuple(kind for kind, decided in of_reader if decided),
            record.non_coronary is not None,
            first_status if recorded.status == "reviewed" else recorded.status,
            None if clinical else reviews.get("threshold"),
            errors,
        )
    return reviews
