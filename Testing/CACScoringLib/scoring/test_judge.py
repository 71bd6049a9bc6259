"""Features of candidates: looks, place, rarity and map; and the slices of coronary looks."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
from map_lesions import found_in, two_lesions

from CACScoringLib.calcium_map.decomposition import DecompositionSettings
from CACScoringLib.core.labels import Artery
from CACScoringLib.networks.configs import LESION_KINDS
from CACScoringLib.record.scores import Verdict
from CACScoringLib.scoring.evidence import CANDIDATE_FEATURES, INTERCEPT, with_verdicts
from CACScoringLib.scoring.judge import JudgedLesions, candidate_features, judge_map, slices_of_coronary_looks
from CACScoringLib.scoring.noise_specks import NoiseSpecks


def by_place(not_coronary):
    return Verdict(artery=Artery.LAD, confidence=0.9, not_coronary_probability=not_coronary)


def test_features_of_a_candidate_by_hand():
    _, lesions = two_lesions()
    verdicts = [by_place(not_coronary) for not_coronary in (0.2, 0.5)]
    kinds = np.zeros((2, len(LESION_KINDS)))
    kinds[0, [LESION_KINDS.index("RCA"), LESION_KINDS.index("stent"), LESION_KINDS.index("noise")]] = 0.3, 0.5, 0.2
    kinds[1, LESION_KINDS.index("clip")] = 1.0
    specks = NoiseSpecks(np.array([8, 8, 9, 2]), np.array([135.0, 134.0, 900.0, 900.0]), np.full(11, 0.5))
    map_hu = np.zeros(lesions.voxels.shape)
    map_hu[2, 3, 3] = 20.0
    by_name = candidate_features(lesions, verdicts, kinds, specks, map_hu)
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


def test_what_is_dense_in_a_lesion_of_the_map_decides():
    """A candidate counts with its lesion, calcium elsewhere does not, and a lesion without either goes by the map."""
    calcium, hu = np.zeros((2, 3, 12, 12), np.float32)
    calcium[1, 2, 2:10] = calcium[1, 6, 2:10] = calcium[1, 9, 2:10] = 50
    hu[1, 2, 1:4] = hu[1, 6, 5] = 200
    lesions, dense = found_in(calcium, calcium), found_in(hu, hu)
    candidates = dense.of(x.id for x in dense.lesions if x.voxels == 3)

    def rows_that_count(map_logit, not_coronary):
        settings = DecompositionSettings(evidence_weights={INTERCEPT: map_logit}, most_not_coronary=0.5)
        decomposed = SimpleNamespace(
            parts=SimpleNamespace(settings=settings), slices=SimpleNamespace(on_scan=np.ones(3))
        )
        verdicts = [by_place(not_coronary)] * len(candidates.lesions)
        judged = JudgedLesions(with_verdicts(candidates, verdicts, 0.4), 0.4)
        of_map = judge_map(lesions, SimpleNamespace(territories=None), decomposed, 10.0, dense, judged)
        return {-round(x.centroid_ras_mm[1]) for x in of_map.lesions if x.verdict.counts}

    assert rows_that_count(2.0, 0.3) == {2, 9}
    assert rows_that_count(2.0, 0.45) == {9}
    assert rows_that_count(-2.0, 0.3) == {2}
