"""The state of a review that began with a folder of results, in memory."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from ..core.ct import CTScan, UnreadableError, same_grid
from ..core.labels import Labelled
from ..io.image_files import read_image
from ..mrml.scene_content import SliceRow, content_of_folder
from ..quality.normalisation import Normalisation
from ..scoring.lesions import labelled_voxels
from .record import estimates_of_record, scan_of_record, whole_map

_IMAGES = {"threshold": "lesions", "decomposition": "map_lesions"}
"""Of a `SceneContent`, and files of a folder of results: the labels of each method."""


class ReviewFolder:
    """The labels, slices and marks of a review, which begin as `cac score` has written them; see `ReviewState`.

    folder: of the results. ct: the scan that was scored.

    Raises UnreadableError when a file is missing or damaged, or the files do not fit together.
    """

    def __init__(self, folder: Path, ct: CTScan) -> None:
        content = content_of_folder(folder, ct.image, folder.name, healthy=False)
        self.record = json.loads(content.record)
        self.estimates = estimates_of_record(self.record)
        self.scan = scan_of_record(ct.image, self.record, folder.name)
        normalisation = Normalisation.recorded(self.record)
        self.scored = self.scan if normalisation is None else normalisation.of(self.scan)
        self.heart = self._on_grid(content.heart, "heart")
        self.methods = tuple(method for method in self.record["methods"] if method in _IMAGES)
        self.writing = False
        self._folder = folder
        self._content = content
        labels = {method: self._on_grid(getattr(content, _IMAGES[method]), method) for method in self.methods}
        self._labels = {method: _labelled(image) for method, image in labels.items()}
        self._versions = dict.fromkeys(self.methods, 0)
        self._slices = list(content.slices)
        self._reviewed = {method: bool(self.record["methods"][method]["reviewed"]) for method in self.methods}

    def calcium_map(self) -> sitk.Image:
        """The calcium map on the scan's grid. Raises UnreadableError when it is on another."""
        return whole_map(self._content.calcium_map, self.scan.image, "The calcium map")

    @property
    def has_healthy(self) -> bool:
        """Whether the healthy image was kept."""
        return (self._folder / "healthy.nii.gz").is_file()

    def healthy(self) -> sitk.Image | None:
        """The healthy image on the scan's grid; None where it was not kept. Raises UnreadableError."""
        return self._on_grid(read_image(self._folder / "healthy.nii.gz"), "healthy image") if self.has_healthy else None

    def saliency(self) -> sitk.Image | None:
        """Of a whole-scan estimate; None without one."""
        return self._content.saliency

    def territories(self) -> sitk.Image | None:
        """Labels of `TERRITORIES`; None where the run knew none."""
        return self._content.territories

    def signature(self, method: str) -> tuple:
        """What differs whenever the labels of a method may have changed."""
        return (self._versions[method],)

    def labelled(self, method: str) -> Labelled:
        """The labels of a method."""
        return self._labels[method]

    def write(self, method: str, labelled: Labelled) -> None:
        """Give voxels to labels, and take the label of those with 0."""
        self.write_all(method, self._labels[method].given(labelled.flat, labelled.values))

    def write_all(self, method: str, labelled: Labelled) -> None:
        """Give voxels to labels, and take the labels of all others."""
        self._labels[method] = labelled
        self._versions[method] += 1

    def slices(self) -> list[SliceRow]:
        """The slices of the scan in the calcium map; none without one."""
        return list(self._slices)

    def set_used(self, used: dict[int, bool]) -> None:
        """Mark slices, by k, as used or not."""
        self._slices = [row if row.k not in used else _switched(row, used[row.k]) for row in self._slices]

    def reviewed(self) -> dict[str, bool]:
        """Whether a reader has said that the review is done, by method."""
        return dict(self._reviewed)

    def set_reviewed(self, method: str, on: bool) -> None:
        """Mark a method as reviewed, or not."""
        self._reviewed[method] = on

    def _on_grid(self, image: sitk.Image, name: str) -> sitk.Image:
        if not same_grid(image, self.scan.image):
            raise UnreadableError(f"The {name} in {self._folder.name} is not on the grid of the CT. Score it again.")
        image.CopyInformation(self.scan.image)
        return image


def labels_as_scored(folder: Path) -> dict[str, Labelled]:
    """The labels that a review of a folder of results begins with, by method. Raises CTError."""
    files = {method: folder / f"{name}.nii.gz" for method, name in _IMAGES.items()}
    return {method: _labelled(read_image(file)) for method, file in files.items() if file.is_file()}


def _labelled(image: sitk.Image) -> Labelled:
    found = labelled_voxels(sitk.GetArrayViewFromImage(image))
    return Labelled(found.flat, found.values.astype(np.uint8))


def _switched(row: SliceRow, used: bool) -> SliceRow:
    return SliceRow(row.k, row.position_ras, row.probability, used, row.decomposed)
