"""Splits: no patient on both sides, each category on each."""

from pathlib import Path

import numpy as np
import pytest

from CACScoringLib.core.tables import TableError
from CACTrainingLib.data.scan_table import TableScan
from CACTrainingLib.statistics.patient_folds import category_of
from CACTrainingLib.whole_scan.split import TESTED, folds, held_out, learned_and_tested

SCORES = (0.0, 50.0, 200.0, 900.0)


def scans(count, scans_each=2):
    return [
        TableScan(f"{n}-{s}", str(n), {"ct": Path("x")}, {"LAD": SCORES[n % 4]})
        for n in range(count)
        for s in range(scans_each)
    ]


def test_categories():
    assert category_of(np.array([0, 0.1, 99.9, 100, 399, 400])).tolist() == [0, 1, 1, 2, 2, 3]


def test_a_fifth_is_held_out_by_patient_with_every_category():
    everything = scans(40)
    training, test = held_out(everything)
    assert sorted(training + test) == sorted(scan.name for scan in everything)
    patient = {scan.name: scan.patient for scan in everything}
    assert not {patient[n] for n in training} & {patient[n] for n in test}
    assert len(test) == 16
    found = [int(patient[n]) % 4 for n in test]
    assert [found.count(category) for category in range(4)] == [4, 4, 4, 4]
    assert held_out(everything, seed=1) != (training, test)


def test_another_table_is_tested_on():
    everything = scans(40)
    assert learned_and_tested(everything) == (tuple(everything), *held_out(everything))
    noncoronary_controls = [TableScan(scan.name, f"other {scan.patient}", scan.files, scan.scores) for scan in scans(3)]
    together, learned, tested = learned_and_tested(everything, noncoronary_controls)
    assert learned == [scan.name for scan in everything]
    assert tested == [TESTED + scan.name for scan in noncoronary_controls], "names of both tables may be the same"
    assert [scan.name for scan in together] == learned + tested
    with pytest.raises(TableError, match="Patient 0 is in --test and is learned from"):
        learned_and_tested(everything, scans(1))


def test_every_scan_is_in_one_part():
    parts = folds(scans(12), 3)
    inside = [name for _, part in parts for name in part]
    assert sorted(inside) == sorted(scan.name for scan in scans(12))
    assert all(not set(outside) & set(part) for outside, part in parts)


def test_too_few_patients():
    with pytest.raises(TableError, match="2 patients, at most 2 of one category of score, cannot be split into 5"):
        folds(scans(2), 5)
    with pytest.raises(TableError, match="12 patients, at most 3 of"):
        folds(scans(12, scans_each=1), 4)
