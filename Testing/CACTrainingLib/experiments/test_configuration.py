"""What experiments train, how much of it, and by what the results that are kept are told apart."""

from dataclasses import fields, replace

import pytest

from CACTrainingLib.experiments.configuration import ExperimentRun, TrainingBudget, chosen_tables
from CACTrainingLib.experiments.errors import StudyError
from CACTrainingLib.radiograph.study import configurations as radiograph
from CACTrainingLib.whole_scan.radiomics import configurations as radiomics
from CACTrainingLib.whole_scan.vessels import configurations as vessels

BUDGETS = {
    radiograph: TrainingBudget(),
    vessels: vessels.VesselBudget(),
    radiomics: TrainingBudget(),
}
RUNS = {
    radiograph: ExperimentRun(radiograph.BASE, 0),
    vessels: vessels.VesselRun(vessels.Configuration("cnn"), 0),
    radiomics: ExperimentRun(radiomics.Configuration(), 0),
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
    vessels: {
        "kind": "vit",
        "output": "log",
        "pooling": "average",
        "augmented": False,
        "rates": vessels.GRID[0],
    },
    radiomics: {"features": "heart", "classifier": "svm", "contrast": True, "pseudo": True},
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


@pytest.mark.parametrize("study", [radiograph, vessels], ids=["radiograph", "vessels"])
def test_a_key_tells_steps_but_not_what_else_is_trained(study):
    run, budget = RUNS[study], BUDGETS[study]
    key = study.run_key(run, budget, "data")
    assert study.run_key(run, replace(budget, steps=9), "data") != key
    if budget.TABLES:
        assert study.run_key(run, replace(budget, only={budget.TABLES[1]: 1}), "data") == key


@pytest.mark.parametrize(
    ("study", "key"),
    [
        (
            vessels,
            '{"cell": {"augmented": true, "kind": "cnn", "output": "linear", "pooling": "average+max", "rates": null}, '
            '"choosing": false, "data": "d", "fold": 0, "folds": 5, "judged": false, "looked_at": false, "preset": '
            '"compact", "seed": 0, "steps": null}',
        ),
        (
            radiomics,
            '{"classifier": "logistic", "contrast": false, "data": "d", "features": "both", "fold": 0, "folds": 5, '
            '"pseudo": false, "seed": 0}',
        ),
    ],
    ids=["vessels", "radiomics"],
)
def test_studies_of_earlier_versions_go_on(study, key):
    assert study.run_key(RUNS[study], BUDGETS[study], "d") == key


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (lambda: TrainingBudget(folds=1), "2 folds or more"),
        (lambda: TrainingBudget(only={"any": 1}), "no table 'any'"),
        (lambda: vessels.VesselBudget(only={"augmentation": 6}), "1 to all of them"),
        (lambda: vessels.VesselBudget(only={"fusion": 1}), "no table 'fusion'"),
        (lambda: vessels.VesselBudget(folds=1), "2 folds or more"),
        (lambda: vessels.VesselBudget(kinds=("resnet",)), "no network 'resnet'"),
        (lambda: vessels.VesselBudget(kinds=()), "--kinds"),
        (lambda: vessels.VesselBudget(outputs=("square",)), "no output 'square'"),
        (lambda: vessels.VesselBudget(preset="huge"), "no preset 'huge'"),
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
    assert vessels.VesselBudget(folds=4, only={"grid": 2}).folds_text == "4 folds; of these trained: grid 2"
