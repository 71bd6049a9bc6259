"""In-memory state of a review of a results folder."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from ..calcium_map.decomposition import healthy_image
from ..core.ct import CTScan, same_grid
from ..core.errors import UnreadableError
from ..core.labels import Labelled
from ..core.voxels import voxels_of
from ..io.image_files import read_image
from ..mrml.scene_content import SliceRow, content_of_folder
from ..record.score_record import record_from_text
from ..scoring.lesions import labelled_voxels
from .state import ReviewNotes, ReviewState

_FILES = {"threshold": "lesions", "decomposition": "map_lesions"}
"""Label image of each method: file stem in a results folder and field of `SceneContent`."""


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
        super().__init__(record_from_text(self._content.record, folder.name), ct.image, folder.name)
        recorded_series, series = self.record.input.series_sha256, ct.acquisition.series_sha256
        if recorded_series and series and recorded_series != series:
            raise UnreadableError(f"{folder.name} was scored from another DICOM series. Score this one again.")
        self.heart = voxels_of(self._on_grid(self._content.heart, "heart")) != 0
        self.methods = tuple(method for method in self.record.methods if method in _FILES)
        images = {method: getattr(self._content, _FILES[method]) for method in self.methods}
        self._labels = {method: _labels(self._on_grid(image, method)) for method, image in images.items()}
        self._versions = dict.fromkeys(self.methods, 0)
        self._slices = {row.k: row for row in self._content.slices}
        self._reviewed = {method: self.record.methods[method].reviewed for method in self.methods}
        self._notes = {method: self.recorded_notes(method) for method in self.methods}

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

    def signature(self, method: str) -> object:
        return self._versions[method]

    def labelled(self, method: str) -> Labelled:
        return self._labels[method]

    def write(self, method: str, labelled: Labelled, alone: bool = False) -> None:
        self._labels[method] = labelled if alone else self._labels[method].with_labels(labelled.flat, labelled.values)
        self._versions[method] += 1

    def slices(self) -> list[SliceRow]:
        return list(self._slices.values())

    def set_used(self, used: dict[int, bool]) -> None:
        self._slices |= {k: replace(self._slices[k], used=on) for k, on in used.items()}

    def reviewed(self) -> dict[str, bool]:
        return dict(self._reviewed)

    def set_reviewed(self, method: str, on: bool) -> None:
        self._reviewed[method] = on

    def notes(self, method: str) -> ReviewNotes:
        return self._notes[method]

    def set_notes(self, method: str, notes: ReviewNotes) -> None:
        self._notes[method] = notes

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
