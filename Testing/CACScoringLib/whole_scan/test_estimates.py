"""Whole-scan estimates: agreement with scores, JSON, and trust."""

import json
from types import SimpleNamespace

import handmade_estimates as by_hand
import pytest
from whole_records import record_of, whole_record

from CACScoringLib.core.decoding import content_of
from CACScoringLib.whole_scan import estimates
from CACScoringLib.whole_scan.estimates import DIFFERS, Prediction, agreement_of_estimates, agreements, disagreements
from CACScoringLib.whole_scan.trust import NO_TEST, trust_in


def method(agatston, reviewed=True, status="candidates"):
    status = "reviewed" if reviewed else status
    return SimpleNamespace(reviewed=reviewed, status=status, total=SimpleNamespace(clinical_agatston=agatston))


class TestAgreement:
    @pytest.mark.parametrize(
        ("first", "second", "apart", "differs"),
        [(0, 0, 0, False), (0, 11, 2, True), (11, 100, 0, False), (10, 101, 2, True), (0, 500, 4, True)],
    )
    def test_two_scores_are_compared_by_their_class(self, first, second, apart, differs):
        for pair in ((first, second), (second, first)):
            verdict = agreement_of_estimates(*(Prediction("x", float(score), score > 0) for score in pair))
            assert (verdict.classes_apart, verdict.differs_widely, verdict.agrees) == (apart, differs, apart == 0)

    @pytest.mark.parametrize(
        ("answer", "score", "agrees", "differs_widely"),
        [(True, 3, True, False), (True, 0, False, False), (False, 99, False, False), (False, 100, False, True)],
    )
    def test_a_yes_or_no_is_compared_with_whether_there_is_calcium(self, answer, score, agrees, differs_widely):
        answered, scored = Prediction("x", None, answer), Prediction("y", float(score), score > 0)
        for verdict in (agreement_of_estimates(answered, scored), agreement_of_estimates(scored, answered)):
            assert (verdict.classes_apart, verdict.agrees, verdict.differs_widely) == (None, agrees, differs_widely)

    def test_candidates_that_nobody_reviewed_say_nothing(self):
        methods = {"threshold": method(900, reviewed=False), "decomposition": method(0, reviewed=False)}
        verdicts = agreements(by_hand.vessels(0.1), methods)
        assert verdicts["threshold"] is None
        assert verdicts["decomposition"].agrees


def test_each_pair_that_differs_widely_is_warned_of():
    methods = {"threshold": method(0), "decomposition": method(250)}
    warnings = disagreements([by_hand.vessels(300), by_hand.radiomics(0.1)], methods)
    assert {warning.code for warning in warnings} == {DIFFERS}
    assert len(warnings) == 3, "the two methods are not compared with each other here"


def test_what_is_undetermined_agrees_with_nothing_and_differs_from_nothing():
    undetermined, methods = by_hand.estimated("vessels", undetermined=True), {"decomposition": method(250)}
    assert agreements(undetermined, methods) == {"decomposition": None}
    assert disagreements([undetermined, by_hand.radiomics(0.9)], methods) == ()
    document = {"vessels": content_of(estimates.estimate_record(undetermined, methods))}
    assert estimates.recorded_estimates(record_of(whole_record() | {"second_opinions": document})) == (undetermined,)


def test_estimates_come_back_from_json():
    methods = {"threshold": method(120, reviewed=False), "decomposition": method(250)}
    estimated = (
        by_hand.vessels(1.5, 200, 0, 7.25, slice_weights=(0.25, 0.75), trust="Little."),
        by_hand.radiomics(0.81, contributions={"heart_volume_mm3": -0.5, "candidate_count": 1.25}, trust="More."),
    )
    document = {o.network: content_of(estimates.estimate_record(o, methods)) for o in estimated}
    text = json.dumps(whole_record() | {"second_opinions": document}, allow_nan=False)
    assert estimates.recorded_estimates(record_of(json.loads(text))) == estimated
    assert document["vessels"]["risk_class"] == "101–400"
    assert document["vessels"]["agreement"] == {
        "threshold": None,
        "decomposition": {"agrees": True, "classes_apart": 0},
    }
    assert document["radiomics"]["calcium"] is True


def estimate(value, low, high):
    return {"estimate": value, "low": low, "high": high}


@pytest.mark.parametrize("network", estimates.ESTIMATORS)
@pytest.mark.parametrize(
    "validation",
    [{}, {"test": None}, {"test": {}}, {"test": {"rank_correlation": 0.9, "sensitivity": estimate(None, 0, 1)}}],
)
def test_a_model_without_a_test_is_not_to_be_relied_on(network, validation):
    assert trust_in(network, validation) == NO_TEST
