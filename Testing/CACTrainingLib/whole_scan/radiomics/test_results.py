"""Statistics of the study of radiomics, against scikit-learn, SciPy and counting by hand."""

import numpy as np
import pytest
from made_radiomics import made_scans
from sklearn.metrics import accuracy_score, recall_score, roc_auc_score

from CACTrainingLib.experiments.configuration import ExperimentRun
from CACTrainingLib.statistics.bootstrap import Bootstrap, paired_difference
from CACTrainingLib.whole_scan.radiomics.configurations import HELD_OUT, Configuration
from CACTrainingLib.whole_scan.radiomics.results import (
    ACCURACY,
    AREA,
    CROSSED,
    HELD,
    SENSITIVITY,
    SPECIFICITY,
    Study,
    gathered,
)

N = 80
FOLDS = np.arange(N) // 8 % 4 - 1


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(Bootstrap.__init__, "__defaults__", (200,))


@pytest.fixture(scope="module")
def scans():
    return made_scans(N)


def result(scans, fold, column=0, limit=0.5, noncoronary_controls=None):
    rows = np.flatnonzero(fold == FOLDS)
    probabilities = 1 / (1 + np.exp(-scans.features["heart"][rows, column]))
    return {
        "rows": rows.tolist(),
        "fold": fold,
        "probabilities": probabilities.tolist(),
        "limit": limit,
        "others": noncoronary_controls,
    }


def kept_of(scans, configurations, folds=(0, 1, 2, HELD_OUT)):
    return {
        ExperimentRun(one, fold): result(scans, fold, column)
        for one, column in configurations.items()
        for fold in folds
    }


def test_each_fold_has_its_own_limit(scans):
    parts = [result(scans, 0, limit=0.9), result(scans, 1, limit=0.1, noncoronary_controls=[0.2, 0.8])]
    found = gathered(parts)
    first = found.folds == 0
    assert found.called[first].tolist() == (found.probabilities[first] >= 0.9).tolist()
    assert found.called[~first].tolist() == (found.probabilities[~first] >= 0.1).tolist()
    assert found.noncoronary_controls is None
    probabilities, called = gathered(parts[1:]).noncoronary_controls
    assert (probabilities.tolist(), called.tolist()) == ([0.2, 0.8], [True, True])


def test_measures_are_the_librarys(scans):
    study = Study(scans, FOLDS, kept_of(scans, {Configuration(): 0}))
    evaluated = study.parts[HELD][Configuration()]
    truth = scans.truth[evaluated.rows]
    found = {name: one.estimate for name, one in study.measures(evaluated).items()}
    assert found[ACCURACY].value == pytest.approx(accuracy_score(truth, evaluated.called))
    assert found[SENSITIVITY].value == pytest.approx(recall_score(truth, evaluated.called))
    assert found[SPECIFICITY].value == pytest.approx(recall_score(~truth, ~evaluated.called))
    assert found[AREA].value == pytest.approx(roc_auc_score(truth, evaluated.probabilities))
    assert [found[name].n for name in (ACCURACY, SENSITIVITY, SPECIFICITY)] == [len(truth), truth.sum(), (~truth).sum()]
    assert found[ACCURACY].low < found[ACCURACY].value < found[ACCURACY].high


def test_another_reference_can_be_asked_for(scans):
    study = Study(scans, FOLDS, kept_of(scans, {Configuration(): 0}))
    evaluated = study.parts[CROSSED][Configuration()]
    found = study.measures(evaluated, scans.visible == 1)
    visible = scans.visible[evaluated.rows] == 1
    assert found[SENSITIVITY].estimate.value == pytest.approx(evaluated.called[visible].mean())
    assert found[SENSITIVITY].n == visible.sum() < scans.truth[evaluated.rows].sum()


def test_areas_across_folds_count_pairs_of_a_fold(scans):
    kept = kept_of(scans, {Configuration(): 0})
    plain = Study(scans, FOLDS, kept).parts[CROSSED][Configuration()]
    for fold in range(3):
        kept[ExperimentRun(Configuration(), fold)]["probabilities"] = [
            0.3 * fold + 0.3 * p for p in kept[ExperimentRun(Configuration(), fold)]["probabilities"]
        ]
    study = Study(scans, FOLDS, kept)
    shifted = study.parts[CROSSED][Configuration()]
    truth = scans.truth[plain.rows]
    assert study.area(shifted, truth).values[0] == pytest.approx(study.area(plain, truth).values[0])


def test_what_is_not_complete_is_not_evaluated(scans):
    study = Study(scans, FOLDS, kept_of(scans, {Configuration(): 0}, (0, 2, HELD_OUT)))
    assert Configuration() not in study.parts[CROSSED]
    assert Configuration() in study.parts[HELD]
    assert study.best([Configuration()]) is None


def test_the_best_is_chosen_without_those_held_out(scans):
    kept = kept_of(scans, {Configuration(): 0, Configuration("heart"): 1})
    # Held out, the other is perfect.
    rows = np.flatnonzero(FOLDS == HELD_OUT)
    kept[ExperimentRun(Configuration("heart"), HELD_OUT)]["probabilities"] = scans.truth[rows].astype(float).tolist()
    study = Study(scans, FOLDS, kept)
    assert study.best([Configuration("heart"), Configuration()]) == Configuration()
    assert study.best([Configuration("heart")]) == Configuration("heart")
    assert study.best([Configuration("own")]) is None


def test_the_rule_calls_what_the_pseudo_labels_call(scans):
    study = Study(scans, FOLDS, {})
    rule = study.rule(CROSSED)
    assert set(rule.rows.tolist()) == set(np.flatnonzero(FOLDS != HELD_OUT).tolist())
    assert rule.called.tolist() == scans.pseudo[rule.rows].tolist()
    assert rule.probabilities.tolist() == scans.features["agatston"][rule.rows, 0].tolist()


def test_differences_are_paired_on_the_same_patients(scans):
    study = Study(scans, FOLDS, kept_of(scans, {Configuration(): 0, Configuration("heart"): 0}))
    first, second = (study.measures(study.parts[HELD][one])[AREA] for one in (Configuration(), Configuration("heart")))
    change = paired_difference(first, second)
    assert (change.estimate.value, change.estimate.low, change.estimate.high, change.p) == (0, 0, 0, 1)
