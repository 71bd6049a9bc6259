"""Scans with outlined hearts are split as their table says, and no patient is in both parts."""

import json
from dataclasses import replace

import pytest
from training_scans import write_scan

from CACScoringLib.core.tables import TableError
from CACTrainingLib.data.datasets import DataError, find_scans
from CACTrainingLib.data.heart_scans import outlined_scans, read_pairs, split


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    folder = tmp_path_factory.mktemp("real")
    rows = ["patient,ct,heart,label,use"]
    for name, use in (("a", "training"), ("b", "validation")):
        write_scan(folder / name, name, False, False)
        rows.append(f"{name},{name}/ct.nii.gz,{name}/heart.nii.gz,1,{use}")
    path = folder / "pairs.csv"
    path.write_text("\n".join(rows))
    return path


def test_use_is_kept(table, cohort):
    training, validation = ({scan.patient for scan in part} for part in outlined_scans([cohort], None, table, 0.3, 0))
    assert "a" in training
    assert "b" in validation
    assert not training & validation
    pairs = [replace(scan, patient="0") for scan in read_pairs(table)]
    with pytest.raises(DataError, match="both in training and in validation: 0"):
        split(find_scans([cohort]), pairs, 0.3, 0)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("a,,x.nii.gz,,", "no ct in line 2"),
        ("a,none.nii.gz,none.nii.gz,,", "none.nii.gz.* in line 2 .*is not there"),
        ("a,a/ct.nii.gz,a/heart.nii.gz,heart,", "whole number"),
        ("a,a/ct.nii.gz,a/heart.nii.gz,1,test", "training or validation, or leave it empty"),
    ],
)
def test_mistakes_are_told(table, row, message):
    path = table.parent / "wrong.csv"
    path.write_text(f"patient,ct,heart,label,use\n{row}\n")
    with pytest.raises(TableError, match=message):
        read_pairs(path)


def test_a_heart_found_from_the_lungs_is_not_learned_from(tmp_path):
    """Lesions inserted into a real scan without a heart mask come with the region found, which is no outline."""
    for name, source in (("a", "given"), ("b", "lungs"), ("c", "given")):
        truth = write_scan(tmp_path / name, name, coronary=True, valve=False) / "truth.json"
        truth.write_text(json.dumps({**json.loads(truth.read_text(encoding="utf-8")), "heart_source": source}))
    parts = outlined_scans([tmp_path], None, None, 0.5, 0)
    assert sorted(scan.patient for part in parts for scan in part) == ["a", "c"]
    with pytest.raises(DataError, match="--heart MASK"):
        outlined_scans([tmp_path / "b"], None, None, 0.5, 0)
