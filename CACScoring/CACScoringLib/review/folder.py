"""In-memory state of a review of a results folder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import SimpleITK as sitk

from ..calcium_map.decomposition import healthy_image
from ..core.ct import CTScan, same_grid
from ..core.errors import UnreadableError
from ..core.labels import Labelled
from ..core.voxels import voxels_of
from ..io.image_files import read_image
from ..mrml.scene_content import content_of_folder
from ..record.reading import record_from_text
from ..scoring.lesions import labelled_voxels
from .state import ReviewState

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
