"""Statistics of models that predict from a whole scan."""

import numpy as np
import pytest

from CACTrainingLib.statistics.bootstrap import exact_proportion
from CACTrainingLib.whole_scan import evaluation as radiomics
from CACTrainingLib.whole_scan.evaluation import Evaluation, Prediction, proportion
from CACTrainingLib.whole_scan.vessels import study as vessels

PATIENTS = [f"p{n}" for n in range(12)]


def test_a_proportion_is_of_its_own_scans_with_an_exact_interval_where_all_are_hits():
    truth = np.arange(12) < 8
    hits = proportion("Sensitivity", lambda truth, values: values > 0, lambda truth: truth)
    values = np.array([1] * 8 + [0] * 4)
    evaluation = Evaluation(PATIENTS, truth)
    assert evaluation.of([Prediction(np.arange(12), values)], hits).estimate == exact_proportion(True, 8, 8)
    values[:2] = 0
    estimate = evaluation.of([Prediction(np.arange(12), values)], hits).estimate
    assert (estimate.value, estimate.n) == (0.75, 8)
    assert estimate.low < 0.75 < estimate.high


def test_calcium_or_none():
    truth = np.array([True, True, True, False, False] * 2)
    values = radiomics.with_calls(np.array([0.9, 0.8, 0.3, 0.4, 0.1] * 2), 0.35)
    evaluation = Evaluation(PATIENTS[:10], truth)

    def value(measure):
        return evaluation.of([Prediction(np.arange(10), values)], measure).values[0]

    assert value(radiomics.AUC) == pytest.approx(5 / 6)
    assert value(radiomics.SENSITIVITY) == pytest.approx(2 / 3)
    assert value(radiomics.SPECIFICITY) == pytest.approx(1 / 2)
    assert value(radiomics.ACCURACY) == pytest.approx(3 / 5)


def test_scores():
    truth = np.zeros((12, 4))
    truth[:, 1] = [0, 0, 0, 50, 50, 50, 150, 150, 150, 500, 500, 500]
    predicted = truth + np.array([0, 10, 0, 0])
    evaluation = Evaluation(PATIENTS, truth)

    def value(measure):
        return evaluation.of([Prediction(np.arange(12), predicted)], measure).values[0]

    assert value(vessels.RANK) == pytest.approx(1)
    assert value(vessels.ABSOLUTE_ERROR) == pytest.approx(10)
    assert value(vessels.squared_error(500)) == pytest.approx(1000 * (10 / 500) ** 2 / 4)
    # A quarter, without calcium, is predicted one category too high; chance is the mean distance of categories drawn
    # from equal quarters and from (0, 1/2, 1/4, 1/4).
    first, second, distance = (
        np.full(4, 0.25),
        np.array([0, 0.5, 0.25, 0.25]),
        np.abs(np.subtract.outer(range(4), range(4))),
    )
    assert value(vessels.CATEGORY_KAPPA) == pytest.approx(1 - 0.25 / (first @ distance @ second))
