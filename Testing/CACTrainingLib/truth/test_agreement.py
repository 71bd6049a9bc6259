"""The sections on accuracy of scans made by hand, whose agreement is known."""

import math

import numpy as np
import pytest
from compared_scans import TOTALS, compared_scan
from sklearn.metrics import cohen_kappa_score
from study_tables import csv_lines, tables_of

from CACScoringLib.core.categories import category_numbers
from CACScoringLib.statistics.bootstrap import Estimate
from CACTrainingLib.evaluation.page import write_study
from CACTrainingLib.references.collection import OWN_TABLE, collections
from CACTrainingLib.references.reference import VESSELS
from CACTrainingLib.truth import agreement, scan_sections
from CACTrainingLib.truth.accuracy import FIGURES, write_figures
from CACTrainingLib.truth.agreement import Raters, main_section
from CACTrainingLib.truth.records import ComparedScans, LesionRow


def hand_made_scans(count=80, seed=0, **more):
    """Make scans with a map of 1.2 times the reference plus noise, and 50 too much in every third 130 HU score."""
    g = np.random.default_rng(seed)
    scans = []
    for n in range(count):
        total = 0.0 if n % 2 else float(g.lognormal(4.5, 1.4))
        vessels = {"LM": 0.0, "LAD": 0.5 * total, "LCX": 0.2 * total, "RCA": 0.3 * total}
        scale = {"map": 1.2 * float(g.lognormal(0, 0.1)), "automatic": 1.0}
        wrong = 50.0 * (n % 3 == 0)
        measured = {"map": scale["map"] * total, "automatic": total + wrong}
        by_vessel = {m: {v: scale[m] * score for v, score in vessels.items()} for m in measured}
        by_vessel["automatic"]["LAD"] += wrong
        named = {"automatic": "LAD" if n % 4 else "LCX", "map": "LAD" if total > 30 else None}
        lesions = [
            LesionRow(method, 0, True, "LAD", True, artery is not None, artery, total, total)
            for method, artery in named.items()
            if total
        ]
        lesions += [
            LesionRow(method, 0, False, artery, True, True, artery, total, total)
            for method, artery in named.items()
            if total and artery
        ]
        if wrong:
            about = (False, True, "LAD", wrong, wrong, "thoracic_aorta")
            lesions.append(LesionRow("automatic", 1, False, "LAD", *about))
        fields = {"total": total, "vessels": vessels, "measured": measured, "arteries": by_vessel}
        fields |= {"lesions": tuple(lesions), "has_outlines": True, "seconds": float(n)}
        scans.append(compared_scan(n, 0.0, **(fields | more)))
    return ComparedScans(scans, np.random.default_rng(1), VESSELS)


@pytest.fixture(scope="module")
def compared():
    return hand_made_scans()


def row(sections, name, title, index=0):
    table = tables_of(sections)[name]
    lines = [line for line in table.rows if str(line[0]).strip() == title]
    return dict(zip(table.columns, lines[index], strict=True))


def scores(compared, method):
    """Scores of the reference and of a method, float [scans, 2]."""
    return compared.totals.query("method == @method")[["truth", "value"]].to_numpy()


def test_totals_are_those_of_the_libraries(compared):
    sections = agreement.sections(compared)
    for title, method in (("Calcium map", "map"), ("130 HU, automatic", "automatic")):
        cells = row(sections, "totals", title)
        pairs = scores(compared, method)
        assert cells["ICC"].low < cells["ICC"].value < cells["ICC"].high
        differences = np.diff(pairs)[:, 0]
        assert cells["Mean difference"].value == pytest.approx(differences.mean())
        assert cells["Upper limit"].value == pytest.approx(differences.mean() + 1.96 * differences.std(ddof=1))
        assert cells["Slope"].value == pytest.approx(np.polyfit(*pairs.T, 1)[0], rel=1e-6)
        classes = category_numbers(pairs).reshape(-1, 2)
        assert cells["κ of categories"].value == pytest.approx(cohen_kappa_score(*classes.T, weights="linear"))


def test_the_map_is_compared_with_the_rule(compared):
    sections = agreement.sections(compared)
    assert compared.methods == ("automatic", "map"), "first what clinics use"
    line = row(sections, "method_differences", "F1 at ≥ 1")
    assert line["Calcium map"].value == 1.0
    assert line["Difference"].value == pytest.approx(line["130 HU, automatic"].value - 1)
    assert line["Difference"].high < 0
    lad = row(sections, "vessels", "130 HU, automatic", 1)
    assert lad["Sensitivity"].value == 1
    assert lad["Specificity"].value < 1
    assert row(sections, "vessels", "Calcium map", 1)["Specificity"].value == 1
    assert row(sections, "vessels", "Calcium map", 0)["Sensitivity"] is None, "no scan has calcium in the left main"


def test_figures_mark_scans_with_a_severe_warning():
    scans = [compared_scan(n, 10.0, severe=("heart-cut",) if n == 3 else ()) for n in range(6)]
    compared = ComparedScans(scans, np.random.default_rng(0), {})
    assert compared.severe == ("s3",)
    figures = agreement.sections(compared)[0].figures
    assert all(figure.draw.keywords["severe"] == ("s3",) and "(1 of 6)" in figure.note for figure in figures)


def test_lesions_are_counted(compared, tmp_path):
    sections = scan_sections.lesion_sections(compared, tmp_path, {})
    recall = row(sections, "lesions_found", "All")
    totals = scores(compared, "automatic")[:, 0]
    outlined = totals[totals > 0]
    assert recall["Calcium map"].value == pytest.approx((outlined > 30).mean())
    named = row(sections, "lesions_found", "Artery named as the reference does, of those found")
    assert named["130 HU, automatic"].value == pytest.approx(0.5, abs=0.03)
    wrong = row(sections, "lesions_wrong", "Wrong lesions per scan")
    assert (wrong["Calcium map"].value, wrong["130 HU, automatic"].value) == (0, pytest.approx(27 / 80))
    assert row(sections, "lesions_wrong", "thoracic aorta")["130 HU, automatic"] == 27


def test_a_page_of_few_scans_without_outlines(tmp_path, monkeypatch):
    monkeypatch.setattr("CACTrainingLib.evaluation.page.rendered", lambda figure: {"png": b"", "svg": b"<svg/>"})
    compared = hand_made_scans(3, lesions=(), has_outlines=False, vessels={})
    sections = (*agreement.sections(compared), *scan_sections.lesion_sections(compared, tmp_path, {}))
    assert [section.name for section in sections] == ["totals", "category_agreement", "detection_by_score", "scans"]
    icc = row(sections, "totals", "Calcium map")["ICC"]
    assert isinstance(icc, Estimate)
    assert math.isnan(icc.low)
    assert write_study(tmp_path, "A study", sections, {}, False).is_file()


DEEPCAC = collections()["nlst"].tables[0]


def figures(measured, comparator_scores, layout=DEEPCAC):
    """Main figures by measure and column of scans with TOTALS."""
    scans = [compared_scan(n, value) for n, value in enumerate(measured)]
    compared = ComparedScans(scans, np.random.default_rng(0), {})
    page = main_section(Raters(compared, comparator_scores, layout, np.random.default_rng(0)), layout)
    rows = [(table.columns, row) for table in page.tables[:2] for row in table.rows]
    return page, {(row[0], title): cell for columns, row in rows for title, cell in zip(columns, row, strict=True)}


def test_a_perfect_method_beside_a_program_that_misses_all():
    page, cells = figures(TOTALS, {f"s{n}": 0.0 for n in range(len(TOTALS))})
    κ = "κ of categories, linear weights"
    assert (cells[κ, "Calcium map"].value, cells[κ, "DeepCAC"].value) == (1, 0)
    difference = cells[κ, "Calcium map − DeepCAC"]
    assert (difference.value, difference.n) == (1, len(TOTALS))
    assert (cells["False zeros", "DeepCAC"].value, cells["False zeros", "Calcium map"].value) == (1, 0)
    assert cells["False positives", "DeepCAC"].value == 0
    assert cells["Mean difference", "DeepCAC"].value == pytest.approx(-np.mean(TOTALS))
    assert "Calcium map − DeepCAC, κ of categories: 1.00 [1.00, 1.00], n = 30." in page.text
    assert cells["ICC of ln(1 + score)", "Calcium map"].value == pytest.approx(1)


def test_differences_are_of_the_same_scans():
    half = {f"s{n}": TOTALS[n] for n in range(0, len(TOTALS), 2)}
    _, cells = figures(TOTALS, half)
    assert {cell.n for (title, column), cell in cells.items() if title == "ICC" and column != "Measure"} == {15}


def test_classes_of_the_authors_include_their_upper_ends():
    measure = "Same class by its authors' limits 0, 100, 300"
    ends = {0.0: 0.0, 20.0: 100.0, 150.0: 300.0, 300.0: 101.0, 500.0: 300.5, 30.0: 0.4, 50.0: 100.0, 900.0: 301.0}
    _, cells = figures(TOTALS, {f"s{n}": ends[total] for n, total in enumerate(TOTALS)})
    assert cells[measure, "DeepCAC"].value == 1
    _, cells = figures(TOTALS, {f"s{n}": total + 300.5 for n, total in enumerate(TOTALS)})
    assert cells[measure, "DeepCAC"].value == pytest.approx(sum(total > 300 for total in TOTALS) / len(TOTALS))


def test_without_another_program_there_is_no_difference():
    page, cells = figures(TOTALS, {}, OWN_TABLE)
    assert (page.tables[0].columns, len(page.tables)) == (("Measure", "130 HU, automatic", "Calcium map"), 2)
    assert page.text == ()
    assert cells["ICC", "Calcium map"].n == len(TOTALS)


def test_the_table_to_hand_on(tmp_path):
    page, _ = figures([total + 40 for total in TOTALS], {f"s{n}": total + 400 for n, total in enumerate(TOTALS)})
    write_figures(tmp_path, page.tables[:2], "30 of 32 scans of the reference")
    heading, *lines = csv_lines(tmp_path / FIGURES)
    assert len(lines) == sum(len(table.rows) for table in page.tables[:2])
    difference = dict(zip(heading, next(line for line in lines if line[0] == "Mean difference"), strict=True))
    assert (difference["DeepCAC"], difference["data"]) == ("400 [400, 400]", "30 of 32 scans of the reference")
