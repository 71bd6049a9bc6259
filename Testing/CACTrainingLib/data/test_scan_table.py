"""Tables of CTs and of radiographs: required columns, and errors that name the line."""

import pytest

from CACScoringLib.core.errors import TableError
from CACTrainingLib.data.scan_table import read_cts, read_radiographs, table_hash

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
