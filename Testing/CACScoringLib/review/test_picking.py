"""Picking lesions and painting, on arrays."""

import numpy as np
import pytest
import SimpleITK as sitk
from images import image_of
from scipy import ndimage

from CACScoringLib.core.labels import Artery
from CACScoringLib.review.picking import PickLimits, Voxels, brush_stroke, pick_lesion, shown_voxels, values_at
from CACScoringLib.scoring.lesions import ScoringRules, find_lesions

SPACING_MM = (2.5, 0.7, 0.8)


def speckled(shape: tuple[int, int, int], share: float, seed: int) -> np.ndarray:
    """HU with a share of voxels at or above 130 HU."""
    rng = np.random.default_rng(seed)
    return np.where(rng.random(shape) < share, rng.integers(130, 900, shape), 40).astype(np.int16)


def image_mask(voxels: Voxels, shape: tuple[int, int, int]) -> np.ndarray:
    mask = np.zeros(shape, bool)
    mask[voxels.part] = voxels.mask
    return mask


class TestPickLesion:
    @pytest.mark.parametrize("seed", range(2))
    def test_is_a_lesion_of_the_scoring(self, seed):
        """Every voxel of a lesion that `find_lesions` finds picks the same lesion, at the image's border too."""
        hu = speckled((7, 15, 17), 0.06, seed)
        image = image_of(hu, SPACING_MM[::-1])
        everywhere = np.full(hu.shape, Artery.UNASSIGNED, np.uint8)
        lesions = find_lesions(image, everywhere, ScoringRules(minimum_area_mm2=0))
        assert len(lesions.lesions) > 5
        for lesion in lesions.lesions:
            expected = lesions.id_map == lesion.id
            for seed_kji in np.argwhere(expected):
                pick = pick_lesion(hu, seed_kji, SPACING_MM)
                assert not pick.leaked
                np.testing.assert_array_equal(image_mask(pick, hu.shape), expected)
                assert pick.mask.any((1, 2)).all(), "the part is tight"

    @pytest.mark.parametrize("seed", range(2))
    def test_a_lesion_ends_at_the_allowed_region(self, seed):
        hu = speckled((6, 14, 14), 0.4, seed)
        allowed = np.random.default_rng(seed).random(hu.shape) < 0.7
        labels, count = ndimage.label((hu >= 130) & allowed, np.ones((3, 3, 3)))
        for label in range(1, count + 1):
            pick = pick_lesion(hu, np.argwhere(labels == label)[0], SPACING_MM, allowed=allowed.__getitem__)
            np.testing.assert_array_equal(image_mask(pick, hu.shape), labels == label)

    def test_threshold_is_included(self):
        hu = np.full((1, 1, 4), 129, np.int16)
        hu[..., 1:3] = 130
        assert pick_lesion(hu, (0, 0, 1), SPACING_MM).count == 2
        assert pick_lesion(hu, (0, 0, 0), SPACING_MM) is None
        assert pick_lesion(hu, (0, 0, 0), SPACING_MM, threshold_hu=129).count == 4

    def test_ball_around_the_click(self):
        hu = np.full((9, 31, 31), 500, np.int16)
        radius = 4.0
        pick = pick_lesion(hu, (4, 15, 15), SPACING_MM, limits=PickLimits(radius_mm=radius))
        distance = np.sqrt((((np.argwhere(hu) - [4, 15, 15]) * SPACING_MM) ** 2).sum(1)).reshape(hu.shape)
        np.testing.assert_array_equal(image_mask(pick, hu.shape), distance <= radius)
        assert not pick.leaked

    def test_ball_keeps_only_connected_voxels(self):
        hu = np.full((1, 3, 11), 40, np.int16)
        hu[0, 0, :], hu[0, :, 10], hu[0, 2, :] = 500, 500, 500  # a U: its arms meet far away
        pick = pick_lesion(hu, (0, 0, 0), (1, 1, 1), limits=PickLimits(radius_mm=5))
        assert set(pick.kji[:, 1]) == {0}

    def test_too_large_is_a_leak(self):
        hu = np.full((20, 60, 60), 500, np.int16)
        limits = PickLimits(most_volume_mm3=300)
        pick = pick_lesion(hu, (10, 30, 30), (1, 1, 1), limits=limits)
        assert pick.leaked
        assert "larger than 300 mm³" in pick.reason
        assert 300 < pick.count < hu.size, "growth was stopped"
        assert pick.holds((10, 30, 30))

    def test_too_far_is_a_leak(self):
        hu = np.full((1, 1, 200), 500, np.int16)
        pick = pick_lesion(hu, (0, 0, 100), (1, 1, 1), limits=PickLimits(most_depth_mm=30))
        assert pick.leaked
        assert "beyond 30 mm" in pick.reason
        assert pick_lesion(hu, (0, 0, 100), (1, 1, 1), limits=PickLimits(most_depth_mm=100)).count == 200

    @pytest.mark.parametrize("seed", range(2))
    def test_a_lesion_ends_at_another_site(self, seed):
        """On a site's voxel it is that site's island, whatever the threshold; elsewhere what no site has."""
        hu = speckled((6, 14, 14), 0.4, seed)
        sites = np.random.default_rng(seed).choice([0, 2, 7], hu.shape)
        for site in (0, 2, 7):
            labels, count = ndimage.label((sites == site) & ((hu >= 130) | (site > 0)), np.ones((3, 3, 3)))
            for label in range(1, count + 1):
                seed_kji = np.argwhere(labels == label)[0]
                pick = pick_lesion(hu, seed_kji, SPACING_MM, sites=sites.__getitem__)
                np.testing.assert_array_equal(image_mask(pick, hu.shape), labels == label)
        below = np.argwhere((sites == 0) & (hu < 130))[0]
        assert pick_lesion(hu, below, SPACING_MM, sites=sites.__getitem__) is None

    def test_a_site_beyond_the_limits_is_a_leak(self):
        hu, sites = np.full((10, 20, 20), 40, np.int16), np.full((10, 20, 20), 8)
        limits = PickLimits(most_volume_mm3=300)
        assert pick_lesion(hu, (5, 5, 5), (1, 1, 1), limits=limits, sites=sites.__getitem__).leaked
        limits = PickLimits(most_volume_mm3=np.inf, most_depth_mm=np.inf)
        assert pick_lesion(hu, (5, 5, 5), (1, 1, 1), limits=limits, sites=sites.__getitem__).count == hu.size

    def test_nothing_outside_the_image(self):
        hu, sites = np.full((3, 3, 3), 500, np.int16), np.ones((3, 3, 3), int)
        assert pick_lesion(hu, (3, 0, 0), SPACING_MM, sites=sites.__getitem__) is None
        assert pick_lesion(hu, (0, -1, 0), SPACING_MM, sites=sites.__getitem__) is None


def test_united_voxels():
    first, second = Voxels.at(np.array([[1, 2, 3], [1, 2, 5]])), Voxels.at(np.array([[4, 0, 3], [1, 2, 5]]))
    union = first.united(second)
    assert sorted(map(tuple, union.kji)) == [(1, 2, 3), (1, 2, 5), (4, 0, 3)]
    assert union.holds((4, 0, 3))
    assert not union.holds((1, 2, 4))
    assert Voxels.at(np.zeros((0, 3), int)) is None


def oblique(seed: int) -> np.ndarray:
    """Voxel to millimetres: anisotropic, turned, shifted."""
    rng = np.random.default_rng(seed)
    turn, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    matrix = np.eye(4)
    matrix[:3, :3] = turn * [0.6, 0.9, 1.7]
    matrix[:3, 3] = rng.normal(0, 30, 3)
    return matrix


class TestBrush:
    SHAPE = (20, 40, 44)

    def positions(self, matrix: np.ndarray) -> np.ndarray:
        kji = np.argwhere(np.ones(self.SHAPE, bool))
        return (kji[:, ::-1] @ matrix[:3, :3].T + matrix[:3, 3]).reshape(*self.SHAPE, 3)

    @pytest.mark.parametrize("seed", range(2))
    def test_ball_by_its_definition(self, seed):
        matrix = oblique(seed)
        centre = matrix[:3] @ [20.3, 18.8, 9.6, 1]
        ball = brush_stroke(self.SHAPE, matrix, centre, centre, 5.0)
        expected = np.linalg.norm(self.positions(matrix) - centre, axis=-1) <= 5
        np.testing.assert_array_equal(image_mask(ball, self.SHAPE), expected)
        assert expected.sum() > 100

    @pytest.mark.parametrize("seed", range(2))
    def test_stroke_is_all_balls_on_its_way(self, seed):
        matrix = oblique(seed)
        ends = np.array([matrix[:3] @ [10.2, 12.1, 6.4, 1], matrix[:3] @ [30.9, 25.0, 12.2, 1]])
        stroke = image_mask(brush_stroke(self.SHAPE, matrix, *ends, 3.0), self.SHAPE)
        places = self.positions(matrix)
        way = ends[0] + np.linspace(0, 1, 60)[:, None] * (ends[1] - ends[0])
        nearest = np.min([np.linalg.norm(places - point, axis=-1) for point in way], axis=0)
        assert stroke[nearest <= 3.0].all()
        assert not stroke[nearest > 3.1].any()

    @pytest.mark.parametrize("axis", range(3))
    @pytest.mark.parametrize("offset", [0.0, -0.49, 0.5])
    def test_disc_is_a_single_layer(self, axis, offset):
        """In the plane of voxels, whichever way the plane lies between two of their layers."""
        matrix = oblique(7)
        index = np.array([20.0, 18.0, 9.0, 1.0])
        index[axis] += offset
        centre = matrix[:3] @ index
        disc = brush_stroke(self.SHAPE, matrix, centre, centre, 4.0, normal=matrix[:3, axis])
        layers = set(disc.kji[:, 2 - axis])
        assert len(layers) == 1
        assert abs(layers.pop() - index[axis]) <= 0.5
        in_plane = np.delete([0.6, 0.9, 1.7], axis)
        assert disc.count * in_plane.prod() == pytest.approx(np.pi * 16, rel=0.2)

    def test_cut_off_at_the_image(self):
        covered = brush_stroke((5, 6, 7), np.eye(4), (0, 0, 0), (0, 0, 0), 2.0)
        assert covered.part == (slice(0, 3), slice(0, 3), slice(0, 3))
        assert brush_stroke((5, 6, 7), np.eye(4), (-5, 0, 0), (-5, 0, 0), 2.0) is None
        assert brush_stroke((5, 6, 7), np.eye(4), (3.5, 3.5, 2.5), (3.5, 3.5, 2.5), 0.3) is None


def test_oblique_slice_has_each_voxel_once_and_no_holes():
    turn = np.array([[0.8, 0.1, 0], [-0.2, 0.9, 0], [0.5, 0.3, 1]])
    to_index = np.eye(4)
    to_index[:3, :3] = turn
    to_index[:3, 3] = (2, 3, 1)
    kji = shown_voxels((30, 30, 30), to_index, 25, 25)
    assert len(np.unique(kji, axis=0)) == len(kji)
    x, y = np.meshgrid(np.arange(25), np.arange(25))
    pixels = np.stack([x, y, 0 * x], -1).reshape(-1, 3) @ turn.T + (2, 3, 1)
    of_pixels = np.floor(pixels[:, ::-1] + 0.5).astype(int)
    inside = of_pixels[((of_pixels >= 0) & (of_pixels < 30)).all(1)]
    assert len(inside) > 300
    assert set(map(tuple, inside)) <= set(map(tuple, kji))
    _, pieces = ndimage.label(Voxels.at(kji).mask, np.ones((3, 3, 3)))
    assert pieces == 1


def test_values_at():
    image = np.arange(24.0).reshape(2, 3, 4)
    turned = image.transpose(2, 1, 0)[::-1]  # another axis order, one axis flipped
    to_image = np.array([[0, 0, -1, 3], [0, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 1.0]])
    kji = np.argwhere(np.ones(turned.shape, bool))
    np.testing.assert_array_equal(values_at(image, kji, to_image), turned.reshape(-1))
    for moved in (-0.4, 0.4):
        to_image[:3, 3] = np.array([3, 0, 0]) + moved
        np.testing.assert_array_equal(values_at(image, kji, to_image), turned.reshape(-1))
    to_image[:3, 3] = (4, 0, 0)
    assert np.isnan(values_at(image, kji, to_image)).sum() == 6


def test_bone_of_a_chest_is_stopped(real_ct):
    image = sitk.ReadImage(str(real_ct("lung_pet_ct_dx/A0001_philips_B_5mm.nii.gz")))
    hu = sitk.GetArrayViewFromImage(image)
    bone = np.argwhere(hu > 400)
    clicks = bone[np.random.default_rng(0).integers(0, len(bone), 60)]
    picks = [pick_lesion(hu, click, image.GetSpacing()[::-1]) for click in clicks]
    assert sum(pick.leaked for pick in picks) >= 58
