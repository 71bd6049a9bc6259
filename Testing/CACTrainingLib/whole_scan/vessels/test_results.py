"""What networks predicted, against values worked out by hand, and against what age and heart size alone predict."""

import numpy as np
import pytest
from scipy import stats

from CACTrainingLib.statistics.bootstrap import paired_difference
from CACTrainingLib.whole_scan.vessels.results import (
    TOTAL,
    Predicted,
    Scans,
    Study,
    always_the_mean,
    category_agreement,
    comparator_of,
    factors_alone,
    mean_curves,
    mean_error,
    median_error,
    normalised_curve,
    rank,
    read_result,
)

N, HELD_OUT = 60, 12


@pytest.fixture(autouse=True)
def few_resamples(monkeypatch):
    monkeypatch.setattr("CACTrainingLib.statistics.bootstrap.Bootstrap.__init__.__defaults__", (100,))


def made(scores, factors=None):
    names = tuple(f"p{n}" for n in range(len(scores)))
    factors = np.full((len(scores), 3), np.nan) if factors is None else factors
    scans = Scans(names, names, np.asarray(scores, float), factors, (None,) * len(names))
    learned = names[HELD_OUT:]
    half = len(learned) // 2
    split = [(learned[:half], learned[half:]), (learned[half:], learned[:half])]
    return Study(scans, None, split, np.arange(HELD_OUT))


@pytest.fixture
def study():
    generator = np.random.default_rng(0)
    factors = np.stack([generator.uniform(40, 80, N), generator.integers(0, 2, N), generator.uniform(500, 900, N)], 1)
    scores = np.outer(2 * factors[:, 0] + 0.1 * factors[:, 2], [0.1, 0.5, 0.2, 0.2])
    return made(scores, factors)


def test_the_scale_is_of_those_not_held_out():
    scores = np.ones((N, 4))
    scores[0, 1], scores[-1, 2] = 1000, 50
    assert made(scores).scale == 50


def test_squared_errors_are_means_over_patients_and_arteries():
    scores = np.zeros((N, 4))
    scores[-1, 1] = 200.0
    study = made(scores)
    wrong = np.zeros((2, 4))
    wrong[0, 0] = 20.0
    found = Predicted(np.array([0, 1]), wrong)
    assert study.error_of(found) == pytest.approx(1000 * 0.1**2 / 8)
    assert study.of([found], study.squared_error).values[0] == pytest.approx(study.error_of(found))


def test_networks_are_averaged_not_their_answers():
    study = made(np.full((N, 4), 100.0))
    rows = np.arange(HELD_OUT)
    high, low = (Predicted(rows, np.full((HELD_OUT, 4), 100.0 + off)) for off in (30, -30))
    # Together the answers would be right; each network is not.
    found = study.of([high, low], mean_error(0))
    assert found.values[0] == pytest.approx(30)
    assert (found.n, found.patients) == (HELD_OUT, HELD_OUT)


def test_rank_correlation_and_errors_are_the_textbook_ones():
    generator = np.random.default_rng(1)
    study = made(generator.gamma(1, 80, (N, 4)))
    rows = np.arange(HELD_OUT)
    predicted = generator.gamma(1, 80, (HELD_OUT, 4))
    found, true = [Predicted(rows, predicted)], study.scans.agatston[rows]
    for artery, own, other in ((2, true[:, 2], predicted[:, 2]), (TOTAL, true.sum(1), predicted.sum(1))):
        assert study.of(found, rank(artery)).values[0] == pytest.approx(stats.spearmanr(own, other).statistic)
        assert study.of(found, mean_error(artery)).values[0] == pytest.approx(np.abs(own - other).mean())
        assert study.of(found, median_error(artery)).values[0] == pytest.approx(np.median(np.abs(own - other)))


def test_agreement_of_categories():
    scores = np.zeros((N, 4))
    scores[:HELD_OUT, 0] = [0, 0, 0, 50, 50, 50, 200, 200, 200, 500, 500, 500]
    study, rows = made(scores), np.arange(HELD_OUT)
    right = scores[:HELD_OUT].copy()
    right[0] = 0.1  # rounds to 0
    assert study.of([Predicted(rows, right)], category_agreement).values[0] == pytest.approx(1)
    assert study.of([Predicted(rows, right[::-1])], category_agreement).values[0] < 0


def test_the_mean_explains_nothing_and_ranks_nobody(study):
    mean = always_the_mean(study, 2)
    learned = study.scans.rows(study.folds[0][0])
    assert mean.test[0].agatston == pytest.approx(np.tile(study.scans.agatston[learned].mean(0), (HELD_OUT, 1)))
    assert np.isnan(study.of(mean.test, rank(TOTAL)).values[0])
    assert study.of(mean.training, study.squared_error).values[0] > 0


def test_what_age_and_heart_size_tell_is_found(study):
    alone = factors_alone(study, 2, logarithm=False)
    assert alone.title == "Age, sex, heart size"
    # The scores are a line of the factors.
    assert study.of(alone.test, study.squared_error).values[0] == pytest.approx(0, abs=1e-9)
    logarithm = factors_alone(study, 2, logarithm=True)
    assert (
        0
        < study.of(logarithm.test, study.squared_error).values[0]
        < study.of(always_the_mean(study, 2).test, study.squared_error).values[0]
    )
    change = paired_difference(study.of(alone.test, rank(TOTAL)), study.of(logarithm.test, rank(TOTAL)))
    assert change.estimate.value == pytest.approx(0, abs=0.05)


def test_unknown_factors_are_left_out(study):
    factors = study.scans.factors.copy()
    factors[3, 0] = np.nan
    assert factors_alone(made(study.scans.agatston, factors), 2, False).title == "Sex, heart size"
    assert factors_alone(made(study.scans.agatston), 2, False) is None


def test_regressions_learn_from_their_fold_only(study):
    scores = study.scans.agatston.copy()
    scores[:HELD_OUT] = 1e6
    other = made(scores, study.scans.factors)
    for comparator in (always_the_mean, lambda s, n: factors_alone(s, n, False)):
        assert comparator(other, 2).test[1].agatston == pytest.approx(comparator(study, 2).test[1].agatston)


def test_a_kept_training_is_read_back(study):
    part = {"names": ["p3", "p1"], "agatston": [[1, 2, 3, 4], [5, 6, 7, 8]]}
    kept = {"fold": 1, "training": part, "validation": part, "test": part, "curves": [[10, 4.0, 9.0]]}
    kept |= {"seconds": 3.0, "steps": 20, "best_step": 10, "weights": 7, "others": part}
    result = read_result(study.scans, None, kept)
    assert result.test.rows.tolist() == [3, 1]
    assert result.test.agatston[1].tolist() == [5, 6, 7, 8]
    assert result.noncoronary_controls is None  # there is no table of others any more
    assert result.saliency is None
    assert normalised_curve(result.curves, 10.0).tolist() == [[10, 40, 90]]
    assert comparator_of("CNN", [result]).test[0].rows.tolist() == [3, 1]


def test_curves_are_averaged_over_folds():
    first = np.array([[10, 4.0, 8.0], [20, 2.0, 6.0]])
    second = np.array([[10, 6.0, 8.0], [40, 2.0, 2.0]])
    steps, middle, sd = mean_curves([first, second], points=4)
    assert steps.tolist() == [10, 20, 30, 40]
    assert middle[0].tolist() == [5, 8]
    assert middle[-1].tolist() == [2, 4]  # the first stopped at 20 with 2 and 6
    assert sd[0].tolist() == pytest.approx([np.sqrt(2), 0])
    assert mean_curves([first])[2].max() == 0
