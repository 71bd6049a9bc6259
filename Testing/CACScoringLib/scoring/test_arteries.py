"""Suggested arteries: Bayes' rule on atlases whose answer is known, the heart's frame, and the bundled atlas."""

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from CACScoringLib.core.labels import Artery
from CACScoringLib.scoring.arteries import CELLS, LIMIT, ArteryAtlas, AtlasError, read_atlas, suggest_arteries
from CACScoringLib.scoring.lesions import Lesion, LesionSet

SIZE_MM = 160.0
RADII_MM = (60.0, 50.0, 55.0)
CENTRE_MM = (85.0, 70.0, 75.0)
ORIGIN_MM = (-120.0, 35.0, -410.0)
"""Radii of the heart, an ellipsoid: left, posterior, superior."""


def image_of(array, spacing_mm):
    image = sitk.GetImageFromArray(array)
    image.SetSpacing(spacing_mm)
    image.SetOrigin([o + s / 2 for o, s in zip(ORIGIN_MM, spacing_mm, strict=True)])
    return image


def heart_and_lesion(place, spacing_mm=(2.0, 2.0, 2.0), radius_mm=4.0):
    """Scan, heart mask, and a ball at a place (left, posterior, superior) in heart radii."""
    x, y, z = np.meshgrid(*(np.arange(s / 2, SIZE_MM, s) for s in spacing_mm), indexing="ij")
    inside = sum(((a - c) / r) ** 2 for a, c, r in zip((x, y, z), CENTRE_MM, RADII_MM, strict=True)) <= 1
    at = [c + p * r for c, p, r in zip(CENTRE_MM, place, RADII_MM, strict=True)]
    ball = sum((a - b) ** 2 for a, b in zip((x, y, z), at, strict=True)) <= radius_mm**2
    heart = image_of(np.ascontiguousarray(inside.T.astype(np.uint8)), spacing_mm)
    return image_of(np.where(ball.T, 400, 40).astype(np.int16), spacing_mm), heart, lesion_set(ball.T)


def lesion_set(*voxels):
    """Lesions 1, 2, … at voxels given as bool [k, j, i]."""
    ids = np.zeros(voxels[0].shape, np.uint16)
    for number, mask in enumerate(voxels, start=1):
        ids[mask] = number
    lesions = tuple(Lesion(n, Artery.UNASSIGNED, (), (0.0, 0.0, 0.0)) for n in range(1, len(voxels) + 1))
    return LesionSet(lesions, ids)


def atlas_of(*rates):
    """An atlas from rates [k, j, i] or numbers: LM, LAD, LCX, RCA, not coronary."""
    grids = [np.broadcast_to(np.asarray(rate, float), (CELLS,) * 3) for rate in rates]
    return ArteryAtlas(np.log(np.stack(grids)).astype(np.float32), {})


class TestBayesRule:
    def test_probabilities_follow_the_rates(self):
        image, heart, lesions = heart_and_lesion((0.2, 0.1, 0.3))
        (suggestion,) = suggest_arteries(lesions, image, heart, atlas_of(1, 6, 2, 1, 5))
        assert suggestion.lesion_id == 1
        assert suggestion.artery is Artery.LAD
        assert suggestion.confidence == pytest.approx(0.6)
        assert suggestion.not_coronary_probability == pytest.approx(5 / 15)

    def test_rates_of_a_lesion_are_the_geometric_mean_of_its_voxels(self):
        image, heart, _ = heart_and_lesion((0, 0, 0))
        ids = np.zeros(image.GetSize()[::-1], bool)
        ids[37, 34, 20] = ids[37, 34, 60] = True  # one voxel on either side of the heart's middle
        right_half = (np.arange(CELLS) < CELLS // 2)[None, None]
        atlas = atlas_of(np.where(right_half, 8, 2), np.where(right_half, 1, 9), 1e-9, 1e-9, 1e-9)
        (suggestion,) = suggest_arteries(lesion_set(ids), image, heart, atlas)
        assert suggestion.artery is Artery.LM
        assert suggestion.confidence == pytest.approx(4 / (4 + 3), rel=1e-4)


class TestFrame:
    @pytest.mark.parametrize(
        ("axis", "place"), [(0, (0.1, -0.2, 0.6)), (1, (0.1, 0.6, -0.2)), (2, (0.6, 0.1, -0.2))], ids="kji"
    )
    def test_axes_run_superior_posterior_left(self, axis, place):
        """The atlas knows the left main from 0.4 on towards one side only."""
        shape = [1, 1, 1]
        shape[axis] = CELLS
        beyond = (np.linspace(-LIMIT, LIMIT, CELLS) > 0.4).reshape(shape)
        atlas = atlas_of(np.where(beyond, 99, 1), np.where(beyond, 1, 99), 1e-9, 1e-9, 1e-9)
        image, heart, lesions = heart_and_lesion(place)
        assert suggest_arteries(lesions, image, heart, atlas)[0].artery is Artery.LM
        image, heart, lesions = heart_and_lesion([-p for p in place])
        assert suggest_arteries(lesions, image, heart, atlas)[0].artery is Artery.LAD


class TestLesions:
    def test_order_also_of_ids_with_gaps(self):
        image, heart, first = heart_and_lesion((0.7, 0, 0))
        second = heart_and_lesion((-0.7, 0, 0))[2]
        lesions = lesion_set(first.id_map > 0, second.id_map > 0, np.zeros_like(first.id_map, bool))
        reordered = LesionSet((lesions.lesions[1], lesions.lesions[0]), lesions.id_map)
        is_left = (np.linspace(-LIMIT, LIMIT, CELLS) > 0)[None, None]
        suggestions = suggest_arteries(
            reordered, image, heart, atlas_of(1e-9, np.where(is_left, 9, 1), 1e-9, np.where(is_left, 1, 9), 1)
        )
        assert [(s.lesion_id, s.artery) for s in suggestions] == [(2, Artery.RCA), (1, Artery.LAD)]
        taken_out = LesionSet((lesions.lesions[1],), np.where(lesions.id_map == 1, np.uint16(0), lesions.id_map))
        assert suggest_arteries(taken_out, image, heart)[0].lesion_id == 2


class TestBundledAtlas:
    """Places that any heart on its usual side has."""

    @pytest.mark.parametrize(
        ("place", "artery"),
        [
            ((0.15, -0.1, 0.6), Artery.LM),
            ((0.6, -0.4, 0.55), Artery.LAD),
            ((0.65, 0.45, 0.25), Artery.LCX),
            ((-0.65, -0.35, -0.1), Artery.RCA),
        ],
        ids=lambda value: value.name if isinstance(value, Artery) else "",
    )
    def test_places_of_the_arteries(self, place, artery):
        image, heart, lesions = heart_and_lesion(place)
        (suggestion,) = suggest_arteries(lesions, image, heart)
        assert suggestion.artery is artery
        assert 0.25 <= suggestion.confidence <= 1
        assert suggestion.not_coronary_probability < 0.5

    @pytest.mark.parametrize(
        "place", [(0.05, 0.25, 0.1), (-0.45, 0.1, 1.2), (0, 1.5, 0.5)], ids=["mitral", "arch", "spine"]
    )
    def test_places_without_arteries(self, place):
        image, heart, lesions = heart_and_lesion(place)
        assert suggest_arteries(lesions, image, heart)[0].not_coronary_probability > 0.8


class TestFile:
    def test_code_in_a_file_is_not_run(self, tmp_path):
        class Trap:
            def __reduce__(self):
                return Path.touch, (tmp_path / "sprung",)

        np.savez(tmp_path / "trap.npz", log_rates=np.array([Trap()], object), provenance="{}")
        (tmp_path / "sprung").unlink(missing_ok=True)
        with pytest.raises(AtlasError):
            read_atlas(tmp_path / "trap.npz")
        assert not (tmp_path / "sprung").exists()
