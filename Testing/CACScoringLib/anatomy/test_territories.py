"""Heart and territories of a scan by a network, with one whose answer is known: it names tissue by its brightness."""

from types import SimpleNamespace

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from images import image_of
from scipy import ndimage
from torch import nn

from CACScoringLib.anatomy.territories import MIN_HEART_ML, Territories, find_territories
from CACScoringLib.core.acquisition import Acquisition
from CACScoringLib.core.ct import scan_from_image
from CACScoringLib.core.errors import NoHeartError
from CACScoringLib.core.grid import Grid
from CACScoringLib.core.labels import TERRITORIES
from CACScoringLib.core.scan_grid import ScanGrid

LAD, AORTA, OTHER_ORGAN = (TERRITORIES.index(name) for name in ("LAD", "ascending aorta", "other"))
HEART_HU, LAD_HU, AORTA_HU, BODY_HU = 40.0, 140.0, 220.0, -100.0


class ByBrightness(nn.Module):
    """Heart is what is brighter than fat; the brightest of it is the aorta, then the LAD."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hu = x[:, 0] * 400 - 160
        heart = (hu > -20).float()
        y = torch.zeros(len(x), 1 + len(TERRITORIES), *x.shape[2:])
        y[:, 0] = heart
        names = torch.where(hu > 180, AORTA, torch.where(hu > 90, LAD, OTHER_ORGAN)) * heart.long()
        return y.scatter_(1, 1 + names[:, None], 1.0)


@pytest.fixture
def model():
    return SimpleNamespace(card=SimpleNamespace(name="by-brightness", calibration={}), network=ByBrightness().eval())


def scan_of(spacing, size_mm, centre_mm=(20.0, -15.0, 10.0), radius_mm=50.0):
    """A body with a ball for heart: its front quarter LAD, its top aorta. The origin is the body's middle."""
    counts = [round(side / step) for side, step in zip(size_mm, spacing, strict=True)]
    axes = [(np.arange(n) - (n - 1) / 2) * step for n, step in zip(counts, spacing, strict=True)]
    z, y, x = np.meshgrid(*axes[::-1], indexing="ij")
    hu = np.where((x / 150) ** 2 + (y / 100) ** 2 < 1, BODY_HU, -1000.0)
    ball = (x - centre_mm[0]) ** 2 + (y - centre_mm[1]) ** 2 + (z - centre_mm[2]) ** 2 < radius_mm**2
    hu[ball] = HEART_HU
    hu[ball & (y < centre_mm[1] - radius_mm / 3)] = LAD_HU
    hu[ball & (z > centre_mm[2] + radius_mm / 2)] = AORTA_HU
    hu[0, 0, 0] = 900  # or the image would look as if it were clipped
    image = image_of(hu.astype(np.int16), spacing, [axis[0] for axis in axes])
    hu[0, 0, 0] = -1000
    return scan_from_image(image, Acquisition("test")), hu


SCANS = {
    "thick slices": ((1.0, 1.0, 5.0), (300, 240, 260)),
    "heart alone": ((1.5, 1.5, 2.5), (180, 180, 120)),
}


@pytest.mark.long
@pytest.mark.parametrize("kind", SCANS)
def test_labels_and_heart_have_the_networks_places(kind, model):
    scan, hu = scan_of(*SCANS[kind])
    territories = find_territories(scan, model)
    labels = territories.labels(scan.hu.shape)
    heart = territories.heart_mask(scan.hu.shape)
    for name, true in ((LAD, hu == LAD_HU), (AORTA, hu == AORTA_HU), (OTHER_ORGAN, hu == HEART_HU)):
        overlap = (labels == name) & true
        assert 2 * overlap.sum() / ((labels == name).sum() + true.sum()) > 0.85, TERRITORIES[name]
    true = hu > 0
    assert 2 * (heart & true).sum() / (heart.sum() + true.sum()) > 0.94


@pytest.mark.parametrize("spacing", [(0.7, 0.7, 1.0), (1.5, 1.5, 5.0)])
def test_labels_are_those_of_all_territories_pasted_whole(spacing):
    """Each is looked at only where it can be the likeliest."""
    generator = np.random.default_rng(0)
    image = sitk.Image([round(75 / step) for step in spacing], sitk.sitkInt16)
    image.SetSpacing(spacing)
    grid = ScanGrid.over(image, (3.0, 3.0, 3.0)).crop((slice(2, 24), slice(3, 22), slice(1, 20)))
    evidence = ndimage.gaussian_filter(generator.normal(size=(11, *grid.size[::-1])), (0, 2, 2, 2)) * 40
    probability = (np.exp(evidence) / np.exp(evidence).sum(0)).astype(np.float32)
    best, expected = np.zeros((2, *image.GetSize()[::-1]), np.float32)
    for number, values in enumerate(probability):
        pasted = grid.paste(values, image.GetSize())
        expected[pasted > best] = number
        best = np.maximum(best, pasted)
    labels = Territories(grid, probability[0], probability, "random").labels(expected.shape)
    np.testing.assert_array_equal(labels, expected)
    assert len(np.unique(expected)) == 11


class MistakenAtFirst(ByBrightness):
    """Takes the whole heart for the aorta when it first looks."""

    def __init__(self) -> None:
        super().__init__()
        self.has_looked = False

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = super().forward(x)
        if not self.has_looked:
            y[:, 1 + AORTA], y[:, 1 + LAD] = y[:, 0], 0
        self.has_looked = True
        return y


def test_the_last_looks_decide(model):
    scan, hu = scan_of(*SCANS["heart alone"])
    model.network = MistakenAtFirst().eval()
    labels = find_territories(scan, model, hu > 0).labels(scan.hu.shape)
    assert (labels[hu == LAD_HU] == LAD).mean() > 0.8


def test_a_scan_without_a_heart_is_refused(model):
    scan, _ = scan_of((3.0, 3.0, 3.0), (300, 240, 240), radius_mm=15.0)
    with pytest.raises(NoHeartError, match=r"by-brightness found only 1\d ml") as error:
        find_territories(scan, model)
    assert "heart mask" in str(error.value)
    assert 4 / 3 * np.pi * 1.5**3 < MIN_HEART_ML


def test_arteries_far_from_the_heart_are_none(model):
    """Something as bright as the LAD in the neck, and something as bright as the aorta beside it."""
    scan, hu = scan_of((1.5, 1.5, 3.0), (390, 300, 330))
    hu = sitk.GetArrayFromImage(scan.image)
    hu[95:100, 90:100, 90:100] = LAD_HU
    hu[95:100, 90:100, 120:130] = AORTA_HU
    image = Grid.of(scan.image).image(hu)
    territories = find_territories(scan_from_image(image, Acquisition("test")), model)
    labels = territories.labels(hu.shape)
    assert not labels[93:103].any()
    assert (labels == LAD).any()
    assert (labels == AORTA).any()
    np.testing.assert_allclose(territories.probability.sum(0), 1, atol=1e-4)


class ReachingLad(ByBrightness):
    """The LAD's territory, and if asked for the heart, reach 12 mm beyond what is bright."""

    def __init__(self, heart_reaches: bool) -> None:
        super().__init__()
        self.heart_reaches = heart_reaches

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = super().forward(x)
        heart, lad = (nn.functional.max_pool3d(y[:, [n]], 9, 1, 4) for n in (0, 1 + LAD))
        y[:, 1:] *= 1 - lad
        y[:, [1 + LAD]] = lad
        if self.heart_reaches:
            y[:, [0]] = heart
        return y


@pytest.mark.long
@pytest.mark.parametrize(("heart_reaches", "around_hu"), [(False, BODY_HU), (True, -800.0)], ids=["fat", "lung"])
def test_territories_of_arteries_end_at_the_tissue_of_the_heart(heart_reaches, around_hu):
    scan, hu = scan_of((1.5, 1.5, 3.0), (240, 240, 180))
    voxels = np.where(hu == BODY_HU, around_hu, sitk.GetArrayFromImage(scan.image)).astype(np.int16)
    scan = scan_from_image(Grid.of(scan.image).image(voxels), Acquisition("test"))
    card = SimpleNamespace(name="reaching", calibration={})
    territories = find_territories(scan, SimpleNamespace(card=card, network=ReachingLad(heart_reaches).eval()))
    labels = territories.labels(scan.hu.shape)
    beyond_mm = ndimage.distance_transform_edt(hu <= 0, (3.0, 1.5, 1.5))[labels == LAD].max()
    assert 3.0 <= beyond_mm <= 6.0, "3 mm, on voxels of 3 mm"
    np.testing.assert_allclose(territories.probability.sum(0), 1, atol=1e-4)
