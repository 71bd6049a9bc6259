"""A small chest with calcium, and the result folder that `cac score` writes for it, made in a second.

Only the networks are replaced, by ones with a predictable output: a slice is positive if any voxel reaches 300 HU, and
the map is what exceeds tissue.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import SimpleITK as sitk
from handmade_networks import loaded
from images import image_of
from torch import nn, stack

from CACScoringLib.calcium_map.decomposition import DecompositionSettings
from CACScoringLib.core.acquisition import Acquisition
from CACScoringLib.core.ct import scan_from_image
from CACScoringLib.core.files import OutputFolder
from CACScoringLib.core.grid import Grid
from CACScoringLib.core.progress import Progress
from CACScoringLib.models.choice import Networks
from CACScoringLib.networks.configs import GeneratorConfig, SliceClassifierConfig
from CACScoringLib.pipeline import ScoreSettings, score_scan
from CACScoringLib.results import ScoreResult
from CACScoringLib.run import RunSettings, write_result

TISSUE_HU = 40

LESIONS = {"low": (5, 30, 30, 250), "middle": (12, 26, 40, 350), "high": (16, 36, 24, 450)}
"""First voxel (k, j, i) and HU of each calcification; it has two voxels along k and three along j and i."""


def chest_image() -> sitk.Image:
    """Return 20 slices of 64 × 64 pixels of 3 × 3 mm, 3 mm apart, with three calcifications."""
    _, j, i = np.ogrid[0:20, 0:64, 0:64]
    hu = np.full((20, 64, 64), -1000, np.int16)
    hu[np.broadcast_to(((i - 32) / 30) ** 2 + ((j - 32) / 24) ** 2 <= 1, hu.shape)] = -800
    hu[_heart()] = TISSUE_HU
    hu += np.random.default_rng(0).normal(0, 8, hu.shape).astype(np.int16)
    for *at, value in LESIONS.values():
        hu[tuple(slice(start, start + size) for start, size in zip(at, (2, 3, 3), strict=True))] = value
    return image_of(hu, (3.0, 3.0, 3.0), (-90.0, -100.0, 700.0))


def heart_mask(image: sitk.Image) -> sitk.Image:
    return Grid.of(image).image(_heart().astype(np.uint8))


def scored(image: sitk.Image, networks: bool = True, lesions: sitk.Image | None = None) -> ScoreResult:
    """Return the chest's result. lesions: a reader's labels, or None."""
    scan = scan_from_image(image, Acquisition("NRRD"))
    settings = ScoreSettings(decomposition=DecompositionSettings() if networks else None)
    return score_scan(scan, settings, heart_mask(scan.image), lesions, known_networks() if networks else None)


def write(folder: Path, image: sitk.Image, networks: bool = True) -> ScoreResult:
    """Write what `cac score` writes, without a scene, and return the result."""
    result = scored(image, networks)
    write_result(OutputFolder(folder, overwrite=True), result, RunSettings(), Progress())
    return result


class _BrightSlices(nn.Module):
    def forward(self, x):
        shows = (x[:, 0].amax((1, 2)) >= 0.35).float()  # (300 HU + 50) / 1000
        return stack([1 - shows, 0.1 + 0.8 * shows], 1)


class _AboveTissue(nn.Module):
    def forward(self, x):
        return (x[:, :1] - (TISSUE_HU + 50 + 50) / 1000).clamp(min=0)


def known_networks() -> Networks:
    return Networks(loaded(_BrightSlices(), SliceClassifierConfig()), loaded(_AboveTissue(), GeneratorConfig()))


def _heart() -> np.ndarray:
    k, j, i = np.ogrid[0:20, 0:64, 0:64]
    return ((k - 10) / 9.5) ** 2 + ((j - 32) / 16) ** 2 + ((i - 32) / 18) ** 2 <= 1
