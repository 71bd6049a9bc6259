"""Test the coverage of prediction intervals in each class of the truth, and the probabilities of categories."""

import json
from dataclasses import asdict, replace

import numpy as np
import pytest
from calibrated_cards import calibration_of

from CACScoringLib.scoring.uncertainty import CATEGORIES, TOTAL, Amount
from CACTrainingLib.training.score_errors import MIN_CLASS_SCANS, fitted_errors


def patients(count, seed):
    """Draw true scores, and scores that miss faint calcium and scatter, more in noisy scans."""
    g = np.random.default_rng(seed)
    truth = np.where(g.random(count) < 0.4, 0.0, np.exp(g.uniform(0.1, 7.3, count)))
    noise = g.uniform(10, 50, count)
    scatter = 0.15 * (1 + 1.5 * np.maximum(noise / 20 - 1, 0))
    scores = np.expm1(np.maximum(np.log1p(truth) - 0.1 + scatter * g.standard_normal(count), 0))
    scores[(truth < 5) & (g.random(count) < 0.5)] = 0
    false = (truth == 0) & (g.random(count) < 0.1)
    scores[false] = np.exp(g.uniform(0, 3, false.sum()))
    return scores, truth, noise, np.full(count, 3.0)


@pytest.fixture(scope="module")
def errors():
    return fitted_errors("agatston", *patients(1500, 1))


def test_the_truth_lies_in_nine_of_ten_intervals_of_each_class(errors):
    scores, truth, noise, thickness = patients(3000, 2)
    covered = []
    for score, true, *facts in zip(scores, truth, noise, thickness, strict=True):
        low, high = errors.interval(score, *facts)
        covered.append(low - 1e-9 <= true <= high + 1e-9)
    covered = np.array(covered)
    for low, high in ((0, 1), (1, 100), (100, 400), (400, np.inf)):
        assert covered[(truth >= low) & (truth < high)].mean() == pytest.approx(0.9, abs=0.035)


def test_an_interval_holds_its_own_score(errors):
    biased = replace(errors, errors=tuple((0.3, 0.5) for _ in errors.errors))
    for score in (0.0, 3.0, 99.0, 400.0, 2041.0):
        low, high = biased.interval(score)
        assert low <= score < high


def test_probabilities_of_categories(errors):
    for score in (0.0, 3.0, 50.0, 1000.0):
        probabilities = errors.probabilities(score)
        assert len(probabilities) == len(CATEGORIES)
        assert sum(probabilities) == pytest.approx(1)
        assert min(probabilities) >= 0
    assert np.argmax(errors.probabilities(0.0)) == 0
    assert np.argmax(errors.probabilities(40.0)) == 1
    assert errors.probabilities(2000.0)[3] > 0.95
    scores, truth, *_ = patients(3000, 3)
    probabilities = np.array([errors.probabilities(score) for score in scores])
    for c, (low, high) in enumerate(((0, 1), (1, 100), (100, 400), (400, np.inf))):
        assert probabilities[:, c].mean() == pytest.approx(((truth >= low) & (truth < high)).mean(), abs=0.03)


def test_a_large_score_excludes_no_calcium(errors):
    """No patient without calcium scored so high, and higher categories become likelier with the score."""
    certain = replace(errors, chances=((0.05, -3.6, 2.2), *errors.chances[1:]))
    assert certain.probabilities(3.0)[0] > 0.05
    assert certain.probabilities(2292.0)[0] == 0
    reached = np.array([np.cumsum(certain.probabilities(score)[::-1]) for score in np.geomspace(0.5, 4000, 200)])
    assert (np.diff(reached, axis=0) > -1e-9).all()


@pytest.mark.parametrize(("number", "lowest"), [(300, 100), (180, 1)])
def test_a_small_class_shares_errors_with_its_neighbours(number, lowest):
    scores, truth, *facts = patients(number, 5)
    errors = fitted_errors("agatston", scores, truth, *facts).errors
    severe = int((truth >= 100).sum())
    assert max(((truth >= 100) & (truth < 400)).sum(), (truth >= 400).sum()) < MIN_CLASS_SCANS
    assert (severe < MIN_CLASS_SCANS) == (lowest == 1)
    assert errors[2] == errors[3]
    assert len(errors[2]) == (truth >= lowest).sum()
    assert len(errors[1]) == ((truth >= 1) & (truth < 100)).sum()
    assert len(errors[0]) == (truth < 1).sum()


def test_a_class_without_patients_has_the_errors_of_detected_calcium():
    """Errors of the class below would include missed calcium."""
    scores, truth, *facts = patients(300, 4)
    mild = truth < 100
    errors = fitted_errors("agatston", scores[mild], truth[mild], *(f[mild] for f in facts))
    assert errors.errors[2] == errors.errors[3]
    assert errors.errors[2][-1] < errors.errors[1][-1]
    low, high = errors.interval(1500.0, 20.0, 3.0)
    assert 0 < low < 1500 < high < 5000


def test_stored_and_read_again(errors):
    content = {"automatic": {"total": {"agatston": asdict(errors)}, "artery": {"agatston": asdict(errors)}}}
    uncertainty = calibration_of(json.loads(json.dumps({"uncertainty": content}))).uncertainty["automatic"]
    assert uncertainty.total["agatston"] == errors
    intervals = uncertainty.intervals({TOTAL: Amount(60.0, 11.0), "LAD": Amount(0.0)}, 20.0, None)
    assert intervals[TOTAL].agatston == errors.interval(60.0, 20.0)
    assert intervals[TOTAL].mass_mg is None
    assert intervals["LAD"].agatston[0] == 0
