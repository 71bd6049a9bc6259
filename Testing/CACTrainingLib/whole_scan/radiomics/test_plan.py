"""What the study of radiomics fits."""

from dataclasses import fields, replace

import pytest

from CACTrainingLib.whole_scan.radiomics.plan import (
    BASELINES,
    CLASSIFIERS,
    FEATURES,
    HELD_OUT,
    RADIOMICS,
    Cell,
    Job,
    cells_of,
    jobs_of,
    model_cells,
    twin,
)


def test_every_set_of_features_meets_every_classifier_and_a_baseline_one():
    cells = model_cells(("heart", "candidates", "both", "own", "agatston"))
    assert {(cell.features, cell.classifier) for cell in cells} == {
        (name, classifier) for name in (*RADIOMICS, "own") for classifier in CLASSIFIERS
    } | {("agatston", "logistic")}
    assert "age-sex" in BASELINES
    assert not [cell for cell in model_cells(tuple(RADIOMICS)) if cell.features in BASELINES]


def test_what_differs_in_one_thing_has_its_twin():
    cells = cells_of(tuple(FEATURES), contrast=True)
    assert len(set(cells)) == len(cells)
    changed = [cell for cell in cells if cell.contrast or cell.pseudo]
    assert {(cell.contrast, cell.pseudo) for cell in changed} == {(True, False), (False, True)}
    assert {twin(cell) for cell in changed} <= set(cells)
    assert not [cell for cell in cells_of(tuple(FEATURES), contrast=False) if cell.contrast]


def test_a_model_for_each_fold_and_one_for_those_held_out():
    jobs = jobs_of([Cell(), Cell("heart")], 3)
    assert len(set(jobs)) == 8
    assert {job.fold for job in jobs} == {0, 1, 2, HELD_OUT}


@pytest.mark.parametrize("field", [field.name for field in fields(Cell)])
def test_a_key_tells_all_that_a_model_depends_on(field):
    other = {"features": "heart", "classifier": "svm", "contrast": True, "pseudo": True}[field]
    assert Job(replace(Cell(), **{field: other}), 0).key("data", 5, 0) != Job(Cell(), 0).key("data", 5, 0)


def test_a_key_tells_fold_folds_seed_and_data():
    keys = {Job(Cell(), 0).key("data", 5, 0), Job(Cell(), HELD_OUT).key("data", 5, 0)}
    keys |= {Job(Cell(), 0).key(*changed) for changed in (("other", 5, 0), ("data", 4, 0), ("data", 5, 1))}
    assert len(keys) == 5
