"""A scan with known territories, and calcium in an artery, the aortic valve, the mitral annulus and the aorta.

Territories come from a stand-in for the heart search, so that no network is needed.
"""

from __future__ import annotations

from dataclasses import replace
from unittest import mock

import numpy as np
import phantoms
import SimpleITK as sitk
from known_territories import territories_of

from CACScoringLib import pipeline
from CACScoringLib.anatomy.heart_region import HeartRegion
from CACScoringLib.core.acquisition import Acquisition
from CACScoringLib.core.ct import scan_from_image
from CACScoringLib.core.grid import Grid
from CACScoringLib.core.labels import TERRITORIES, Artery, NonCoronary
from CACScoringLib.results import ScoreResult
from CACScoringLib.scoring.lesions import ScoringRules

SITES = (Artery.LAD, NonCoronary.AORTIC_VALVE, NonCoronary.MITRAL_ANNULUS, NonCoronary.THORACIC_AORTA)
NAMES = ("LAD", "aortic valve and root", "mitral annulus", "descending aorta")
HU = (250, 450, 350, 300)
"""HU of the calcium at each site, 4 × 4 voxels in two slices."""


def boxes() -> list[tuple[slice, slice, slice]]:
    """Boxes of the territories, [k, j, i]."""
    quarters = [(j, i) for j in (10, 30) for i in (10, 30)]
    return [(slice(2, 12), slice(j, j + 18), slice(i, i + 18)) for j, i in quarters]


def calcium() -> list[tuple[slice, slice, slice]]:
    """Boxes of the calcium in each territory, [k, j, i]."""
    return [
        (slice(5, 7), slice(b[1].start + 6, b[1].start + 10), slice(b[2].start + 6, b[2].start + 10)) for b in boxes()
    ]


def scan(**facts):
    """Make the scan, with voxels of 1 × 1 × 3 mm."""
    phantom = phantoms.tissue((60, 60, 14), (1.0, 1.0, 3.0))
    hu = sitk.GetArrayFromImage(phantom.image) + np.random.default_rng(0).normal(0, 8, phantom.labels.shape).round()
    for place, value in zip(calcium(), HU, strict=True):
        hu[place] = value
    image = Grid.of(phantom.image).image(hu.astype(np.int16))
    return scan_from_image(image, Acquisition("test", kvp=120.0, slice_thickness_mm=3.0, **facts))


def region(image: sitk.Image) -> HeartRegion:
    """Make the heart with its territories."""
    return region_of(image, dict(zip(NAMES, boxes(), strict=True)))


def region_of(
    image: sitk.Image, places: dict[str, tuple[slice, slice, slice]], heart: sitk.Image | None = None
) -> HeartRegion:
    """Make a heart from boxes [k, j, i] of territories; its mask is all boxes unless given."""
    names = np.zeros(image.GetSize()[::-1], np.uint8)
    for name, place in places.items():
        names[place] = TERRITORIES.index(name)
    mask = names > 0 if heart is None else sitk.GetArrayFromImage(heart) > 0
    territories = replace(territories_of(names), heart=mask.astype(np.float32), source="stand-in")
    return HeartRegion(mask, None, "stand-in", (), territories)


def score(lesions: sitk.Image | None = None, **facts) -> ScoreResult:
    """Score the scan by the clinical rule, optionally with a reader's labels."""
    settings = pipeline.ScoreSettings(ScoringRules(calibration_mg_per_mm3_hu=0.001))
    with mock.patch("CACScoringLib.anatomy.heart_search.find_heart", lambda scan, *_: region(scan.image)):
        return pipeline.score_scan(scan(**facts), settings, lesions=lesions)
