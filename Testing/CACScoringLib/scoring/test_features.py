"""Features of plaques on an analytic left main and descending artery, in scans of any grid."""

from dataclasses import asdict, replace

import numpy as np
import pytest

from CACScoringLib.anatomy.courses import artery_courses
from CACScoringLib.core.ct import Acquisition, CTScan, scan_from_image
from CACScoringLib.core.grid import Grid
from CACScoringLib.core.labels import TERRITORIES, Artery
from CACScoringLib.record.findings import Features
from CACScoringLib.record.rules import ScoringRules
from CACScoringLib.record.scores import LesionSet, MethodScore
from CACScoringLib.scoring.features import covered_length, extent_score, features_of
from CACScoringLib.scoring.lesions import find_lesions
from CACScoringLib.scoring.mass import MAX_MEASURED
from CACScoringLib.scoring.scores import method_score

RULES = ScoringRules()
ACQUISITION = Acquisition("CT")
SPACING_MM, SIZE_MM, ORIGIN_MM = (0.7, 0.7, 1.0), (50.0, 40.0, 110.0), (-15.0, -20.0, -90.0)
PLAQUES = (((20.0, 0.0, -12.0), (1.6, 1.6, 3.0), 900.0), ((21.0, 1.0, -70.0), (2.0, 2.0, 2.0), 500.0))
"""Middle, spread along x, y, z, and peak HU. The artery runs 12 mm in x, then 80 mm towards the feet."""


def places(grid: Grid) -> tuple[np.ndarray, ...]:
    x, y, z = grid.axes_mm()
    return x[None, None, :], y[None, :, None], z[:, None, None]


def territories(grid: Grid) -> np.ndarray:
    x, y, z = places(grid)
    labels = np.zeros(grid.shape, np.uint8)
    labels[(np.hypot(x - 20, y) + 0 * z < 7) & (z < 6) & (z > -80)] = TERRITORIES.index("LAD")
    labels[(np.hypot(y, z) + 0 * x < 6) & (x > 8) & (x <= 17)] = TERRITORIES.index("LM")
    labels[(x**2 + y**2 + z**2) < 9**2] = TERRITORIES.index("aortic valve and root")
    return labels


def scan(spacing_mm=SPACING_MM, plaques=PLAQUES) -> CTScan:
    size = tuple(round(length / step) for length, step in zip(SIZE_MM, spacing_mm, strict=True))
    grid = Grid(size, spacing_mm, ORIGIN_MM)
    x, y, z = places(grid)
    hu = np.where(x < -10, -1000.0, 40.0) + 0 * y + 0 * z  # lung beside tissue
    for middle, spread, peak in plaques:
        offsets = zip((x, y, z), middle, spread, strict=True)
        hu += peak * np.exp(-0.5 * sum(((axis - m) / s) ** 2 for axis, m, s in offsets))
    return scan_from_image(grid.image(np.rint(hu).astype(np.int16)), ACQUISITION)


def scored(ct: CTScan, artery=Artery.LAD) -> MethodScore:
    lesions = find_lesions(ct.image, np.full(ct.hu.shape, artery, np.uint8), RULES)
    return method_score("reviewed", RULES, lesions)


def features(ct: CTScan, artery=Artery.LAD, with_territories: bool = True) -> Features:
    labels = territories(ct.grid) if with_territories else None
    measured = features_of(scored(ct, artery), ct, artery_courses(labels, ct.image.GetSpacing()))
    assert measured is not None
    return measured


@pytest.fixture(scope="module")
def usual():
    return features(scan())


def test_a_course_follows_the_artery_from_its_ostium():
    ct = scan()
    course = artery_courses(territories(ct.grid), SPACING_MM)[Artery.LAD]
    x, y, z = ORIGIN_MM
    middle = [(h - z, 0 - y, 20 - x) for h in (-10.0, -40.0, -70.0)]
    np.testing.assert_allclose(course.at(np.array(middle)), (20, 50, 80), atol=4)
    assert np.isnan(course.at(np.array([(0.0, 0.0, 0.0)]))).all()
    assert artery_courses(np.zeros(ct.hu.shape, np.uint8), SPACING_MM) == {}


def test_places_and_shares_of_two_plaques(usual):
    upper, lower = usual.lesions
    assert upper.ostium_mm == pytest.approx(22, abs=4)
    assert lower.ostium_mm == pytest.approx(80, abs=5)
    assert upper.length_mm == pytest.approx(12, abs=4)
    assert (upper.in_proximal_third, lower.in_proximal_third) == pytest.approx((1, 0))
    assert usual.total.proximal_share == pytest.approx(usual.arteries["LAD"].proximal_share)
    assert usual.total.proximal_share > 0.5
    assert upper.nearest_lesion_mm == lower.nearest_lesion_mm == pytest.approx(49, abs=2)
    assert (usual.diseased_arteries, usual.diffusivity, usual.left_main) == (1, 0, False)
    assert usual.arteries["LAD"].mass_share == 1


def test_the_extent_is_a_share_of_the_arterys_length(usual):
    upper = features(scan(plaques=PLAQUES[:1]))
    artery = upper.arteries["LAD"]
    length_mm = artery.last_mm - artery.first_mm
    assert artery.calcified_share * length_mm == pytest.approx(upper.lesions[0].length_mm, abs=1)
    assert (usual.extent_score, usual.total.calcified_share) == (1, None)
    longer = features(scan(plaques=[((20.0, 0.0, -38.0), (1.6, 1.6, 7.0), 900.0)]))
    assert 1 / 3 < longer.arteries["LAD"].calcified_share < 2 / 3
    assert longer.extent_score == 2


def test_the_extent_score_adds_the_grades_of_the_arteries():
    assert extent_score([]) == 0
    assert extent_score([0.0, 1 / 3, 0.34, 2 / 3]) == 1 + 1 + 2 + 2
    assert extent_score([0.67, 1.0, 1.0, 1.0]) == 12
    assert extent_score([0.2, None]) is None


def test_overlapping_lesions_cover_a_length_once():
    assert covered_length([]) == 0
    assert covered_length([(10, 20), (2, 4), (12, 15), (18, 25)]) == 2 + 15


def test_densities_are_those_of_the_voxels():
    ct = scan()
    method = scored(ct)
    measured = features(ct).total
    values = ct.hu.reshape(-1)[method.lesion_set.voxels.flat]
    volumes = [value for name, value in asdict(measured).items() if name.startswith("volume_")]
    assert sum(volumes) == pytest.approx(method.total.volume_mm3)
    assert volumes[3] == pytest.approx(((values >= 400) & (values < 1000)).sum() * np.prod(SPACING_MM))
    assert measured.median_hu == np.median(values)
    assert 1 < measured.mean_weight < 4


def test_round_lesions_are_spheres_and_long_ones_are_not(usual):
    upper, lower = usual.lesions
    assert lower.sphericity == pytest.approx(1, abs=0.01)
    assert upper.sphericity < 0.95


@pytest.mark.parametrize("spacing_mm", [(0.7, 0.7, 0.5), (0.5, 0.9, 1.4)], ids=["overlapping slices", "anisotropic"])
def test_the_grid_of_the_scan_does_not_matter(usual, spacing_mm):
    resampled = features(scan(spacing_mm))
    for first, second in zip(usual.lesions, resampled.lesions, strict=True):
        one, other = asdict(first), asdict(second)
        for name in ("sd_hu", "p10_hu", "median_hu", "p90_hu", "mean_weight", "sphericity"):
            assert other[name] == pytest.approx(one[name], rel=0.08), name
        for name in ("ostium_mm", "length_mm", "nearest_lesion_mm"):
            assert other[name] == pytest.approx(one[name], abs=3), name
    assert resampled.total.proximal_share == pytest.approx(usual.total.proximal_share, abs=0.03)
    assert resampled.total.largest_lesion_mm3 == pytest.approx(usual.total.largest_lesion_mm3, rel=0.06)


def test_without_territories_places_are_unknown():
    plain = features(scan(), Artery.UNASSIGNED, with_territories=False)
    assert (plain.diseased_arteries, plain.diffusivity, plain.left_main) == (None, None, None)
    assert plain.total.proximal_share is plain.extent_score is None
    assert {lesion.ostium_mm for lesion in plain.lesions} == {None}
    assert plain.lesions[0].sphericity == features(scan()).lesions[0].sphericity


def test_a_scan_without_calcium_has_no_densities():
    empty = features(scan(plaques=[(middle, spread, 60.0) for middle, spread, _ in PLAQUES]))
    assert (empty.total, empty.arteries, empty.lesions) == (None, {}, ())
    assert (empty.diseased_arteries, empty.diffusivity, empty.left_main) == (0, None, False)
    assert empty.extent_score == 0


def test_noise_is_not_measured():
    ct = scan()
    method = scored(ct)
    noisy = replace(method, table=LesionSet.of(method.lesions * MAX_MEASURED))
    assert features_of(noisy, ct, {}) is None


def test_calcium_off_the_arterys_course_has_the_least_grade():
    apart = features(scan(plaques=[((31.0, 15.0, -40.0), (1.6, 1.6, 3.0), 900.0)]))
    assert (apart.arteries["LAD"].calcified_share, apart.extent_score) == (0, 1)
