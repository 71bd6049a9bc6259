"""Candidates that count are told from those that do not, and nothing is lost."""

import numpy as np
import pytest

from CACScoringLib.anatomy.arteries import ArterySuggestion
from CACScoringLib.core.ct import CTError
from CACScoringLib.core.labels import Artery
from CACScoringLib.scoring.automatic import REASONS, CandidateEvidence, evaluated_candidates
from CACScoringLib.scoring.evidence import FEATURES, INTERCEPT
from CACScoringLib.scoring.lesions import Lesion, LesionSet, SliceComponent

TYPICAL = dict.fromkeys(FEATURES, 3.0)
EVIDENCE = CandidateEvidence({**dict.fromkeys(FEATURES, 1.0), INTERCEPT: -10.0}, TYPICAL, 0.5)


def candidates(count):
    """One voxel each, in the LAD; ids have a gap, as after metal was left out."""
    id_map = np.zeros((count, 4, 4), np.uint16)
    lesions = []
    for n in range(count):
        id_map[n, 1, 1] = n + 2
        lesions.append(Lesion(n + 2, Artery.LAD, (SliceComponent(n, 1, 1.0, 200.0, 200.0, 2),), (0.0, 0.0, float(n))))
    return LesionSet(tuple(lesions), id_map), [ArterySuggestion(n + 2, Artery.LAD, 0.9, 0.3) for n in range(count)]


def features_of(*rows):
    return np.array([[row.get(name, 3.0) for name in FEATURES] for row in rows], float)


def test_what_is_improbable_is_left_out_with_its_reason():
    found, suggestions = candidates(3)
    features = features_of({}, {"log_map_excess": -4.0}, {"place_logit": -4.0, "log_mass": 2.9})
    kept, own, left_out = evaluated_candidates(found, features, suggestions, EVIDENCE)
    assert [lesion.id for lesion in kept.lesions] == [own[0].lesion_id] == [2]
    assert own[0].not_coronary_probability == pytest.approx(1 / (1 + np.exp(5)))
    assert [lesion.id for lesion in left_out.lesions.lesions] == [s.lesion_id for s in left_out.suggestions] == [3, 4]
    assert left_out.reasons == (REASONS["log_map_excess"], REASONS["place_logit"])
    assert all(s.not_coronary_probability > 0.5 for s in left_out.suggestions)
    assert np.array_equal(kept.id_map + left_out.lesions.id_map, found.id_map), "no candidate is lost"


def test_what_weighs_nothing_is_no_reason():
    found, suggestions = candidates(1)
    evidence = CandidateEvidence({**EVIDENCE.weights, "slice_logit": 0.0}, TYPICAL, 0.5)
    features = features_of({"slice_logit": -90.0, "log_ct_excess": -9.0})
    left_out = evaluated_candidates(found, features, suggestions, evidence)[2]
    assert left_out.reasons == (REASONS["log_ct_excess"],)


def test_no_candidates():
    found, suggestions = candidates(0)
    kept, own, left_out = evaluated_candidates(found, np.zeros((0, len(FEATURES))), suggestions, EVIDENCE)
    assert (kept.lesions, own, left_out.lesions.lesions, left_out.reasons) == ((), [], (), ())


def test_stored_evidence():
    content = {"weights": EVIDENCE.weights, "typical": TYPICAL, "most_not_coronary": 0.5}
    assert CandidateEvidence.stored({"candidates": content}) == EVIDENCE
    assert CandidateEvidence.stored({}) is None
    with pytest.raises(CTError, match="Calibrate it again"):
        CandidateEvidence.stored({"candidates": {"weights": {}}})
    found, suggestions = candidates(1)
    with pytest.raises(CTError, match="Calibrate it again"):
        evaluated_candidates(found, features_of({}), suggestions, CandidateEvidence({"old": 1.0}, TYPICAL, 0.5))
