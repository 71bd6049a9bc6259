"""Settings of experiments that are refused, and keys of stored results."""

from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
from made_experiments import EXPERIMENTS

from CACScoringLib.core.errors import CTError
from CACTrainingLib.data.scan_table import TableScan
from CACTrainingLib.evaluation.experiment import Cohort, ExperimentRun, ExperimentSettings, TrainingBudget, carry_out
from CACTrainingLib.radiograph.study.study import BASE, RadiographStudy

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
    settings = ExperimentSettings(Path(), Path(), budget=TrainingBudget(**budget))
    cohort = Cohort((TableScan("scan", patient, {}),), np.zeros(1), np.zeros(1), np.zeros((1, 3)))
    return RadiographStudy(settings, cohort, (BASE,)).key(run)


def test_keys_depend_on_every_field():
    run = ExperimentRun(BASE, 0)
    assert set(CHANGED_FIELDS) == {field.name for field in fields(BASE)}
    runs = [run, replace(run, fold=1), *(ExperimentRun(replace(BASE, **{n: v}), 0) for n, v in CHANGED_FIELDS.items())]
    keys = [*map(key, runs), key(run, "2"), *(key(run, **{name: 10}) for name in ("folds", "steps", "seed"))]
    assert len(set(keys)) == len(keys)


@pytest.mark.parametrize(
    ("experiment", "changes", "message"),
    [
        ("radiomics", {"budget": TrainingBudget(folds=1)}, "2 folds or more"),
        ("radiograph", {"budget": TrainingBudget(folds=2)}, "3 folds or more"),
        ("radiograph", {"names": ("odd",)}, "no configuration 'odd'"),
        ("vessels", {"names": ("resnet",)}, "no configuration 'resnet'"),
        ("vessels", {"preset": "huge"}, "no preset 'huge'"),
    ],
)
def test_settings_that_cannot_be(experiment, changes, message, tmp_path):
    kind = EXPERIMENTS[experiment].kind
    with pytest.raises(CTError, match=message):
        carry_out(kind, kind.SETTINGS(tmp_path, tmp_path, **changes))
