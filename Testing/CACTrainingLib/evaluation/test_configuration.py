"""Budgets of experiments, and keys of stored results."""

from dataclasses import fields, replace

import pytest

from CACTrainingLib.evaluation.experiment import ExperimentRun, TrainingBudget
from CACTrainingLib.evaluation.jobs import StudyError
from CACTrainingLib.radiograph.study.runs import BASE, run_key
from CACTrainingLib.whole_scan.vessels.study import VesselBudget

CHANGED_FIELDS = {
    "name": "other",
    "backbone": "resnet18",
    "views": ("lateral",),
    "super_resolution": "learned",
    "enhancement": "clahe",
    "label": "agatston_reader",
    "curriculum": True,
    "counterfactual": False,
    "located": False,
}


def test_keys_depend_on_every_field():
    run, budget = ExperimentRun(BASE, 0), TrainingBudget()
    assert set(CHANGED_FIELDS) == {field.name for field in fields(BASE)}
    runs = [run, replace(run, fold=1), *(ExperimentRun(replace(BASE, **{n: v}), 0) for n, v in CHANGED_FIELDS.items())]
    keys = [run_key(changed_run, budget, "data") for changed_run in runs] + [run_key(run, budget, "other")]
    keys += [run_key(run, replace(budget, **{name: 10}), "data") for name in ("folds", "steps", "seed")]
    assert len(set(keys)) == len(keys)


@pytest.mark.parametrize(
    ("make_budget", "message"),
    [
        (lambda: TrainingBudget(folds=1), "2 folds or more"),
        (lambda: VesselBudget(networks=("resnet",)), "no network 'resnet'"),
        (lambda: VesselBudget(preset="huge"), "no preset 'huge'"),
    ],
)
def test_budgets_that_cannot_be(make_budget, message):
    with pytest.raises(StudyError, match=message):
        make_budget()
