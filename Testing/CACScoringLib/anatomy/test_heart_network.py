"""The heart by overlapping patches, with networks whose answer is known."""

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from handmade_networks import loaded, scan_of
from scipy import ndimage
from torch import nn

from CACScoringLib.anatomy import heart_network
from CACScoringLib.anatomy.heart_network import heart_mask, heart_probability
from CACScoringLib.core.ct import NoHeartError
from CACScoringLib.core.grid import Grid
from CACScoringLib.models.preprocessing import heart_input
from CACScoringLib.networks.van_velzen import HeartNetConfig

TISSUE_HU, LUNG_HU = 40, -800


class Tissue(nn.Module):
    """Heart is where tissue is."""

    def forward(self, x):
        return torch.cat([1 - x, x / 0.54], 1)


class PlaceInPatch(nn.Module):
    """1 in a patch's first half along i, 0 in its second: shows how patches are averaged."""

    def forward(self, x):
        y = torch.zeros_like(x)
        y[..., :32] = 1
        return torch.cat([1 - y, y], 1)


def ball_scan(spacing_mm=(0.9, 0.9, 2.5), radius_mm=45.0, second=False):
    size = [round(240 / s) for s in spacing_mm]
    k, j, i = np.indices(size[::-1])
    x, y, z = (n * s - 120 for n, s in zip((i, j, k), spacing_mm, strict=True))
    inside = (x - 15) ** 2 + (y + 10) ** 2 + z**2 < radius_mm**2
    hu = np.where(inside, TISSUE_HU, LUNG_HU)
    if second:
        hu[(x + 80) ** 2 + (y - 80) ** 2 + z**2 < 20**2] = TISSUE_HU
    return scan_of(hu.astype(np.int16), spacing_mm, inside)


@pytest.mark.long
@pytest.mark.parametrize("spacing_mm", [(0.9, 0.9, 2.5), (1.4, 1.4, 5.0), (2.0, 2.0, 1.5)])
def test_mask_has_the_networks_place_on_the_scans_grid(spacing_mm):
    scan, truth = ball_scan(spacing_mm)
    mask, warnings = heart_mask(scan, loaded(Tissue(), HeartNetConfig()), margin_mm=0.0)
    assert mask.GetPixelID() == sitk.sitkUInt8
    overlap = sitk.LabelOverlapMeasuresImageFilter()
    overlap.Execute(mask, truth)
    assert overlap.GetDiceCoefficient() > 0.97
    assert warnings == ()


def test_too_little_heart():
    scan, _ = ball_scan(radius_mm=15.0)  # 14 ml
    with pytest.raises(NoHeartError, match=r"1\d ml"):
        heart_mask(scan, loaded(Tissue(), HeartNetConfig()), margin_mm=0.0)
    scan, _ = ball_scan(radius_mm=0.0)
    with pytest.raises(NoHeartError, match="0 ml"):
        heart_mask(scan, loaded(Tissue(), HeartNetConfig()), margin_mm=0.0)


def test_overlapping_patches_are_averaged(monkeypatch):
    """Two patches along i, at 0 and 32 of 96, each 1 in its first half and 0 in its second."""
    scan, _ = scan_of(np.full((10, 96, 144), TISSUE_HU, np.int16), (1.0, 1.0, 3.0), np.ones((10, 96, 144)))
    scan.image.SetOrigin((0.0, 0.0, 0.0))  # where the grid's voxels begin
    monkeypatch.setattr(heart_network, "OVERLAP", 0.5)
    probability, _ = heart_probability(scan.image, loaded(PlaceInPatch(), HeartNetConfig()))
    assert probability.shape == heart_input(scan.image).shape == (10, 64, 96)
    expected = np.repeat([1.0, 0.5, 0.0], 32)  # patch 1 alone; end of 1 and start of 2; end of 2 alone
    np.testing.assert_allclose(probability, np.broadcast_to(expected, probability.shape))


class Counted(Tissue):
    """Counts the patches it sees."""

    def __init__(self):
        super().__init__()
        self.patches = 0

    def forward(self, x):
        self.patches += len(x)
        return super().forward(x)


def search(scan, region=None):
    """Return the mask as an array, and the number of patches that the network saw."""
    network = Counted()
    mask, _ = heart_mask(scan, loaded(network, HeartNetConfig()), region, margin_mm=0.0)
    return sitk.GetArrayFromImage(mask), network.patches


def test_only_the_surroundings_of_the_region_are_searched():
    scan, truth = ball_scan(radius_mm=30.0)
    mask, all_patches = search(scan)
    mask_in_region, patches = search(scan, truth)
    np.testing.assert_array_equal(mask_in_region, mask)
    assert patches <= all_patches / 4


@pytest.mark.long
@pytest.mark.parametrize(("kept_mm", "codes"), [(90.0, []), (25.0, ["hearts-disagree"])])
def test_heart_is_held_to_the_region_and_disagreement_warned_of(kept_mm, codes, monkeypatch):
    """The region holds all of the heart, 90 mm wide, or its rightmost 25 mm only."""
    scan, truth = ball_scan()
    heart = sitk.GetArrayFromImage(truth) > 0
    part = heart.copy()
    part[:, :, round((120 + 15 - 45 + kept_mm) / 0.9) :] = False
    region = Grid.of(truth).image(part.astype(np.uint8))
    monkeypatch.setattr(heart_network, "REACH_MM", 8.0)
    mask, warnings = heart_mask(scan, loaded(Tissue(), HeartNetConfig()), region, margin_mm=0.0)
    inside = sitk.GetArrayViewFromImage(mask) != 0
    distance_mm = ndimage.distance_transform_edt(~part, scan.image.GetSpacing()[::-1])
    assert [w.code for w in warnings] == codes
    assert distance_mm[inside].max() <= 8 + 1.5  # half a voxel of the network's grid, in all directions
    assert inside[heart & (distance_mm < 8 - 1.5)].mean() > 0.95
