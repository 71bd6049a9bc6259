"""What whole-scan estimates say, whether they agree with scores, and what they are worth."""

import copy
import json
from dataclasses import replace
from types import SimpleNamespace

import handmade_estimates as by_hand
import pytest

from CACScoringLib.core.labels import Artery
from CACScoringLib.whole_scan import estimates
from CACScoringLib.whole_scan.estimates import (
    DIFFERS,
    Prediction,
    agreement,
    agreements,
    disagreements,
    prediction_of,
)
from CACScoringLib.whole_scan.trust import NO_TEST, NOT_CLINICAL, trust_in


def method(agatston, reviewed=True, scaled=None, status="candidates"):
    status = "reviewed" if reviewed else status
    return SimpleNamespace(
        reviewed=reviewed, status=status, total=SimpleNamespace(agatston=agatston), scaled_agatston=scaled
    )


class TestAgreement:
    @pytest.mark.parametrize(
        ("one", "other", "apart", "far"),
        [
            (0, 0, 0, False),
            (0, 5, 1, False),
            (0, 11, 2, True),
            (11, 100, 0, False),
            (100, 100.6, 1, False),
            (10, 101, 2, True),
            (101, 401, 1, False),
            (0, 500, 4, True),
        ],
    )
    def test_two_scores_are_compared_by_their_class(self, one, other, apart, far):
        for pair in ((one, other), (other, one)):
            found = agreement(*(Prediction("x", float(score)) for score in pair))
            assert (found.classes_apart, found.far, found.agrees) == (apart, far, apart == 0)

    @pytest.mark.parametrize(
        ("answer", "score", "agrees", "far"),
        [
            (True, 3, True, False),
            (True, 0, False, False),
            (False, 0, True, False),
            (False, 99, False, False),
            (False, 100, False, True),
        ],
    )
    def test_a_yes_or_no_is_compared_with_whether_there_is_calcium(self, answer, score, agrees, far):
        one, other = Prediction("x", None, answer), Prediction("y", float(score))
        for found in (agreement(one, other), agreement(other, one)):
            assert (found.classes_apart, found.agrees, found.far) == (None, agrees, far)

    def test_a_map_says_what_kind_of_score_it_tells(self):
        scaled, unscaled = (prediction_of("decomposition", method(1700.0, scaled=value)) for value in (192.1, None))
        assert (str(scaled), str(unscaled)) == ("Calcium map: 192", "Calcium map, adjusted: 1700")

    def test_an_estimate_that_rounds_to_nothing_is_none(self):
        assert not by_hand.vessels(0.49).prediction.calcium
        assert by_hand.vessels(0.5).prediction.risk_class == "1–10"

    def test_a_probability_is_a_yes_from_its_limit_on(self):
        assert by_hand.radiomics(0.3, limit=0.3).prediction.calcium
        assert not by_hand.radiomics(0.299, limit=0.3).prediction.calcium

    def test_candidates_that_nobody_reviewed_say_nothing(self):
        methods = {"threshold": method(900, reviewed=False), "decomposition": method(0, reviewed=False)}
        found = agreements(by_hand.vessels(0.1), methods)
        assert found["threshold"] is None
        assert found["decomposition"].agrees

    def test_an_automatic_clinical_score_is_compared_as_such(self):
        methods = {"threshold": method(900, reviewed=False, status="automatic")}
        assert str(prediction_of("threshold", methods["threshold"])) == "Clinical rule, automatic: 900"
        assert agreements(by_hand.vessels(0.1), methods)["threshold"].far
        (warning,) = disagreements([by_hand.vessels(0.1)], methods)
        assert "clinical rule, automatic: 900" in warning.message

    def test_the_map_speaks_on_the_scale_of_clinical_scores(self):
        methods = {"decomposition": method(600, reviewed=False, scaled=300)}
        assert agreements(by_hand.vessels(250), methods)["decomposition"].agrees
        assert not agreements(by_hand.vessels(650), methods)["decomposition"].agrees


class TestWarnings:
    def test_agreement_is_no_warning(self):
        methods = {"threshold": method(250), "decomposition": method(280)}
        assert disagreements([by_hand.vessels(200), by_hand.radiomics(0.9)], methods) == ()

    def test_each_pair_that_differs_widely_is_told(self):
        methods = {"threshold": method(0), "decomposition": method(250)}
        told = disagreements([by_hand.vessels(300), by_hand.radiomics(0.1)], methods)
        assert {warning.code for warning in told} == {DIFFERS}
        texts = [warning.message for warning in told]
        assert len(texts) == 3, "the two methods are not compared with each other here"
        assert any("Vessel regression: 300; clinical rule: 0" in text for text in texts)
        assert any("Radiomics: no calcium; calcium map, adjusted: 250" in text for text in texts)
        assert any("Vessel regression: 300; radiomics: no calcium" in text for text in texts)


class TestJson:
    def test_there_and_back(self):
        methods = {"threshold": method(120, reviewed=False), "decomposition": method(250)}
        given = (
            by_hand.vessels(1.5, 200, 0, 7.25, slice_weights=(0.25, 0.75), trust="Little."),
            by_hand.radiomics(0.81, contributions={"heart_volume_mm3": -0.5, "candidate_count": 1.25}, trust="More."),
        )
        document = {o.network: estimates.estimate_as_json(o, methods) for o in given}
        text = json.dumps({"second_opinions": document}, allow_nan=False)
        assert estimates.estimates_from_json(json.loads(text)) == given
        assert document["vessels"]["risk_class"] == "101–400"
        assert document["vessels"]["agreement"] == {
            "threshold": None,
            "decomposition": {"agrees": True, "classes_apart": 0},
        }
        assert document["radiomics"]["calcium"] is True

    def test_results_of_earlier_versions_have_none(self):
        assert estimates.estimates_from_json({"methods": {}}) == ()

    def test_words_for_a_terminal(self):
        methods = {"threshold": method(0, reviewed=False), "decomposition": method(280)}
        lines = estimates.estimates_as_text([by_hand.vessels(130.4), by_hand.radiomics(0.998)], methods)
        text = "\n".join(lines)
        assert "vessel regression: Agatston about 130 (class 101–400)" in text
        assert "calcium map, adjusted: 280, same class" in text
        assert "calcium (above 99%; positive from 30%)" in text
        assert "clinical rule" not in text


def changed(test, **values):
    return {"test": {**copy.deepcopy(test), **values}}


def estimate(value, low, high):
    return {"estimate": value, "low": low, "high": high}


class TestTrust:
    def test_numbers_patients_and_that_they_are_digital_are_told(self):
        text = trust_in("vessels", {"test": by_hand.VESSELS_TEST})
        assert "on 56 patients (digital patients, none of them in training; 95% intervals in brackets)" in text
        assert "0.80 [0.70, 0.88]" in text
        assert "age and heart size alone 0.40" in text
        assert NOT_CLINICAL in text
        assert "not shown to perform better" not in text

    def test_vessels_that_do_not_beat_age_and_heart_size(self):
        text = trust_in("vessels", changed(by_hand.VESSELS_TEST, rank_correlation=estimate(0.55, 0.39, 0.7)))
        assert "not shown to perform better than age and heart size" in text
        assert "0.55 [0.39, 0.70]" in text

    @pytest.mark.parametrize(("low", "stands"), [(0.59, False), (0.61, True)])
    def test_classes_stand_only_where_kappa_is_substantial(self, low, stands):
        text = trust_in("vessels", changed(by_hand.VESSELS_TEST, kappa_categories=estimate(0.7, low, 0.8)))
        assert ("not replace it" not in text) == stands

    @pytest.mark.parametrize(("called", "misled"), [(1, False), (2, True), (20, True)])
    def test_calcium_elsewhere(self, called, misled):
        counts = {"patients": 20, "called_coronary": called}
        text = trust_in("vessels", changed(by_hand.VESSELS_TEST, non_coronary_only=counts))
        assert (f"it gave a score in {called} of 20 patients" in text) == misled
        assert ("where the aorta or valves are calcified" in text) == misled

    def test_radiomics_made_to_miss_little(self):
        text = trust_in("radiomics", {"test": by_hand.RADIOMICS_TEST})
        assert "sensitivity 0.97 [0.90, 1.00]" in text
        assert "specificity 0.60" in text
        assert "a negative result is more reliable" in text
        assert "in 18 of 20 patients" in text

    def test_radiomics_that_miss_much(self):
        turned = changed(
            by_hand.RADIOMICS_TEST, sensitivity=estimate(0.6, 0.5, 0.7), specificity=estimate(0.95, 0.85, 1.0)
        )
        assert "a positive result is more reliable" in trust_in("radiomics", turned)

    @pytest.mark.parametrize(
        "values",
        [{"auc": estimate(0.6, 0.45, 0.7)}, {"specificity": estimate(0.1, 0.02, 0.2)}],
    )
    def test_radiomics_that_guess(self, values):
        assert "not shown to perform better" in trust_in("radiomics", changed(by_hand.RADIOMICS_TEST, **values))

    @pytest.mark.parametrize("network", estimates.ESTIMATORS)
    @pytest.mark.parametrize(
        "validation",
        [{}, {"test": None}, {"test": {}}, {"test": {"rank_correlation": 0.9, "sensitivity": estimate(None, 0, 1)}}],
    )
    def test_a_model_without_a_test_is_not_to_be_relied_on(self, network, validation):
        assert trust_in(network, validation) == NO_TEST

    def test_what_a_card_lacks_is_left_out(self):
        test = {"rank_correlation": estimate(0.8, 0.7, 0.9), "non_coronary_only": {"patients": 0}}
        text = trust_in("vessels", {"test": test})
        assert "Tested (95% intervals in brackets): rank" in text
        assert "None" not in text
        assert "aorta" not in text
        assert NOT_CLINICAL not in text


def test_an_estimate_without_the_estimates_of_its_arteries_reads_as_broken():
    document = estimates.estimate_as_json(by_hand.vessels(3), {})
    del document["total"]
    with pytest.raises(KeyError):
        estimates.estimates_from_json({"second_opinions": {"vessels": document}})


def test_arteries_keep_their_order():
    assert list(replace(by_hand.vessels(1, 2, 3, 4)).agatston) == [Artery.LM, Artery.LAD, Artery.LCX, Artery.RCA]
