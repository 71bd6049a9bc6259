"""What experiments train, how much of it, and by what the results that are kept are told apart."""

from dataclasses import fields, replace

import pytest

from CACTrainingLib.experiments.configuration import ExperimentRun, TrainingBudget, chosen_tables
from CACTrainingLib.experiments.errors import StudyError
from CACTrainingLib.radiograph.study import configurations as radiograph
from CACTrainingLib.whole_scan.vessels.study import VesselBudget

BUDGETS = {
    radiograph: TrainingBudget(),
}
RUNS = {
    radiograph: ExperimentRun(radiograph.BASE, 0),
}
OTHERS = {
    radiograph: {
        "name": "other",
        "backbone": "resnet18",
        "views": ("lateral",),
        "super_resolution": "learned",
        "enhancement": "clahe",
        "label": "agatston_reader",
        "curriculum": True,
        "counterfactual": False,
        "located": False,
    },
}


@pytest.mark.parametrize("study", RUNS, ids=lambda study: study.__name__.split(".")[-2])
def test_a_key_tells_all_that_a_result_depends_on(study):
    run, budget = RUNS[study], BUDGETS[study]
    assert set(OTHERS[study]) == {field.name for field in fields(run.configuration)}
    runs = [replace(run, configuration=replace(run.configuration, **{n: v})) for n, v in OTHERS[study].items()]
    runs += [run, replace(run, fold=1)]
    keys = [study.run_key(one, budget, "data") for one in runs]
    keys += [study.run_key(run, budget, "other"), study.run_key(run, replace(budget, folds=10), "data")]
    keys.append(study.run_key(run, replace(budget, seed=1), "data"))
    assert len(set(keys)) == len(keys) == len(OTHERS[study]) + 5


@pytest.mark.parametrize("study", RUNS, ids=lambda study: study.__name__.split(".")[-2])
def test_a_key_tells_steps_but_not_what_else_is_trained(study):
    run, budget = RUNS[study], BUDGETS[study]
    key = study.run_key(run, budget, "data")
    assert study.run_key(run, replace(budget, steps=9), "data") != key
    if budget.TABLES:
        assert study.run_key(run, replace(budget, only={budget.TABLES[1]: 1}), "data") == key


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (lambda: TrainingBudget(folds=1), "2 folds or more"),
        (lambda: TrainingBudget(only={"any": 1}), "no table 'any'"),
        (lambda: VesselBudget(networks=("resnet",)), "no network 'resnet'"),
        (lambda: VesselBudget(preset="huge"), "no preset 'huge'"),
        (lambda: chosen_tables(["colours"], ["fusion"]), "no table 'colours'; choose one of fusion"),
    ],
)
def test_what_cannot_be_is_said(wrong, said):
    with pytest.raises(StudyError, match=said):
        wrong()


def test_tables_come_in_the_order_of_their_importance():
    known = ("first", "second", "third")
    assert chosen_tables([], known) == known
    assert chosen_tables(["third", "first"], known) == ("first", "third")
    assert chosen_tables(["third"], known, always=("second",)) == ("second", "third")


def test_the_budget_is_told():
    assert TrainingBudget(4).folds_text == "4 folds"
