"""Areas, curves and calibration of the study, against scikit-learn, statsmodels and counting by hand."""

import math

import numpy as np
import pytest
from radiograph_study import write_table
from sklearn.metrics import roc_auc_score, roc_curve

from CACTrainingLib.radiograph.study.configurations import BASE
from CACTrainingLib.radiograph.study.results import (
    Predictions,
    Radiographs,
    Study,
    factors_alone,
    gathered,
    read_radiographs,
)
from CACTrainingLib.statistics import roc
from CACTrainingLib.statistics.bootstrap import paired_difference
from CACTrainingLib.statistics.roc import ROC_POINTS, area_within, curve_within

N = 120


@pytest.fixture
def sample():
    generator = np.random.default_rng(5)
    truth = generator.random(N) < 0.4
    scores = np.round(truth + generator.normal(0, 1, N), 1)  # with ties
    return generator.integers(0, 3, N), truth, scores


def test_area_within_one_fold_is_the_plain_area(sample):
    _, truth, scores = sample
    found = area_within(np.ones((1, N)), np.zeros(N, int), truth, scores)
    assert found[0] == pytest.approx(roc_auc_score(truth, scores), abs=1e-12)


def test_area_within_folds_counts_pairs_of_a_fold_only(sample):
    folds, truth, scores = sample
    won = pairs = 0.0
    for i in np.flatnonzero(truth):
        for j in np.flatnonzero(~truth):
            if folds[i] == folds[j]:
                won += (scores[i] > scores[j]) + 0.5 * (scores[i] == scores[j])
                pairs += 1
    found = area_within(np.ones((1, N)), folds, truth, scores)
    assert found[0] == pytest.approx(won / pairs, abs=1e-12)
    # A network that gives all of its fold more is no better for it.
    assert area_within(np.ones((1, N)), folds, truth, scores + 10 * folds)[0] == pytest.approx(found[0], abs=1e-12)


def test_weights_are_as_good_as_repeated_patients(sample, monkeypatch):
    folds, truth, scores = sample
    weights = np.random.default_rng(0).integers(0, 3, (4, N)).astype(float)
    found = area_within(weights, folds, truth, scores)
    for n in range(4):
        drawn = np.repeat(np.arange(N), weights[n].astype(int))
        again = area_within(np.ones((1, len(drawn))), folds[drawn], truth[drawn], scores[drawn])
        assert found[n] == pytest.approx(again[0], abs=1e-12)
    monkeypatch.setattr(roc, "_MOST_PAIRS", 0)
    assert area_within(weights, folds, truth, scores) == pytest.approx(found, abs=1e-12)


def test_no_area_where_a_class_is_missing():
    assert math.isnan(area_within(np.ones((1, 3)), np.zeros(3, int), np.zeros(3, bool), np.arange(3.0))[0])


def test_curve_of_one_fold_is_scikit_learns(sample):
    _, truth, scores = sample
    found = curve_within(np.ones((1, N)), np.zeros(N, int), truth, scores)[0]
    x, y, _ = roc_curve(truth, scores, drop_intermediate=False)
    assert found == pytest.approx(np.interp(ROC_POINTS, x, y), abs=1e-12)


def test_curves_of_folds_are_averaged_and_enclose_their_area(sample):
    folds, truth, scores = sample
    found = curve_within(np.ones((1, N)), folds, truth, scores)[0]
    assert np.trapezoid(found, ROC_POINTS) == pytest.approx(
        area_within(np.ones((1, N)), folds, truth, scores)[0], abs=0.01
    )


def study_of(tmp_path, patients=80, factors=True):
    data = read_radiographs(write_table(tmp_path / "radiographs.csv", patients, factors=factors))
    return data, Study(data, {}, np.arange(patients) % 5)


def test_a_table_is_read_with_its_factors(tmp_path):
    data, _ = study_of(tmp_path)
    assert data.factors.shape == (80, 3)
    assert set(data.factors[:, 1]) == {0.0, 1.0}
    assert data.above(0).sum() == 50
    assert data.above(100).sum() == 30
    assert read_radiographs(write_table(tmp_path / "other.csv", 8, factors=False)).factors is None


def test_clinical_factors_are_evaluated_on_others_than_they_learned_from(tmp_path):
    data, study = study_of(tmp_path)
    found = factors_alone(study)
    assert found.image.shape == (80, 3)
    assert ((found.image > 0) & (found.image < 1)).all()
    # Age tells: it was drawn higher where there is calcium.
    assert study.areas(found, found.image)[0].estimate.value > 0.55
    # Who is tested has no part in it: another outcome of theirs leaves their probabilities as they are.
    changed = data.agatston.copy()
    changed[study.folds == 0] = 900.0
    other = Study(Radiographs(data.names, data.patients, changed, data.factors, ""), {}, study.folds)
    own = study.folds == 0
    assert factors_alone(other).image[own] == pytest.approx(found.image[own])
    assert factors_alone(other).image[~own] != pytest.approx(found.image[~own])


def test_no_clinical_factors_no_model_of_them(tmp_path):
    assert factors_alone(study_of(tmp_path, 8, factors=False)[1]) is None


def test_predictions_are_gathered_by_name(tmp_path):
    data, _ = study_of(tmp_path, 8)
    parts = [
        {"names": [data.names[n] for n in rows], "fold": fold, "logits": [[n, 0, 0] for n in rows]}
        | {"image": [[0.5] * 3] * len(rows), "both": None, "seconds": 1.0, "steps": 2}
        for fold, rows in enumerate(([6, 1], [3]))
    ]
    found = gathered(data, parts)
    assert found.rows.tolist() == [6, 1, 3]
    assert found.folds.tolist() == [0, 0, 1]
    assert found.logits[:, 0].tolist() == [6, 1, 3]
    assert found.both is None


def test_statistics_share_resamples_so_that_differences_are_paired(tmp_path):
    data, study = study_of(tmp_path)
    rows = np.arange(80)
    value = data.agatston + np.random.default_rng(0).normal(0, 300, 80)
    predictions = Predictions(rows, study.folds, *[np.stack([value] * 3, 1)] * 2, None, (), (), None)
    first = study.areas(predictions, predictions.image)
    again = Study(data, {BASE: predictions}, study.folds).areas(predictions, predictions.image)
    change = paired_difference(first[-1], again[-1])
    assert (change.estimate.value, change.estimate.low, change.estimate.high, change.p) == (0, 0, 0, 1.0)
    assert first[-1].values == pytest.approx(np.mean([one.values for one in first[:3]], axis=0))
    assert first[0].estimate.n == 80


def test_only_rows_that_are_asked_for_count(tmp_path):
    data, study = study_of(tmp_path)
    value = np.stack([data.agatston] * 3, 1)
    predictions = Predictions(np.arange(80), study.folds, value, value, None, (), (), None)
    found = study.areas(predictions, value, np.arange(20))
    assert found[0].n == 20
    assert found[0].estimate.value == 1.0
