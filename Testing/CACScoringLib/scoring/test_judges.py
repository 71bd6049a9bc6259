"""Features of candidates: looks, place, rarity and map; and the slices of coronary looks."""

import math

import numpy as np
import pytest
from map_lesions import two_lesions

from CACScoringLib.core.labels import Artery
from CACScoringLib.networks.configs import LESION_KINDS
from CACScoringLib.scoring.arteries import ArterySuggestion
from CACScoringLib.scoring.evidence import CANDIDATE_FEATURES
from CACScoringLib.scoring.judges import OTHER_KINDS, candidate_features, slices_of_coronary_looks
from CACScoringLib.scoring.lesion_network import CORONARY_KINDS
from CACScoringLib.scoring.noise_specks import NoiseSpecks


def test_features_of_a_candidate_by_hand():
    _, lesions = two_lesions()
    suggestions = [ArterySuggestion(x.id, Artery.LAD, 0.9, p) for x, p in zip(lesions.lesions, (0.2, 0.5), strict=True)]
    kinds = np.zeros((2, len(LESION_KINDS)))
    kinds[0, [LESION_KINDS.index("RCA"), LESION_KINDS.index("stent"), LESION_KINDS.index("noise")]] = 0.3, 0.5, 0.2
    kinds[1, LESION_KINDS.index("clip")] = 1.0
    specks = NoiseSpecks(np.array([8, 8, 9, 2]), np.array([135.0, 134.0, 900.0, 900.0]), np.full(11, 0.5))
    map_hu = np.zeros(lesions.shape)
    map_hu[2, 3, 3] = 20.0
    by_name = candidate_features(lesions, suggestions, kinds, specks, map_hu)
    assert tuple(by_name) == CANDIDATE_FEATURES
    # A stent lies in an artery, and looks like a calcified one.
    assert by_name["look_logit"] == pytest.approx([math.log(0.8 / 0.2), -math.log(999)])
    assert by_name["place_logit"] == pytest.approx([math.log(0.8 / 0.2), 0], abs=1e-9)
    large = int(np.argmax([lesion.voxels for lesion in lesions.lesions]))
    assert by_name["log_rarity"][large] == pytest.approx(-math.log(2 * 0.5))
    assert by_name["in_map"].tolist() == [large == 0, large == 1]


def test_slices_of_candidates_that_look_coronary():
    _, lesions = two_lesions()
    kinds = np.zeros((2, len(LESION_KINDS)))
    places = {lesion.voxels: n for n, lesion in enumerate(lesions.lesions)}
    kinds[places[8], LESION_KINDS.index("RCA")] = 0.5
    kinds[places[2], LESION_KINDS.index("noise")] = 0.51
    kinds[places[2], LESION_KINDS.index("RCA")] = 0.49
    assert slices_of_coronary_looks(lesions, kinds) == (1, 2)
    kinds[places[2], LESION_KINDS.index("stent")] = 0.01
    assert slices_of_coronary_looks(lesions, kinds) == (1, 2, 3)


def test_every_kind_outside_the_arteries_has_words():
    assert {*OTHER_KINDS} == {kind for n, kind in enumerate(LESION_KINDS) if n not in CORONARY_KINDS}
