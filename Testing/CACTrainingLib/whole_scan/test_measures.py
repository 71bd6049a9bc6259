"""Statistics of models that predict from a whole scan."""

from types import SimpleNamespace

import numpy as np
import pytest

from CACTrainingLib.evaluation.experiment import predicted_rows
from CACTrainingLib.evaluation.measures import Comparison
from CACTrainingLib.whole_scan.radiomics import study as radiomics
from CACTrainingLib.whole_scan.vessels import study as vessels

SCANS = [SimpleNamespace(patient=f"p{n}", name=f"s{n}") for n in range(12)]


def values(measures_of, columns, *arguments):
    measures = measures_of(predicted_rows(SCANS[: len(columns["truth"])], columns), *arguments)
    comparison = Comparison([scan.patient for scan in SCANS], {}, np.random.default_rng(0))
    return {measure.title: comparison.averaged(measure, "model").values[0] for measure in measures}


def test_calcium_or_none():
    truth = np.array([True, True, True, False, False] * 2)
    predicted = radiomics.with_calls(np.array([0.9, 0.8, 0.3, 0.4, 0.1] * 2), 0.35)
    results = values(radiomics.measures_of, radiomics.columns_of(truth, predicted))
    expected = {"AUC": 5 / 6, "Sensitivity": 2 / 3, "Specificity": 1 / 2, "Accuracy": 3 / 5}
    assert results == pytest.approx(expected)


def test_scores():
    truth = np.zeros((12, 4))
    truth[:, 1] = [0, 0, 0, 50, 50, 50, 150, 150, 150, 500, 500, 500]
    predicted = truth + np.array([0, 10, 0, 0])
    # A quarter, without calcium, is predicted one category too high; chance is the mean distance of categories drawn
    # from equal quarters and from (0, 1/2, 1/4, 1/4).
    first, second, distance = (
        np.full(4, 0.25),
        np.array([0, 0.5, 0.25, 0.25]),
        np.abs(np.subtract.outer(range(4), range(4))),
    )
    results = values(vessels.measures_of, vessels.columns_of(truth, predicted), 500)
    assert results == pytest.approx(
        {
            "Rank correlation": 1,
            "Mean absolute error": 10,
            "Squared error, ‰": 1000 * (10 / 500) ** 2 / 4,
            "κ of categories": 1 - 0.25 / (first @ distance @ second),
        }
    )
