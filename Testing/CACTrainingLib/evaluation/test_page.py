"""A study's page and files: content, escaping, and independence of other files."""

import csv
import datetime
import io
import json
import math
import re
from functools import partial
from html.parser import HTMLParser

import pandas as pd
import pytest

from CACScoringLib.statistics.bootstrap import Estimate
from CACTrainingLib.evaluation import page as study_page
from CACTrainingLib.evaluation.figures import panels_of_values
from CACTrainingLib.evaluation.measures import long_table
from CACTrainingLib.evaluation.page import DIGITAL, cell_text, table_as_csv, write_study
from CACTrainingLib.evaluation.parts import Figure, Gallery, PicturePart, Section, TablePart

NAN = math.nan
AUC = Estimate(0.742, 0.571, 0.849, 50)


def table(name="one", columns=("Method", "AUC"), rows=(("map", AUC),), note="", title="A table"):
    return TablePart(name, title, columns, rows, note)


def figure(name="drawn", note=""):
    draw = partial(panels_of_values, groups=["map"], panels={"": {"map": [AUC]}}, y_title="AUC")
    return Figure(name, "A figure", draw, note, (4, 2))


def page_of(tmp_path, *tables, figures=(), text=(), digital=True, facts=None, title="A study"):
    section = Section("results", "Results", tuple(text), tables, tuple(figures))
    path = write_study(tmp_path, title, [section], facts or {}, digital)
    return path.read_text(encoding="utf-8")


class _Checked(HTMLParser):
    """Parser that checks the nesting of tags and collects ids, links and sources."""

    VOID = ("meta", "img", "br")

    def __init__(self):
        super().__init__()
        self.open, self.ids, self.links, self.sources = [], [], [], []

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.ids += [attributes["id"]] if "id" in attributes else []
        self.links += [attributes["href"]] if "href" in attributes else []
        self.sources += [attributes["src"]] if "src" in attributes else []
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def checked(html):
    parser = _Checked()
    parser.feed(html)
    assert parser.open == []
    return parser


class TestShown:
    @pytest.mark.parametrize(
        ("cell", "text"),
        [
            (AUC, "0.74 [0.57, 0.85], n = 50"),
            (Estimate(-0.21, -0.51, -0.004, 9), "−0.210 [−0.510, −0.004], n = 9"),
            (Estimate(0.059, 0.0, 0.15, 1034), "0.06 [0.00, 0.15], n = 1,034"),
            (Estimate(153.26, 80.0, 1200.0, 3), "153 [80, 1,200], n = 3"),
            (Estimate(12.34, 10.0, 15.0, 3), "12.3 [10.0, 15.0], n = 3"),
            (Estimate(0.5, NAN, NAN, 2), "0.50, n = 2"),
            (Estimate(NAN, NAN, NAN, 0), "not defined, n = 0"),
            (None, "–"),
            (NAN, "not defined"),
            (0.0005, "0.0005"),
            (0.0432, "0.043"),
            (-0.0, "0.00"),
            (1543, "1,543"),
            (-3, "−3"),
            ("  indented", "indented"),
        ],
    )
    def test_cell(self, cell, text):
        assert cell_text(cell) == text


class TestCSV:
    def rows(self, table):
        return list(csv.reader(io.StringIO(table_as_csv(table))))

    def test_estimates_become_four_columns_in_full_precision(self):
        rows = self.rows(table(columns=("Method", "AUC", "Note"), rows=(("map", AUC, "x"), ("  reader", 0.5, None))))
        assert rows[0] == ["Method", "AUC", "AUC low", "AUC high", "AUC n", "Note"]
        assert rows[1] == ["map", "0.742", "0.571", "0.849", "50", "x"]
        assert rows[2] == ["reader", "0.5", "", "", "", ""]

    def test_no_cell_runs_as_a_formula(self):
        for text in ("=cmd()", " =cmd()"):
            assert self.rows(table(rows=((text, -1.5),)))[1] == ["'=cmd()", "-1.5"]


class TestPage:
    def test_digital_patients_are_named_first(self, tmp_path):
        html = page_of(tmp_path, table())
        assert DIGITAL in html
        assert html.index(DIGITAL) < html.index("<table")
        assert "no result here shows how the method performs in patients" in html
        assert DIGITAL not in page_of(tmp_path, table(), digital=False)

    def test_nothing_is_loaded_and_every_link_leads_somewhere(self, tmp_path):
        html = page_of(tmp_path, table(), figures=[figure()], text=["See [[one]] and [[drawn]]."], facts={"Data": "x"})
        parsed = checked(html)
        assert parsed.sources
        assert all(source.startswith("data:image/svg+xml;base64,") for source in parsed.sources)
        assert all(link.startswith("#") and link[1:] in parsed.ids for link in parsed.links)
        assert not re.search(r"@import|url\(|<script|<link", html)

    def test_everything_is_escaped(self, tmp_path):
        bad = "<script>x</script>&\"'"
        html = page_of(
            tmp_path,
            table(columns=(bad, "b"), rows=((bad, bad),), note=bad, title=bad),
            figures=[Figure("drawn", bad, figure().draw, bad)],
            text=[bad],
            facts={bad: bad},
            title=bad,
        )
        checked(html)
        assert "<script" not in html

    def test_only_files_of_the_earlier_study_are_removed(self, tmp_path):
        page_of(tmp_path, table("one"), table("two"), figures=[figure()])
        (tmp_path / "tables" / "mine.csv").write_text("of the user", encoding="utf-8")
        page_of(tmp_path, table("two"))
        files = sorted(p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*.*"))
        assert files == ["study.html", "study.json", "tables/mine.csv", "tables/two.csv"]


class TestIndex:
    def test_it_lists_what_the_page_shows_in_its_order(self, tmp_path):
        texts = ["See [[two]] and [[drawn]] < here."]
        tables = (table(), table("two", note="As [[one]].", title="Is it so?"))
        page_of(tmp_path, *tables, figures=[figure()], text=texts, facts={"Data": "x"}, title="A “study”")
        index = json.loads((tmp_path / "study.json").read_text(encoding="utf-8"))
        assert index["schema"] == "cac-study/1"
        assert (index["title"], index["digital"]) == ("A “study”", True)
        assert index["facts"] == {"Date": datetime.date.today().isoformat(), "Data": "x"}
        (section,) = index["sections"]
        assert section == {
            "name": "results",
            "title": "Results",
            "text": ["See Table 2 and Figure 1 < here."],
            "tables": ["tables/one.csv", "tables/two.csv"],
            "figures": ["figures/drawn.png"],
        }
        assert all((tmp_path / file).is_file() for file in (*section["tables"], *section["figures"]))
        assert index["captions"]["tables/two.csv"] == "Table 2. Is it so? As Table 1."

    def test_it_is_only_there_when_all_it_lists_is(self, tmp_path, monkeypatch):
        page_of(tmp_path, table())
        monkeypatch.setattr(study_page, "write_bytes_atomically", lambda *_: pytest.fail("the disk is full"))
        with pytest.raises(pytest.fail.Exception):
            page_of(tmp_path, table("other"))
        assert not (tmp_path / "study.json").exists()


def test_pictures_lead_to_each_other(tmp_path):
    pictures = tuple(
        PicturePart(b"\xff\xd8", f"number {n} <b>", "scans/a/report.html" if n else None) for n in range(3)
    )
    section = Section("seen", "Seen", galleries=(Gallery("missed", "Missed", pictures, "of 9"),))
    path = write_study(tmp_path, "A study", [section], {})
    assert path == tmp_path / "study.html"
    page = checked(path.read_text(encoding="utf-8"))
    anchors = [f"missed-{n}" for n in (1, 2, 3)]
    assert [anchor for anchor in page.ids if anchor in anchors] == anchors
    ways = [link for link in page.links if link.startswith("#missed")]
    assert ways == ["#missed-3", "#missed-2", "#missed-1", "#missed-3", "#missed-2", "#missed-1"]
    assert page.links.count("scans/a/report.html") == 2
    assert "number 0 &lt;b&gt;" in path.read_text(encoding="utf-8")


def test_long_tables_of_all_sections_lie_beside_the_page(tmp_path):
    about = {"patient": "=p", "scan": "s", "item": 0, "method": "map"}
    scans = long_table([{**about, "truth": NAN, "value": 1 / 3, "visible": True}], ("visible",))
    slices = long_table([{**about, "truth": 1.0, "value": 0.5, "fold": 2}], ("fold",))
    sections = [Section("scans", "Scans", values=(scans,)), Section("slices", "Slices", values=(slices,))]
    page = write_study(tmp_path, "A study", sections, {})
    assert "<code>values.csv</code>" in page.read_text(encoding="utf-8")
    stored = pd.read_csv(tmp_path / "values.csv")
    assert list(stored.columns) == ["section", *scans.columns, "fold"]
    assert stored.section.tolist() == ["scans", "slices"]
    assert stored.patient.tolist() == ["'=p", "'=p"], "no spreadsheet runs it as a formula"
    assert stored.value.tolist() == [1 / 3, 0.5]
    assert stored.isna().to_numpy().sum() == 3
    write_study(tmp_path, "A study", [Section("text", "Text")], {})
    assert not (tmp_path / "values.csv").exists()
