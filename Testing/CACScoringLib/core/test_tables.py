"""Reading of tables, with errors that name the place, and writing for spreadsheets."""

import math

import pytest

from CACScoringLib.core.errors import TableError
from CACScoringLib.core.tables import guarded_cell, read_table, table_text, write_table


@pytest.fixture
def table(tmp_path):
    def write(text, encoding="utf-8"):
        path = tmp_path / "t.csv"
        path.write_bytes(text if isinstance(text, bytes) else text.encode(encoding))
        return path

    return write


@pytest.mark.parametrize(
    ("separator", "encoding", "end"), [(",", "utf-8", "\n"), (";", "utf-8-sig", "\r\n"), ("\t", "utf-8", "\r\n")]
)
def test_separators_encodings_and_line_ends_of_spreadsheets(table, separator, encoding, end):
    text = end.join((" CT ,Age,", '"ä\n1", 60 ,', "", ",,", "b,,", ""))
    parsed = read_table(table(text.replace(",", separator), encoding), ["ct", "age"])
    assert parsed.columns == ("CT", "Age")
    assert [(line.number, line.text("ct"), line.text("AGE")) for line in parsed.lines] == [
        (3, "ä\n1", "60"),
        (6, "b", ""),
    ]
    assert "Ct" in parsed
    assert "name" not in parsed
    assert parsed.lines[0].text("name") == ""


def test_a_folder_holds_its_table(table):
    path = table("a\n1\n")
    assert read_table(path.parent, usual_name="t.csv").path == path
    with pytest.raises(TableError, match=r"u\.csv"):
        read_table(path.parent, usual_name="u.csv")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("\n \n", "t.csv"),
        ("ct,b\n", "t.csv"),
        ("path,b\n1,2\n", "column ct"),
        ("ct,b,CT\n1,2,3\n", "two columns"),
        ("ct,b\n1,2\n\n3\n", "Line 4"),
        ('ct,b\n"1,2\n', "UTF-8"),
        ("ct,b\n" + "1" * 200_000, "UTF-8"),
        (b"ct,b\n\xe4,1\n", "UTF-8"),
        ("ct,b\n1,2\n".encode("utf-16"), "UTF-8"),
        (b"ct,b\n\0,1\n", "UTF-8"),
    ],
)
def test_unreadable_tables_are_refused(table, text, message):
    with pytest.raises(TableError, match=message):
        read_table(table(text), ["ct"])


def test_a_table_of_a_german_spreadsheet(table):
    """Semicolons, decimal commas and Windows-1252."""
    (line,) = read_table(table("ct;Größe;total\nä.nii.gz;1,75;212,5\n".encode("cp1252"))).lines
    assert (line.text("ct"), line.number_in("größe"), line.number_in("total")) == ("ä.nii.gz", 1.75, 212.5)


def test_short_lines_are_accepted_on_request(table):
    path = table("ct,b\n1\n2,3,,\n")
    assert [line.text("b") for line in read_table(path, short_lines=True).lines] == ["", "3"]
    with pytest.raises(TableError, match=r"Line 2 .*3 cells"):
        read_table(table("ct,b\n1,2,3\n"), short_lines=True)


@pytest.mark.parametrize(("text", "value"), [("", None), (" 7 ", 7.0), ("1e1", 10.0), ("-0.0", 0.0)])
def test_numbers(table, text, value):
    [line] = read_table(table(f"a,b\n{text},x\n")).lines
    assert line.number_in("a", 0, 10, integer=True) == value
    assert line.number_in("no such column") is None


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("a;b\n12,5;x\n3;x\n1.234;x\n", [12.5, 3.0, 1234.0]),
        ("a;b\n12.5;x\n1.234;x\n", [12.5, 1.234]),
        ("a;b\n1.234.567;x\n2,5;x\n", [1234567.0, 2.5]),
        ("a;b\n1.234;0,5\n2.500;7\n", [1234.0, 2500.0]),  # the other column decides
        ("a,b\n1.234,x\n2.500,x\n", [1.234, 2.5]),
        ('a,b\n"1,234.5",x\n12.25,x\n', [1234.5, 12.25]),
        ("a\tb\n12,50\t1\n,5\t1\n", [12.5, 0.5]),
        ("a;b\n12;x\n1e3;x\n-4;x\n", [12.0, 1000.0, -4.0]),
    ],
)
def test_decimal_marks_are_detected_by_column(table, text, values):
    lines = read_table(table(text)).lines
    assert [line.number_in("a") for line in lines] == values


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a;b\n1.234;x\n300;x\n", r"1\.234"),
        ('a,b\n"1,234",x\n', "1,234"),
        ("a;b\n1,5;x\n2.5;x\n", r"2\.5, 1,5"),
        ("a;b\n1.234;1,5\n2.345;2.5\n", r"1\.234"),
    ],
)
def test_numbers_of_two_meanings_are_refused(table, text, message):
    with pytest.raises(TableError, match=message):
        read_table(table(text)).lines[0].number_in("a")


@pytest.mark.parametrize(
    ("text", "limits", "message"),
    [
        ("much", (), "much"),
        ("inf", (0,), "inf"),
        ("-0.1", (0, 10), "0 and 10"),
        ("10.1", (0, 10), "0 and 10"),
        ("1.5", (0, 10, True), "whole"),
        ("x" * 1000, (), "'x{80}'"),
    ],
)
def test_invalid_numbers_are_refused_with_the_place(table, text, limits, message):
    [line] = read_table(table(f"age\n{text}\n")).lines
    with pytest.raises(TableError, match=f"age in line 2 .*{message}"):
        line.number_in("age", *limits)


def test_words(table):
    lines = read_table(table("sex,b\nf,1\n,2\nfemale,3\n")).lines
    assert [line.choice("sex", ("F", "M")) for line in lines[:2]] == ["F", None]
    with pytest.raises(TableError, match=r"sex in line 4 .*female"):
        lines[2].choice("sex", ("F", "M"))


def test_files_lie_beside_the_table(table):
    path = table("ct,b\nt.csv,1\n,2\nnone.nii,3\n" + "n" * 5000 + ",4\n")
    lines = read_table(path).lines
    assert [line.file("ct") for line in lines[:2]] == [path, None]
    for line, number in zip(lines[2:], (4, 5), strict=True):
        with pytest.raises(TableError, match=f"ct 'n.*in line {number} "):
            line.file("ct")


def test_cells_that_must_be_filled(table):
    [line] = read_table(table("ct,b\n,1\n")).lines
    line.need("b")
    with pytest.raises(TableError, match="There is no ct in line 2"):
        line.need("b", "ct")


def test_names_are_distinct(table):
    scans = read_table(table("ct\na\n\nb\na\n"))
    scans.need_distinct(["x", "y", "z"])
    with pytest.raises(TableError, match=r"Lines 2 and 5 .*ct"):
        scans.need_distinct([line.text("ct") for line in scans.lines], "ct")


def test_written_tables(tmp_path):
    rows = [(1, None, "=1+1"), {"c": 'say "a,b"', "a": 0.1, "of no column": 7}]
    assert table_text("abc", rows) == 'a,b,c\n1,,=1+1\n0.1,,"say ""a,b"""\n'
    assert table_text("abc", rows[:1], "\t", guarded=True) == "a\tb\tc\n1\t\t'=1+1\n"
    write_table(tmp_path / "t.csv", "abc", rows, guarded=True)
    assert (tmp_path / "t.csv").read_bytes() == b'a,b,c\n1,,\'=1+1\n0.1,,"say ""a,b"""\n'
    assert [path.name for path in tmp_path.iterdir()] == ["t.csv"]
    assert [line.text("a") for line in read_table(tmp_path / "t.csv").lines] == ["1", "0.1"]


@pytest.mark.parametrize("text", ["=1", "+1", "-1", "@a", "\ta"])
def test_only_texts_that_would_be_run_are_guarded(text):
    assert guarded_cell(text) == f"'{text}"
    assert [guarded_cell(cell) for cell in ("1=1", "", -1, None)] == ["1=1", "", -1, None]
    assert math.isnan(guarded_cell(math.nan))


def test_names_that_would_break_a_terminal_are_not_repeated(table):
    with pytest.raises(TableError) as raised:
        read_table(table("a\x1b[2J,b\n1,2\n"), ["ct"])
    assert "\x1b" not in str(raised.value)


def test_columns_under_other_names(table):
    path = table("Patient;Score;total\na;1,5;x\nb;2;y\n")
    renamed = read_table(path).renamed({"id": "patient", "name": "Patient", "total": "score"})
    assert renamed.columns == ("id", "name", "total")
    assert [line.text("id") + line.text("name") for line in renamed.lines] == ["aa", "bb"]
    assert [line.number_in("total") for line in renamed.lines] == [1.5, 2]
    with pytest.raises(TableError, match="no column Points; it has Patient, Score, total"):
        read_table(path).renamed({"total": "Points"})
