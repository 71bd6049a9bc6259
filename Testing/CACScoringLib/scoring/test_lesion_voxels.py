"""Cover what is dense by patches, and read a network's answers back at the voxels of the scan."""

from types import SimpleNamespace

import numpy as np
import pytest
from images import image_of

from CACScoringLib.anatomy.territories import Territories
from CACScoringLib.core.acquisition import Acquisition
from CACScoringLib.core.ct import scan_from_image
from CACScoringLib.core.grid import ScanGrid
from CACScoringLib.networks.configs import LESION_KINDS, LESION_PATCH
from CACScoringLib.scoring.lesion_network import PATCH_STEP_MM, WINDOWS_HU, LesionPatch
from CACScoringLib.scoring.lesion_voxels import (
    ANSWERS,
    CORE,
    METAL_HU,
    NOISE_SCALE_HU,
    covering,
    noise_value,
    voxel_input,
    voxel_kinds,
    voxel_parts,
)

SPACING_MM = np.array([3.0, 0.5, 0.5])


def test_every_voxel_lies_in_the_core_of_its_patch():
    places = np.random.default_rng(0).integers(0, (20, 200, 200), (400, 3))
    cover = covering(places, SPACING_MM)
    offsets_mm = np.abs(places - cover.centres[cover.patch]) * SPACING_MM
    assert (offsets_mm <= np.array(CORE) / 2 * PATCH_STEP_MM + 1e-9).all()
    assert set(cover.patch.tolist()) == set(range(len(cover.centres)))


def test_a_small_lesion_takes_one_patch():
    places = np.argwhere(np.ones((2, 6, 6), bool)) + 10
    assert len(covering(places, SPACING_MM).centres) == 1
    assert len(covering(np.zeros((0, 3), int), SPACING_MM).centres) == 0


def test_voxels_get_the_answers_at_their_places():
    shape = (12, 120, 120)
    hu = np.zeros(shape, np.int16)
    hu[:, 0], hu[0, 10, 0] = -1000, 1500
    hu[3:9, 30:46, 30:46] = 300
    hu[3:9, 30:46, 80:96] = 600
    scan = scan_from_image(image_of(hu, tuple(SPACING_MM[::-1])), Acquisition("memory", kvp=120.0))
    grid = ScanGrid((0.0, 0.0, 0.0), (6.0, 6.0, 1.0), (20, 20, 12))
    territories = Territories(grid, np.ones((12, 20, 20)), np.full((11, 12, 20, 20), 1 / 11, np.float32), "test")

    class ByBrightness:
        """Answer LAD where the CT is bright, RCA where it is very bright, by the wide window."""

        def run(self, inputs):
            assert inputs[:, -1].max() == pytest.approx(20 / NOISE_SCALE_HU)
            bright = inputs[:, 2] > 0.35
            answers = np.zeros((len(inputs), len(LESION_KINDS), *LESION_PATCH), np.float32)
            answers[:, 1], answers[:, 3] = ~bright, bright
            return answers

    flat = np.flatnonzero((hu >= 130) & (hu < 1500))
    kinds = voxel_kinds(flat, scan, territories, 20.0, SimpleNamespace(network=ByBrightness()))
    assert kinds.sum(axis=1) == pytest.approx(1, abs=1e-5)
    is_right = hu.reshape(-1)[flat] == 600
    assert (kinds[:, 3] > 0.5)[is_right].mean() > 0.7  # their edges are blurred
    assert (kinds[:, 1] > 0.5)[~is_right].all()


def test_unknown_noise_is_usual_and_much_noise_is_bounded():
    assert noise_value(None) == noise_value(15.0)
    assert noise_value(500.0) == noise_value(400.0) > noise_value(40.0)


def test_metal_is_seen_where_the_other_windows_end():
    assert METAL_HU[0] == max(high for _, high in WINDOWS_HU)
    hu = np.full(LESION_PATCH, 1200, np.float32)
    hu[:8], hu[0] = 2250, 3500
    metal = voxel_input(LesionPatch(hu, hu, np.ones((11, 8, 12, 12), np.float32)), None)[0]
    assert (metal[-1, 0, 0], metal[1, 0, 0], metal[0, 0, 0]) == (0, 0.5, 1)


def parts_of(kinds, shape, rca=1.0):
    """Parts of voxels with these kinds, probabilities by first and last column, in one row of 1 mm³ voxels."""
    flat = np.flatnonzero(np.ones(shape))
    probabilities = np.zeros((shape[2], len(LESION_KINDS)), np.float32)
    for (first, end), chances in kinds.items():
        for kind, chance in chances.items():
            probabilities[first:end, LESION_KINDS.index(kind)] = chance
    is_dense = probabilities.sum(axis=1) > 0
    probability = np.zeros((11, 2, 2, 2), np.float32)
    probability[4], probability[2] = rca, 1 - rca
    grid = ScanGrid((0.0, 0.0, 0.0), (float(shape[2]), 1.0, 1.0), (2, 2, 2))
    territories = Territories(grid, np.ones((2, 2, 2)), probability, "test")
    image = image_of(np.zeros(shape, np.int16), (1.0, 1.0, 1.0))
    parts = voxel_parts(flat[is_dense], probabilities[is_dense], territories, image)
    return parts, [list(ANSWERS)[answer] for answer in parts.answers[parts.part]]


def test_a_lesion_is_divided_where_its_kinds_change():
    kinds = {
        (0, 8): {"RCA": 0.4, "LM": 0.2, "aorta": 0.4},
        (8, 16): {"aortic valve and root": 0.8, "RCA": 0.2},
    }
    parts, answers = parts_of(kinds, (1, 1, 20))
    assert answers == ["RCA"] * 8 + ["aortic valve and root"] * 8
    assert parts.kinds[:, LESION_KINDS.index("RCA")] == pytest.approx([0.4, 0.2])


def test_slivers_follow_what_they_touch_and_devices_count_together():
    kinds = {(0, 8): {"lead": 0.4, "clip": 0.3, "noise": 0.3}, (8, 9): {"LAD": 0.9, "noise": 0.1}}
    parts, answers = parts_of(kinds, (1, 1, 12))
    assert answers == ["device"] * 9
    assert parts.kinds[0, LESION_KINDS.index("LAD")] == pytest.approx(0.1)


def test_a_stent_is_of_the_artery_whose_territory_holds_it():
    for rca, artery in ((1.0, "RCA"), (0.0, "LAD")):
        assert set(parts_of({(0, 8): {"stent": 0.6, "clip": 0.4}}, (1, 1, 9), rca)[1]) == {artery}


def test_blurred_edges_follow_their_lesion_and_certain_noise_does_not():
    blurred, certain = {"noise": 0.7, "LCX": 0.3}, {"noise": 0.9, "LCX": 0.1}
    kinds = {(0, 8): {"LCX": 1.0}, (8, 16): blurred, (16, 24): certain, (26, 34): blurred}
    answers = parts_of(kinds, (1, 1, 40))[1]
    assert answers == ["LCX"] * 16 + ["noise"] * 16


def test_nothing_dense_has_no_parts():
    parts, answers = parts_of({}, (1, 1, 4))
    assert answers == []
    assert parts.kinds.shape == (0, len(LESION_KINDS))
