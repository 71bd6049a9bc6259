"""A reader's labels that lie on no calcium, and empty ones, are doubted severely."""

import re

import numpy as np
import pytest
from noisy_hearts import noisy_heart
from scipy import ndimage

from CACScoringLib.core.acquisition import Acquisition
from CACScoringLib.core.ct import CTScan
from CACScoringLib.core.errors import MaskError
from CACScoringLib.core.grid import Grid
from CACScoringLib.core.labels import Artery, NonCoronary
from CACScoringLib.pipeline import score_scan
from CACScoringLib.record.rules import ScoringRules
from CACScoringLib.scoring.labels import (
    MAX_LESION_ML,
    MIN_UNLABELLED,
    reader_labels,
    require_lesions,
    unlabelled_warning,
)
from CACScoringLib.scoring.lesions import find_lesions

AXES = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)

LESIONS = {(6, 20, 26): Artery.LAD, (9, 24, 50): Artery.LAD, (12, 30, 20): Artery.RCA}
"""First voxels of lesions of 4 × 4 pixels in two slices, off every middle of the scan."""


@pytest.fixture(scope="module")
def scan_heart_and_labels():
    labels = np.zeros((40, 80, 80), np.uint8)
    for (k, j, i), artery in LESIONS.items():
        labels[k : k + 2, j : j + 4, i : i + 4] = artery
    return *noisy_heart(labels.shape, [(labels > 0, 300)]), labels


def doubts(scan_heart_and_labels, labels):
    """Severe warnings about labels by code, with their messages."""
    scan, heart, _ = scan_heart_and_labels
    warnings = score_scan(scan, heart=heart, lesions=Grid.of(heart).image(labels)).warnings
    return {w.code: w.message for w in warnings if w.severe and w.code.startswith("labels")}


@pytest.mark.parametrize("pixels", [1, 5])
def test_labels_beside_the_calcium_give_a_severe_warning_with_the_share_below_the_threshold(
    scan_heart_and_labels, pixels
):
    mirrored = ndimage.grey_dilation(scan_heart_and_labels[2], (1, pixels, pixels))[:, :, ::-1].copy()
    assert "100%" in doubts(scan_heart_and_labels, mirrored)["labels-off-calcium"]


@pytest.mark.parametrize("pixels", [1, 9])
def test_labels_drawn_exactly_or_roughly_around_the_calcium_are_not_doubted(scan_heart_and_labels, pixels):
    assert doubts(scan_heart_and_labels, ndimage.grey_dilation(scan_heart_and_labels[2], (1, pixels, pixels))) == {}


@pytest.mark.parametrize(
    ("rows", "columns", "sides"),
    [(-1, 0, "posterior"), (0, -1, "left"), (1, 1, "right and anterior")],
)
def test_exact_labels_a_voxel_off_in_the_slice_are_doubted(scan_heart_and_labels, rows, columns, sides):
    shifted = np.roll(scan_heart_and_labels[2], (rows, columns), (1, 2))
    message = doubts(scan_heart_and_labels, shifted)["labels-off-calcium"]
    assert f"{sides} side" in message


def test_a_label_of_three_that_is_cut_within_calcium_is_not_doubted(scan_heart_and_labels):
    """A reader parts a coronary lesion from calcium of the aorta that touches it."""
    labels = scan_heart_and_labels[2].copy()
    k, j, i = next(iter(LESIONS))
    labels[k : k + 2, j : j + 4, i : i + 2] = 0
    assert doubts(scan_heart_and_labels, labels) == {}


def test_labels_of_half_the_slices_are_doubted_with_the_other_slices(scan_heart_and_labels):
    scan, heart, labels = scan_heart_and_labels
    lower = labels * np.isin(np.arange(len(labels)), [k for k, _, _ in LESIONS])[:, None, None].astype(np.uint8)
    (warning,) = reader_labels(Grid.of(heart).image(lower), scan, ScoringRules()).warnings
    assert warning.code == "labels-doubtful"
    assert "slice 7, 10, 13" in warning.message


@pytest.mark.parametrize("shift", [0, 12])
def test_exact_labels_of_specks_below_the_least_area_are_not_doubted(scan_heart_and_labels, shift):
    scan, heart, labels = scan_heart_and_labels
    specks = np.zeros_like(labels)
    for (k, j, i), artery in LESIONS.items():
        specks[k, j + shift, i : i + 2] = artery
    warnings = reader_labels(Grid.of(heart).image(specks), scan, ScoringRules(minimum_area_mm2=9)).warnings
    assert ("labels-off-calcium" in {warning.code for warning in warnings}) == bool(shift)


@pytest.mark.parametrize(("wrong", "below"), [(1, None), (2, "67%")])
def test_a_region_of_three_may_be_without_calcium(scan_heart_and_labels, wrong, below):
    labels = scan_heart_and_labels[2].copy()
    for k, j, i in list(LESIONS)[:wrong]:
        labels[k : k + 2, j : j + 4, i : i + 4] = 0
        labels[k + 20 : k + 22, j : j + 4, i : i + 4] = Artery.LAD
    warnings = doubts(scan_heart_and_labels, labels)
    assert set(warnings) == (set() if below is None else {"labels-off-calcium"})
    assert below is None or below in warnings["labels-off-calcium"]


def test_an_empty_map_is_doubted_severely_but_no_map_of_other_sites(scan_heart_and_labels):
    labels = scan_heart_and_labels[2]
    assert set(doubts(scan_heart_and_labels, labels * 0)) == {"labels-empty"}
    assert doubts(scan_heart_and_labels, np.where(labels, np.uint8(NonCoronary.AORTIC_VALVE), np.uint8(0))) == {}


@pytest.mark.parametrize(("depth", "below", "is_refused"), [(40, -1, True), (12, -1, False), (40, 100, False)])
def test_a_mask_of_an_organ_is_refused(depth, below, is_refused):
    """Region of 64 × 64 × depth voxels with calcium; below: HU of the rest of it."""
    hu = np.full((40, 80, 80), 40 if below < 0 else 140, np.int16) + np.arange(40, dtype=np.int16)[:, None, None] % 3
    hu[20, 40:44, 40:44] = 400
    scan = CTScan(Grid(hu.shape[::-1], (0.75, 0.75, 1.0), (0.0,) * 3, AXES).image(hu), Acquisition("test"))
    labels = np.zeros(hu.shape, np.uint8)
    labels[:depth, 8:72, 8:72] = Artery.LM
    assert np.count_nonzero(labels) * scan.voxel_volume_mm3 / 1000 > (MAX_LESION_ML if depth == 40 else 0)
    if not is_refused:
        return require_lesions(labels, scan, 130)
    with pytest.raises(MaskError, match=r"--heart or --pericardium|organ"):
        require_lesions(labels, scan, 130)
    with pytest.raises(MaskError):
        reader_labels(scan.grid.image(labels), scan, ScoringRules())
    labels[labels > 0] = NonCoronary.THORACIC_AORTA
    require_lesions(labels, scan, 130)


class TestUnlabelledLesions:
    """Lesions that the automatic score counts and no label touches."""

    @pytest.fixture
    def lesions(self, scan_heart_and_labels):
        scan, _, labels = scan_heart_and_labels
        return find_lesions(scan.image, labels, ScoringRules())

    def messages(self, labels, lesions):
        warnings = unlabelled_warning(labels, lesions)
        assert {(warning.code, warning.severe) for warning in warnings} <= {("labels-doubtful", False)}
        return [warning.message for warning in warnings]

    def test_the_largest_is_named_with_the_sum(self, scan_heart_and_labels, lesions):
        labels = np.where(scan_heart_and_labels[2] == Artery.RCA, np.uint8(Artery.RCA), np.uint8(0))
        missing = [lesion.agatston for lesion in lesions.lesions if lesion.site == Artery.LAD]
        (message,) = self.messages(labels, lesions)
        assert re.findall(r"\d+", message)[:3] == ["2", f"{sum(missing):.0f}", f"{max(missing):.0f}"]
        assert re.search(r"LAD \(slice (6|9),", message)

    def test_a_voxel_of_any_site_suffices(self, scan_heart_and_labels, lesions):
        labels = np.zeros_like(scan_heart_and_labels[2])
        for k, j, i in LESIONS:
            labels[k, j, i] = NonCoronary.THORACIC_AORTA
        assert self.messages(labels, lesions) == []

    @pytest.mark.parametrize(
        ("site", "count"), [(Artery.LCX, 1), (Artery.UNASSIGNED, 0), (NonCoronary.THORACIC_AORTA, 0)]
    )
    def test_lesions_outside_the_main_arteries_are_not_missed(self, scan_heart_and_labels, site, count):
        scan, _, labels = scan_heart_and_labels
        sites = np.where(labels > 0, np.uint8(site), np.uint8(0))
        assert len(self.messages(np.zeros_like(labels), find_lesions(scan.image, sites, ScoringRules()))) == count

    def test_less_than_10_agatston_is_not_mentioned(self, scan_heart_and_labels):
        scan, _, labels = scan_heart_and_labels
        sites = np.zeros_like(labels)
        sites[6, 20, 26:28] = Artery.LAD
        lesions = find_lesions(scan.image, sites, ScoringRules())
        assert 0 < sum(lesion.agatston for lesion in lesions.lesions) < MIN_UNLABELLED
        assert self.messages(np.zeros_like(labels), lesions) == []
