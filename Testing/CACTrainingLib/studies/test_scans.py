"""Scans of a study: digital cohorts and tables of pairs, and their faults."""

import json

import pytest

from CACScoringLib.core.errors import CTError
from CACTrainingLib.studies.scans import find_study_scans, lone_patients


def digital_scan(folder, patient, number, **more):
    folder.mkdir(parents=True)
    (folder / "ct.nii.gz").write_bytes(b"")
    truth = {"patient": patient, "scan": number, "calcium_hu_per_mg_cm3": 1.4, **more}
    (folder / "truth.json").write_text(json.dumps(truth), encoding="utf-8")


@pytest.fixture
def cohort(tmp_path):
    """Patients 9 and 10 with both scans, 11 with one."""
    for patient, number in ((10, 1), (10, 2), (9, 2), (9, 1), (11, 1)):
        digital_scan(tmp_path / f"patient_{patient}" / f"scan_{number}", patient, number)
    return tmp_path


def test_a_digital_cohort_in_the_order_of_its_numbers(cohort):
    scans, warnings = find_study_scans(cohort)
    assert [(s.patient, s.number) for s in scans] == [("9", 1), ("9", 2), ("10", 1), ("10", 2), ("11", 1)]
    assert scans[0].truth == cohort / "patient_9" / "scan_1" / "truth.json"
    assert scans[0].hu_mm3_per_mass() == 1400
    assert not warnings
    assert lone_patients(scans) == ["11"]


@pytest.mark.parametrize(
    "text", ["{", "[]", '{"patient": 3}', '{"patient": 10, "scan": 2}', '{"patient": 3, "scan": 7}']
)
def test_a_bad_truth_stops_nothing(cohort, text):
    digital_scan(cohort / "zz", 99, 1)
    (cohort / "zz" / "truth.json").write_text(text, encoding="utf-8")
    scans, warnings = find_study_scans(cohort)
    assert len(scans) == 5
    assert len(warnings) == 1
    assert "zz" in warnings[0]


def table(path, *rows):
    path.write_text("\n".join(rows), encoding="utf-8")
    return path


def test_a_table_of_pairs(tmp_path):
    file = table(
        tmp_path / "pairs.csv",
        "patient;scan;ct;lesions;heart",
        "anna;1;a1.nrrd;a1-lesions.seg.nrrd;",
        "anna;2;a2.nrrd;;h.nrrd",
        "anna;2;a3.nrrd;;",
        ";1;b.nrrd;;",
        "ben;3;b.nrrd;;",
    )
    scans, warnings = find_study_scans(file)
    assert [(s.name, s.patient, s.number, s.ct.name) for s in scans] == [
        ("anna/1", "anna", 1, "a1.nrrd"),
        ("anna/2", "anna", 2, "a2.nrrd"),
    ]
    assert scans[0].lesions == tmp_path.resolve() / "a1-lesions.seg.nrrd"
    assert scans[0].heart is None
    assert scans[1].heart.name == "h.nrrd"
    assert scans[0].hu_mm3_per_mass() == 1
    assert ["4" in warnings[0], "5" in warnings[1], "6" in warnings[2]] == [True] * 3


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (("patient,ct", "a,x"), "no column scan"),
        (("patient,scan,ct",), "no rows"),
        (("patient,scan,ct", "a,7,x"), "Line 2"),
    ],
)
def test_tables_that_are_none(tmp_path, rows, message):
    with pytest.raises(CTError, match=message):
        find_study_scans(table(tmp_path / "pairs.csv", *rows))
