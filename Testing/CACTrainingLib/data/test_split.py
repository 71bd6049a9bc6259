"""Splits: no patient on both sides, each category on each."""

from pathlib import Path

import pytest

from CACScoringLib.core.errors import TableError
from CACTrainingLib.data.scan_table import TESTED, TableScan, held_out, join

SCORES = (0.0, 50.0, 200.0, 900.0)


def scans(count, scans_each=2):
    return [
        TableScan(f"{n}-{s}", str(n), {"ct": Path("x")}, {"LAD": SCORES[n % 4]})
        for n in range(count)
        for s in range(scans_each)
    ]


def test_a_fifth_is_held_out_by_patient_with_every_category():
    everything = scans(40)
    patient = {scan.name: scan.patient for scan in everything}
    test = held_out(everything)
    assert not {patient[n] for n in test} & {p for n, p in patient.items() if n not in test}
    assert len(test) == 16
    categories = [int(patient[n]) % 4 for n in test]
    assert [categories.count(category) for category in range(4)] == [4, 4, 4, 4]


def test_another_table_is_tested_on():
    everything = scans(40)
    others = [TableScan(scan.name, f"other {scan.patient}", scan.files, scan.scores) for scan in scans(3)]
    joined, tested = join(everything, others)
    assert tested == [TESTED + scan.name for scan in others], "names of both tables may be the same"
    assert [scan.name for scan in joined] == [scan.name for scan in everything] + tested
    with pytest.raises(TableError, match=r"Patient 0 .* is learned from"):
        join(everything, scans(1))
