"""Parts of patients: nobody in two, and each category shared out."""

import numpy as np

from CACTrainingLib.statistics.patient_folds import category_of, parts_by_patient

PATIENTS = np.repeat(np.arange(30), 2)
CATEGORY = np.repeat(np.arange(30) % 3, 2)


def test_nobody_is_in_two_parts_and_each_has_its_share_of_every_category():
    part = parts_by_patient(PATIENTS, CATEGORY, 5, seed=1)
    assert (part[::2] == part[1::2]).all()
    counts = [np.bincount(CATEGORY[part == number], minlength=3).tolist() for number in range(5)]
    assert counts == [[4, 4, 4]] * 5


def test_categories_begin_above_zero_and_at_100_and_400():
    assert category_of(np.array([0, 0.1, 99.9, 100, 399.9, 400])).tolist() == [0, 1, 1, 2, 2, 3]
