"""What the study of radiographs trains, and on whom it is evaluated."""

from dataclasses import replace

import numpy as np
import pytest

from CACTrainingLib.experiments.configuration import ExperimentRun
from CACTrainingLib.experiments.errors import StudyError
from CACTrainingLib.radiograph.study.configurations import (
    BASE,
    TABLES,
    RadiographBudget,
    category_of,
    configurations_of,
    folds_of_patients,
    runs_of,
)


def test_every_table_holds_what_the_papers_compare():
    super_resolution = {(one.super_resolution, one.enhancement) for one in TABLES["super_resolution"]}
    assert len(TABLES["super_resolution"]) == len(super_resolution) == 12
    assert {(one.labels, one.curriculum) for one in TABLES["curriculum"]} == {
        (labels, on) for labels in ("truth", "reader", "automatic") for on in (True, False)
    }
    # What is learned from differs in nothing else.
    assert len({replace(one, labels="truth", curriculum=False) for one in TABLES["curriculum"]}) == 1
    assert [one.views for one in TABLES["fusion"]] == [("PA",), ("lateral",), ("PA", "lateral")]
    assert {one.backbone for one in TABLES["capacity"] if not one.located} == {"light", "resnet18", "densenet121"}


def test_shared_configurations_are_trained_once_and_the_base_first():
    runs = runs_of(tuple(TABLES), RadiographBudget(folds=4))
    assert len(set(runs)) == len(runs)
    assert runs[:4] == [ExperimentRun(BASE, fold) for fold in range(4)]
    assert len(configurations_of(tuple(TABLES))) < sum(map(len, TABLES.values()))
    assert runs[-1] == ExperimentRun(replace(BASE, external=True), 0)


def test_fewer_folds_of_a_table_but_never_of_the_base():
    budget = RadiographBudget(folds=5, only={"super_resolution": 2, "capacity": 1})
    runs = runs_of(("capacity", "super_resolution"), budget)
    counts = {one: sum(run.configuration == one for run in runs) for one in {run.configuration for run in runs}}
    assert counts.pop(BASE) == 5
    assert {counts[one] for one in TABLES["super_resolution"] if one != BASE} == {2}
    assert {counts[one] for one in TABLES["capacity"] if one != BASE} == {1}


def test_a_configuration_of_two_tables_gets_the_most_folds():
    light = replace(BASE, located=False)
    assert light in TABLES["capacity"]
    assert light in TABLES["counterfactual_pairs"]
    assert RadiographBudget(5, {"capacity": 1}).folds_of(light, tuple(TABLES)) == 5


def test_configurations_have_names_of_their_own():
    configurations = configurations_of(tuple(TABLES))
    assert len({one.name for one in configurations}) == len(configurations)
    assert BASE.name == "light-PA"


def test_folds_split_by_patient_with_the_same_mix():
    generator = np.random.default_rng(3)
    score = np.repeat(generator.permutation(np.repeat([0.0, 30.0, 200.0, 900.0], 20)), 2)
    patients = [str(n // 2) for n in range(len(score))]
    folds = folds_of_patients(patients, score, 4, 0)
    assert all(len(set(folds[n : n + 2])) == 1 for n in range(0, len(score), 2))
    for fold in range(4):
        assert np.bincount(category_of(score[folds == fold]), minlength=4).tolist() == [10, 10, 10, 10]
    assert (folds_of_patients(patients, score, 4, 0) == folds).all()
    assert (folds_of_patients(patients, score, 4, 1) != folds).any()


def test_categories_begin_at_their_thresholds():
    assert category_of(np.array([0.0, 0.01, 99.99, 100.0, 399.9, 400.0, 5000.0])).tolist() == [0, 1, 1, 2, 2, 3, 3]


def test_patients_fewer_than_folds_are_told():
    with pytest.raises(StudyError, match="2 patients"):
        folds_of_patients(["a", "b"], np.zeros(2), 3, 0)
