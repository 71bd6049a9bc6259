"""Budgets of experiments, and keys of stored results."""

from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest

from CACTrainingLib.data.scan_table import TableScan
from CACTrainingLib.evaluation.experiment import Cohort, ExperimentRun, TrainingBudget
from CACTrainingLib.evaluation.jobs import StudyError
from CACTrainingLib.radiograph.study.runs import BASE
from CACTrainingLib.radiograph.study.study import RadiographStudy, RadiographStudySettings
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


def key(run, patient="1", **budget):
    settings = RadiographStudySettings(Path(), Path(), TrainingBudget(**budget))
    cohort = Cohort((TableScan("scan", patient, {}),), np.zeros(1), np.zeros(1), np.zeros((1, 3)))
    return RadiographStudy(settings, cohort, (BASE,), None).key(run)


def test_keys_depend_on_every_field():
    run = ExperimentRun(BASE, 0)
    assert set(CHANGED_FIELDS) == {field.name for field in fields(BASE)}
    runs = [run, replace(run, fold=1), *(ExperimentRun(replace(BASE, **{n: v}), 0) for n, v in CHANGED_FIELDS.items())]
    keys = [*map(key, runs), key(run, "2"), *(key(run, **{name: 10}) for name in ("folds", "steps", "seed"))]
    assert len(set(keys)) == len(keys)


@pytest.mark.parametrize(
    ("make_budget", "message"),
    [
        (lambda: TrainingBudget(folds=1), "2 folds or more"),
        (lambda: RadiographStudySettings(Path(), Path(), TrainingBudget(folds=2)), "3 folds or more"),
        (lambda: RadiographStudySettings(Path(), Path(), names=("odd",)), "no configuration 'odd'"),
        (lambda: VesselBudget(networks=("resnet",)), "no network 'resnet'"),
        (lambda: VesselBudget(preset="huge"), "no preset 'huge'"),
    ],
)
def test_budgets_that_cannot_be(make_budget, message):
    with pytest.raises(StudyError, match=message):
        make_budget()
