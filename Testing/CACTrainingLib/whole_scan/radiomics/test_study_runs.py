"""One model of the study: whom it may learn from, and how the importance of features is told."""

import json
from dataclasses import replace

import numpy as np
import pytest
from made_radiomics import MadeModel, made_scans
from sklearn.metrics import roc_auc_score

from CACScoringLib.core.ct import CTError
from CACTrainingLib.experiments.configuration import ExperimentRun, TrainingBudget
from CACTrainingLib.whole_scan.radiomics import fitting as radiomics_fitting
from CACTrainingLib.whole_scan.radiomics.configurations import HELD_OUT, Configuration
from CACTrainingLib.whole_scan.radiomics.study_runs import Data, family_of, importance, trainer

N = 80
BUDGET = TrainingBudget(seed=4)


@pytest.fixture
def learned(monkeypatch):
    """What each model was given; models are made up."""
    given = []

    def fit_classifier(kind, features, labels, patients, seed):
        given.append((kind, features, labels, patients, seed))
        return MadeModel(features, labels)

    monkeypatch.setattr(radiomics_fitting, "fit_classifier", fit_classifier)
    return given


@pytest.fixture(scope="module")
def data():
    folds = np.arange(N) // 8 % 5 - 1  # the first of them held out, the others in four folds
    # Some are patients of the study too, others are not.
    return Data(made_scans(N), folds, made_scans(30, first=30, seed=3), made_scans(12, 500, score=0.0))


def test_a_model_learns_from_neither_its_fold_nor_those_held_out(data, learned):
    result = trainer(data, BUDGET)(ExperimentRun(Configuration("heart", "svm"), 2))
    kind, features, labels, patients, seed = learned[0]
    rows = np.flatnonzero((data.folds != 2) & (data.folds != HELD_OUT))
    assert (kind, seed) == ("svm", 4)
    assert features.tolist() == data.own.features["heart"][rows].tolist()
    assert labels.tolist() == data.own.truth[rows].tolist()
    assert patients == tuple(data.own.patients[row] for row in rows)
    assert result["rows"] == np.flatnonzero(data.folds == 2).tolist()
    assert len(result["probabilities"]) == len(result["rows"])
    assert result["others"] is None
    assert result["importance"] is None


def test_the_last_model_learns_from_all_that_are_not_held_out(data, learned):
    result = trainer(data, BUDGET)(ExperimentRun(Configuration(), HELD_OUT))
    assert len(learned[0][2]) == (data.folds != HELD_OUT).sum() == result["learned_from"]
    assert len(result["others"]) == 12
    assert {row[0] for row in result["importance"]["features"]} == set(data.own.titles["both"])
    json.dumps(result, allow_nan=False)
    assert trainer(data, BUDGET)(ExperimentRun(Configuration("heart"), HELD_OUT))["importance"] is None


def test_pseudo_labels_take_the_place_of_the_truth(data, learned):
    trainer(data, BUDGET)(ExperimentRun(Configuration(pseudo=True), 0))
    rows = np.flatnonzero((data.folds != 0) & (data.folds != HELD_OUT))
    assert learned[0][2].tolist() == data.own.pseudo[rows].tolist()
    assert learned[0][2].tolist() != data.own.truth[rows].tolist()


@pytest.mark.parametrize("fold", [1, HELD_OUT])
def test_contrast_enhanced_scans_of_nobody_who_is_evaluated(data, learned, fold):
    trainer(data, BUDGET)(ExperimentRun(Configuration(contrast=True), fold))
    evaluated = {data.own.patients[row] for row in np.flatnonzero((data.folds == fold) | (data.folds == HELD_OUT))}
    patients = learned[0][3]
    assert not evaluated & set(patients)
    wanted = [patient for patient in data.contrast.patients if patient not in evaluated]
    assert list(patients[-len(wanted) :]) == wanted
    assert 10 <= len(wanted) < 30


def test_too_few_of_a_kind_are_told(data, learned):
    scores = np.where(np.arange(N) < N - 4, 0.0, 9.0)
    with pytest.raises(CTError, match="Give more patients"):
        trainer(replace(data, own=replace(data.own, agatston=scores)), BUDGET)(ExperimentRun(Configuration(), 0))
    assert not learned


def test_a_model_that_gives_no_numbers_is_told(data, learned, monkeypatch):
    monkeypatch.setattr(MadeModel, "probabilities", lambda self, features: np.full(len(features), np.nan))
    monkeypatch.setattr(MadeModel, "__init__", lambda self, *a: None)
    with pytest.raises(CTError, match="not numbers"):
        trainer(data, BUDGET)(ExperimentRun(Configuration(), 0))


class One:
    """Looks at some features only."""

    def __init__(self, *columns):
        self.columns = list(columns)

    def probabilities(self, features):
        return 1 / (1 + np.exp(-features[:, self.columns].sum(1)))


TITLES = ("heart_stat_mean", "heart_stat_var", "heart_cm_contrast", "candidate_place_x")


@pytest.fixture(scope="module")
def sample():
    generator = np.random.default_rng(2)
    truth = np.arange(60) % 2 == 0
    features = generator.normal(size=(60, 4))
    features[:, 0] += 2 * truth
    features[:, 1] = features[:, 0]
    return features, truth, tuple(map(str, range(60)))


def test_only_features_that_a_model_looks_at_matter(sample):
    features, truth, patients = sample
    found = importance(One(0), features, truth, patients, TITLES)
    first = found["features"][0]
    assert first[0] == "heart_stat_mean"
    # Without the feature the model knows nothing: all above chance is lost, but for the chance of the shuffles.
    assert first[1] == pytest.approx(roc_auc_score(truth, features[:, 0]) - 0.5, abs=0.05)
    assert first[3] < first[1] < first[4]
    assert first[2] > 0
    assert {tuple(row[1:3]) for row in found["features"][1:]} == {(0.0, 0.0)}


def test_two_that_say_the_same_stand_in_for_each_other_but_not_for_their_family(sample):
    features, truth, patients = sample
    found = importance(One(0, 1), features, truth, patients, TITLES)
    single, family = found["features"][0], found["families"][0]
    assert family[0] == "heart_stat"
    assert family[1] > 1.5 * single[1]
    assert family[1] == pytest.approx(roc_auc_score(truth, features[:, 0]) - 0.5, abs=0.05)


def test_a_feature_that_is_the_same_in_all_loses_nothing(sample):
    features, truth, patients = sample
    features = features.copy()
    features[:, 3] = 7.0
    rows = {row[0]: row[1:] for row in importance(One(0, 3), features, truth, patients, TITLES)["features"]}
    assert rows["candidate_place_x"] == [0.0] * 4


def test_families_are_the_first_two_words():
    assert family_of("candidate_cm_joint_entr") == "candidate_cm"
    assert family_of("heart_volume") == "heart_volume"
