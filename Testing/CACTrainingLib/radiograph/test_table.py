"""Tables of radiographs: what they hold of their own."""

import pytest

from CACScoringLib.core.tables import TableError
from CACTrainingLib.radiograph.table import read_table


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


def test_columns_that_are_missing(table):
    with pytest.raises(TableError, match="no column patient, agatston_reader"):
        read_table(table("file\na.png\n"), "agatston_reader")
