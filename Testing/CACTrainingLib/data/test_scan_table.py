"""Tables of CTs and of radiographs: required columns, scores by artery, errors that name the line, and splits."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from CACScoringLib.core.errors import TableError
from CACScoringLib.core.labels import ARTERIES
from CACTrainingLib.data.scan_table import TESTED, TableScan, held_out, join, read_cts, read_radiographs, table_hash

KINDS = {
    "radiographs": ("file", "agatston", lambda path: read_radiographs(path, "agatston")),
    "CTs": ("ct", "agatston_LM,agatston_LAD,agatston_LCX,agatston_RCA", read_cts),
}


@pytest.fixture(params=KINDS)
def kind(request):
    return KINDS[request.param]


@pytest.fixture
def read(kind, tmp_path):
    """Reader of lines, in which FILE is an existing file and SCORES are all scores but the last."""
    file, scores, reader = kind
    (tmp_path / "a.npz").touch()

    def read(*lines):
        path = tmp_path / "own.csv"
        zeros = "0," * scores.count(",")
        text = "\n".join([f"name,patient,{file},age_years,sex,bmi_kg_m2,{scores}", *lines])
        path.write_text(text.replace("FILE", "a.npz").replace("SCORES,", zeros) + "\n", encoding="utf-8")
        return reader(path)

    return read


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("x,1,c.png,60,F,25,SCORES,0", "line 2 .*c.png"),
        ("x,1,,60,F,25,SCORES,0", "no (file|ct) in line 2"),
        ("x,,FILE,60,F,25,SCORES,0", "no patient in line 2"),
        ("x,1,FILE,60,female,25,SCORES,0", "sex in line 2 .*'female'"),
        ("x,1,FILE,600,F,25,SCORES,0", "age_years in line 2 .*between 0 and 120"),
        ("x,1,FILE,60,F,25,SCORES,much", "agatston(_RCA)? in line 2 .*'much'"),
        ("x,1,FILE,60,F,25,SCORES,-1", "agatston(_RCA)? in line 2 .*from 0 up"),
        ("x,1,FILE,60,F,25,SCORES,inf", "agatston(_RCA)? in line 2"),
        ("x,1,FILE,60,F,25,SCORES,", "1 rows .* lack agatston(_RCA)?, such as x"),
        ("x,1,FILE,60,F,25", "Line 2 .* has 6 cells"),
        ("x,1,FILE,60,F,25,SCORES,0\nx,2,FILE,60,F,25,SCORES,0", "Lines 2 and 3 .*'x'"),
        ("", "no rows"),
    ],
)
def test_what_is_wrong_is_told(read, line, message):
    with pytest.raises(TableError, match=message):
        read(line)


def test_the_hash_is_of_what_is_learned_from(read):
    lines = ["x,1,FILE,60,F,25,SCORES,0", "y,2,FILE,60,F,25,SCORES,8"]
    first = table_hash(read(*lines))
    assert first == table_hash(read(*lines[::-1]))
    assert first != table_hash(read(lines[0], lines[1][:-1] + "9"))


HEAD = "name,patient,ct,agatston_LM,agatston_LAD,agatston_LCX,agatston_RCA\n"


@pytest.fixture
def table(tmp_path):
    (tmp_path / "a.nii.gz").touch()
    (tmp_path / "b.nii.gz").touch()

    def write(text):
        path = tmp_path / "own.csv"
        path.write_text(text, encoding="utf-8")
        return path

    return write


def test_own_scans(table):
    text = HEAD.strip() + ",heart,sex,age_years,series,contrast\nx,7,a.nii.gz,1,2,3,4,b.nii.gz,F,61,12,1\n"
    path = table(text)
    (scan,) = read_cts(path)
    assert (scan.name, scan.patient, scan.series, scan.sex, scan.age_years) == ("x", "7", "12", "F", 61.0)
    assert (scan.ct, scan.heart) == (path.parent / "a.nii.gz", path.parent / "b.nii.gz")
    assert scan.scores == dict(zip(ARTERIES, (1.0, 2.0, 3.0, 4.0), strict=True))
    assert (scan.total, scan.bmi_kg_m2, scan.contrast) == (10.0, None, True)


@pytest.mark.parametrize(("contrast", "enhanced"), [(None, False), (False, False), (True, True)])
def test_digital_cohort(tmp_path, contrast, enhanced):
    """Five times the true mass; contrast from the cohort's settings."""
    place = tmp_path / "patient_00003" / "scan_1"
    place.mkdir(parents=True)
    (place / "ct.nii.gz").touch()
    head = "patient,folder,sex,age_years,bmi_kg_m2,mass_mg_LM,mass_mg_LAD,mass_mg_LCX,mass_mg_RCA\n"
    (tmp_path / "cohort.csv").write_text(head + "3,patient_00003/scan_1,M,60,25,0,2,0,0.5\n", encoding="utf-8")
    settings = {} if contrast is None else {"contrast": contrast}
    (tmp_path / "cohort.json").write_text(json.dumps({"settings": settings}), encoding="utf-8")
    (scan,) = read_cts(tmp_path)
    assert scan.scores == {"LM": 0.0, "LAD": 10.0, "LCX": 0.0, "RCA": 2.5}
    assert (scan.ct, scan.contrast) == (place / "ct.nii.gz", enhanced)
    (place / "ct.nii.gz").unlink()
    with pytest.raises(TableError, match=r"line 2 .* holds no ct\.nii\.gz"):
        read_cts(tmp_path)


SCORES = (0.0, 50.0, 200.0, 900.0)


def scans(count, scans_each=2):
    return [
        TableScan(f"{n}-{s}", str(n), {"ct": Path("x")}, {"agatston": SCORES[n % 4]})
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


def test_patients_for_test_are_held_out_and_never_learned_from():
    everything = [replace(scan, use="test" if scan.patient == "2" else "training") for scan in scans(6)]
    assert held_out(everything) == join(everything, ())[1] == ["2-0", "2-1"]
    joined, tested = join(everything, [replace(scan, patient="other", use=None) for scan in scans(1)])
    assert "2" not in {scan.patient for scan in joined}
    assert tested == ["test 0-0", "test 0-1"]


def test_another_table_is_tested_on():
    everything = scans(40)
    others = [TableScan(scan.name, f"other {scan.patient}", scan.files, scan.scores) for scan in scans(3)]
    joined, tested = join(everything, others)
    assert tested == [TESTED + scan.name for scan in others], "names of both tables may be the same"
    assert [scan.name for scan in joined] == [scan.name for scan in everything] + tested
    with pytest.raises(TableError, match=r"Patient 0 .* is learned from"):
        join(everything, scans(1))
