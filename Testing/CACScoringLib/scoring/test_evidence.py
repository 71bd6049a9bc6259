"""The evidence of a lesion, how it is weighed, and what counts by it; nothing is lost."""

import math
from dataclasses import replace

import numpy as np
import pytest
from map_lesions import found_in, two_lesions

from CACScoringLib.core.errors import CTError
from CACScoringLib.core.labels import Artery
from CACScoringLib.networks.configs import LESION_KINDS
from CACScoringLib.record.scores import Lesion, LesionSet, LesionVoxels, Verdict
from CACScoringLib.scoring.evidence import (
    CANDIDATE_FEATURES,
    INTERCEPT,
    MAP_FEATURES,
    MAX_LOG_EXCESS,
    REASONS,
    Evidence,
    coronary_probabilities,
    map_features,
    probability_of_candidates,
    shared_voxels,
    with_verdicts,
)
from CACScoringLib.scoring.judge import looks_of


def by_place(*not_coronary):
    return [Verdict(artery=Artery.LAD, confidence=0.9, not_coronary_probability=p) for p in not_coronary]


def test_features_of_the_map_by_hand():
    _, lesions = two_lesions()
    verdicts = by_place(0.2, 0.5)
    probabilities = np.array([np.nan, 0.1, 0.8, 0.5], np.float32)
    # blood and noise reach 105 HU
    by_name = map_features(lesions, verdicts, probabilities, 20.0)
    assert tuple(by_name) == MAP_FEATURES
    large = int(np.argmax([lesion.voxels for lesion in lesions.lesions]))
    assert by_name["log_ct_excess"][large] == pytest.approx(math.log1p(135 - 105))
    assert by_name["slice_logit"][large] == pytest.approx(math.log(0.8 / 0.2), rel=1e-4)  # the likeliest of two slices
    assert by_name["place_logit"] == pytest.approx([math.log(0.8 / 0.2), 0], abs=1e-9)
    assert by_name["slice_logit"][1 - large] == pytest.approx(0, abs=1e-6)


def test_a_high_peak_is_no_more_evidence_than_the_bound():
    calcium, _ = two_lesions()
    metal = found_in(calcium, 40 * calcium)
    features = map_features(metal, by_place(*[0.2] * len(metal.lesions)), np.full(4, np.nan), 20.0)
    assert features["log_ct_excess"] == pytest.approx(MAX_LOG_EXCESS)


def test_certain_and_unknown_values_stay_finite():
    calcium, lesions = two_lesions()
    certain = by_place(0.0, 1.0)
    features = map_features(lesions, certain, np.full(4, np.nan), None)
    assert features["place_logit"] == pytest.approx(math.log(999) * np.array([1, -1]))
    assert features["slice_logit"] == pytest.approx(math.log(999) * np.array([-1, -1]))
    usual = map_features(lesions, certain, np.full(4, np.nan), 15.0)
    np.testing.assert_equal(features, usual)
    nothing = found_in(0 * calcium, calcium)
    assert all(len(x) == 0 for x in map_features(nothing, [], np.ones(4), 9.0).values())


def test_lesions_of_the_map_weigh_their_candidates_by_shared_voxels():
    calcium, dense = np.zeros((2, 3, 12, 12), np.float32)
    calcium[1, 2, 2:10] = calcium[1, 9, 2:10] = 50
    dense[1, 2, 1:4] = dense[1, 2, 7] = dense[1, 5, 5:7] = 200
    lesions, candidates_in_map = found_in(calcium, calcium), found_in(dense, dense)
    shared = shared_voxels(lesions, candidates_in_map)
    shares = dict(zip((x.voxels for x in candidates_in_map.lesions), shared.T.tolist(), strict=True))
    first = [x.centroid_ras_mm[1] for x in lesions.lesions].index(-2.0)
    assert {voxels: share[first] for voxels, share in shares.items()} == {3: 2, 1: 1, 2: 0}
    assert not shared[1 - first].any()
    of_each = np.array([{3: 0.9, 1: 0.2, 2: 0.5}[x.voxels] for x in candidates_in_map.lesions])
    p = probability_of_candidates(shared, of_each, np.zeros(2, bool))
    assert math.log(p[first] / (1 - p[first])) == pytest.approx((2 * math.log(9) + math.log(0.25)) / 3)
    assert np.isnan(p[1 - first])
    nothing = probability_of_candidates(np.zeros((2, 0)), np.zeros(0), np.array([False, True]))
    np.testing.assert_array_equal(nothing, [math.nan, 0])


def test_a_feature_without_a_weight_has_no_say():
    features = {name: np.array([0.0, 2.0]) for name in MAP_FEATURES}
    probabilities = coronary_probabilities(features, {"place_logit": 1.0, INTERCEPT: -1.0})
    assert probabilities == pytest.approx(1 / (1 + np.exp([1.0, -1.0])))


def test_weights_of_other_features_are_refused():
    features = dict.fromkeys(CANDIDATE_FEATURES, np.zeros(1))
    for names in (("colour",), MAP_FEATURES[1:]):
        with pytest.raises(CTError, match=rf"evidence weights .*{names[0]}.* Calibrate"):
            coronary_probabilities(features, {**dict.fromkeys(names, 1.0), INTERCEPT: 0.0})


TYPICAL = dict.fromkeys(CANDIDATE_FEATURES, 3.0)
EVIDENCE = Evidence({**dict.fromkeys(CANDIDATE_FEATURES, 1.0), INTERCEPT: -8.0}, TYPICAL, 0.5)


def candidates(count):
    """One voxel each, in the LAD; ids have a gap, as after metal was left out."""
    score = {"agatston": 2.0, "clinical_agatston": 2.0, "volume_mm3": 3.0, "pseudo_mass_hu_mm3": 600.0, "lesions": 1}
    place = {"voxels": 1, "peak_hu": 200.0, "mean_hu": 200.0, "components": ()}
    lesions = tuple(
        Lesion(id=n + 2, site=Artery.LAD, centroid_ras_mm=(0.0, 0.0, float(n)), **score, **place) for n in range(count)
    )
    ids = np.arange(2, count + 2, dtype=np.uint16)
    voxels = LesionVoxels((count, 4, 4), np.arange(count) * 16 + 5, ids)
    return LesionSet(lesions, voxels), by_place(*[0.3] * count)


def divided(lesions):
    """The lesions that count, and those left out."""
    return ([x for x in lesions.lesions if x.verdict.counts == counts] for counts in (True, False))


def features_of(*rows):
    return {name: np.array([row.get(name, 3.0) for row in rows], float) for name in CANDIDATE_FEATURES}


def test_improbable_candidates_are_left_out_with_a_reason():
    lesions, verdicts = candidates(3)
    features = features_of({}, {"look_logit": -4.0}, {"place_logit": -4.0, "log_rarity": 2.9})
    kinds = np.zeros((3, len(LESION_KINDS)))
    kinds[:, LESION_KINDS.index("LAD")], kinds[1, LESION_KINDS.index("mitral annulus")] = 0.6, 0.4
    verdicts, reasons = EVIDENCE.judge(verdicts, features), EVIDENCE.reasons(features, looks_of(kinds))
    judged = with_verdicts(lesions, verdicts, EVIDENCE.most_not_coronary, reasons)
    counted, left_out = divided(judged)
    assert [lesion.id for lesion in counted] == [2]
    assert counted[0].verdict.not_coronary_probability == pytest.approx(1 / (1 + np.exp(4)))
    assert [lesion.id for lesion in left_out] == [3, 4]
    reasons = [lesion.verdict.reason for lesion in left_out]
    assert reasons == ["looks like calcium of the mitral annulus", REASONS["place_logit"]]
    assert all(lesion.verdict.not_coronary_probability > 0.5 for lesion in left_out)
    assert np.array_equal(judged.id_map, lesions.id_map), "no candidate is lost"


def test_stored_evidence():
    content = {"weights": EVIDENCE.weights, "typical": TYPICAL, "most_not_coronary": 0.5}
    assert Evidence.stored({"candidates": content}) == EVIDENCE
    assert Evidence.stored({}) is None
    with pytest.raises(CTError, match="Calibrate it again"):
        Evidence.stored({"candidates": {"weights": {}}})


def test_without_weights_the_place_alone_decides():
    lesions, verdicts = candidates(2)
    likely, unlikely = (replace(verdict, artery=Artery.RCA) for verdict in verdicts)
    unlikely = replace(unlikely, not_coronary_probability=0.6)
    verdicts = Evidence(None, None, 0.5).judge([likely, unlikely], features_of({}, {}))
    (counted,), (left_out,) = divided(with_verdicts(lesions, verdicts, 0.5))
    assert (counted.site, counted.verdict) == (Artery.RCA, likely), "the lesion lies where it was suggested"
    assert (left_out.site, left_out.verdict) == (Artery.LAD, replace(unlikely, counts=False))


@pytest.mark.parametrize(("most_not_coronary", "counted"), [(0.6, 1), (0.59, 0), (0.61, 1)])
def test_a_lesion_at_the_limit_counts(most_not_coronary, counted):
    lesions, (verdict,) = candidates(1)
    judged = with_verdicts(lesions, [replace(verdict, not_coronary_probability=0.6)], most_not_coronary)
    assert [len(part) for part in divided(judged)] == [counted, 1 - counted]


@pytest.mark.parametrize(
    ("features", "expected"),
    [
        ((0, 0, 0, 0), 0.2),
        ((1, 0, 0, 0), 0.5),
        ((0, 2, 0, 0), 0.8),
        ((0, 0, -1, 0), 1 / 17),
        ((1, 1, 0, 1), 4**2 / (1 + 4**2)),
    ],
)
def test_probabilities_by_hand(features, expected):
    """Odds of one to four, and four times as much for each unit of a feature."""
    weights = {**dict.fromkeys(CANDIDATE_FEATURES, math.log(4)), INTERCEPT: -math.log(4)}
    columns = {name: np.array([value], float) for name, value in zip(CANDIDATE_FEATURES, features, strict=True)}
    assert coronary_probabilities(columns, weights) == pytest.approx([expected])
