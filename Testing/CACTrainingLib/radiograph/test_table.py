"""Tables of radiographs: what they must hold, and that every error names its line."""

import pytest

from CACScoringLib.core.tables import TableError
from CACTrainingLib.data.scan_table import table_hash
from CACTrainingLib.radiograph.table import read_table

HEAD = "name,patient,file,age_years,sex,bmi_kg_m2,agatston\n"


@pytest.fixture
def table(tmp_path):
    (tmp_path / "a.png").touch()
    (tmp_path / "b.png").touch()

    def write(text):
        path = tmp_path / "own.csv"
        path.write_text(text, encoding="utf-8")
        return path

    return write


def test_what_is_read(table):
    path = table("file,patient,agatston,sex,age_years,lateral,time_years,event\na.png,7,12.5,F,61,b.png,3.5,1\n")
    (row,) = read_table(path, "agatston")
    assert row.files == {"PA": path.parent / "a.png", "lateral": path.parent / "b.png"}
    assert (row.name, row.patient, row.sex, row.age_years, row.bmi_kg_m2) == ("line 2", "7", "F", 61.0, None)
    assert (row.scores, row.time_years, row.event) == ({"agatston": 12.5}, 3.5, True)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("x,1,c.png,60,F,25,0", "line 2 .*c.png"),
        ("x,1,,60,F,25,0", "no file in line 2"),
        ("x,,a.png,60,F,25,0", "no patient in line 2"),
        ("x,1,a.png,60,female,25,0", "sex in line 2 .*'female'"),
        ("x,1,a.png,600,F,25,0", "age_years in line 2 .*between 0 and 120"),
        ("x,1,a.png,60,F,25,much", "agatston in line 2 .*'much'"),
        ("x,1,a.png,60,F,25,-1", "agatston in line 2 .*from 0 up"),
        ("x,1,a.png,60,F,25,inf", "agatston in line 2"),
        ("x,1,a.png,60,F,25,", "1 rows .* no agatston, among them x"),
        ("x,1,a.png,60,F,25", "Line 2 .* has 6 cells"),
        ("x,1,a.png,60,F,25,0\nx,2,b.png,60,F,25,0", "Lines 2 and 3 .*'x'"),
        ("", "no rows"),
    ],
)
def test_what_is_wrong_is_told(table, line, message):
    with pytest.raises(TableError, match=message):
        read_table(table(f"{HEAD}{line}\n" if line else HEAD), "agatston")


def test_columns_that_are_missing(table):
    with pytest.raises(TableError, match="no column patient, agatston_reader"):
        read_table(table("file\na.png\n"), "agatston_reader")


def test_no_table(tmp_path):
    with pytest.raises(TableError, match="There is no table"):
        read_table(tmp_path)


def test_the_hash_is_of_what_is_learned_from(table):
    lines = ["x,1,a.png,60,F,25,0\n", "y,2,b.png,60,F,25,8\n"]
    first = table_hash(read_table(table(HEAD + "".join(lines))))
    assert first == table_hash(read_table(table(HEAD + "".join(lines[::-1]))))
    assert first != table_hash(read_table(table(HEAD + lines[0] + "y,2,b.png,60,F,25,9\n")))
