"""What the study of radiographs trains, and by whom it is judged."""

from dataclasses import fields, replace

import numpy as np
import pytest

from CACTrainingLib.experiments.errors import StudyError
from CACTrainingLib.radiograph.study.plan import (
    BASE,
    TABLES,
    Cell,
    Effort,
    Job,
    category_of,
    cells_of,
    chosen_tables,
    folds_of_patients,
    jobs_of,
)


def test_every_table_holds_what_the_papers_compare():
    sharpening = {(cell.sharpening, cell.enhancement) for cell in TABLES["sharpening"]}
    assert len(TABLES["sharpening"]) == len(sharpening) == 12
    assert {(cell.labels, cell.curriculum) for cell in TABLES["curriculum"]} == {
        (labels, on) for labels in ("truth", "reader", "automatic") for on in (True, False)
    }
    # What is learned from differs in nothing else.
    assert len({replace(cell, labels="truth", curriculum=False) for cell in TABLES["curriculum"]}) == 1
    assert [cell.views for cell in TABLES["fusion"]] == [("PA",), ("lateral",), ("PA", "lateral")]
    assert {cell.backbone for cell in TABLES["capacity"] if not cell.located} == {"light", "resnet18", "densenet121"}


def test_shared_cells_are_trained_once_and_the_base_first():
    jobs = jobs_of(tuple(TABLES), Effort(folds=4))
    assert len(set(jobs)) == len(jobs)
    assert jobs[:4] == [Job(BASE, fold) for fold in range(4)]
    assert len(cells_of(tuple(TABLES))) < sum(map(len, TABLES.values()))
    assert jobs[-1] == Job(replace(BASE, external=True), 0)


def test_fewer_folds_of_a_table_but_never_of_the_base():
    effort = Effort(folds=5, only={"sharpening": 2, "capacity": 1})
    jobs = jobs_of(("capacity", "sharpening"), effort)
    counts = {cell: sum(job.cell == cell for job in jobs) for cell in {job.cell for job in jobs}}
    assert counts.pop(BASE) == 5
    assert {counts[cell] for cell in TABLES["sharpening"] if cell != BASE} == {2}
    assert {counts[cell] for cell in TABLES["capacity"] if cell != BASE} == {1}


def test_a_cell_of_two_tables_gets_the_most_folds():
    light = replace(BASE, located=False)
    assert light in TABLES["capacity"]
    assert light in TABLES["twins"]
    assert Effort(5, {"capacity": 1}).folds_of(light, tuple(TABLES)) == 5


def test_cells_have_names_of_their_own():
    cells = cells_of(tuple(TABLES))
    assert len({cell.name for cell in cells}) == len(cells)
    assert BASE.name == "light-PA"


@pytest.mark.parametrize("field", [field.name for field in fields(Cell)])
def test_a_key_tells_all_that_a_result_depends_on(field):
    others = {
        "backbone": "resnet18",
        "views": ("lateral",),
        "sharpening": "learned",
        "enhancement": "clahe",
        "labels": "reader",
        "curriculum": True,
        "twins": False,
        "located": False,
        "external": True,
    }
    changed = Job(replace(BASE, **{field: others[field]}), 0)
    assert changed.key(Effort(), "data") != Job(BASE, 0).key(Effort(), "data")


def test_a_key_tells_fold_effort_and_data():
    first = Job(BASE, 0).key(Effort(), "data")
    others = [
        Job(BASE, 1).key(Effort(), "data"),
        Job(BASE, 0).key(Effort(), "other"),
        Job(BASE, 0).key(Effort(folds=10), "data"),
        Job(BASE, 0).key(Effort(steps=9), "data"),
        Job(BASE, 0).key(Effort(seed=1), "data"),
    ]
    assert len({first, *others}) == 6
    # How many folds are trained changes none of them.
    assert Job(BASE, 0).key(Effort(only={"fusion": 1}), "data") == first


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


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (lambda: Effort(folds=2), "3 folds"),
        (lambda: Effort(folds=5, only={"fusion": 6}), "5 folds"),
        (lambda: Effort(only={"colours": 1}), "colours"),
        (lambda: chosen_tables(["colours"]), "colours"),
        (lambda: folds_of_patients(["a", "b"], np.zeros(2), 3, 0), "2 patients"),
    ],
)
def test_what_cannot_be_is_said(wrong, said):
    with pytest.raises(StudyError, match=said):
        wrong()


def test_tables_come_in_the_order_of_their_importance():
    assert chosen_tables(["sharpening", "fusion"]) == ("fusion", "sharpening")
    assert chosen_tables([]) == tuple(TABLES)
