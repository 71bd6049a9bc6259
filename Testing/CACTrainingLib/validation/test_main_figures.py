"""Main figures of a validation beside another program's on the same scans, and their files to hand on."""

import numpy as np
import pytest
from compared_scans import TOTALS, compared_scan
from study_tables import csv_lines

from CACTrainingLib.references.collection import OWN_TABLE, collections
from CACTrainingLib.statistics.agreement import kappa
from CACTrainingLib.validation.agreement import ComparedScans
from CACTrainingLib.validation.main_figures import Raters, section
from CACTrainingLib.validation.run import FIGURES, write_figures

DEEPCAC = collections()["nlst"].tables[0]


def figures(measured, comparator_scores, layout=DEEPCAC):
    """Main figures by measure and column of scans with TOTALS."""
    scans = [compared_scan(n, value) for n, value in enumerate(measured)]
    compared = ComparedScans(scans, np.random.default_rng(0), {})
    page = section(Raters(compared, comparator_scores, layout, np.random.default_rng(0)), layout)
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
    assert page.tables[0].columns == ("Measure", "130 HU, automatic", "Calcium map")
    assert len(page.tables) == 2
    assert page.text == ()
    assert cells["ICC", "Calcium map"].n == len(TOTALS)


def test_quadratic_kappa_is_that_of_scikit_learn():
    from sklearn.metrics import cohen_kappa_score

    first, second = np.random.default_rng(0).integers(0, 4, (2, 50))
    for power, name in ((1, "linear"), (2, "quadratic")):
        expected = cohen_kappa_score(first, second, weights=name)
        assert kappa(np.ones((1, 50)), first, second, 4, power)[0] == pytest.approx(expected)


def test_the_table_to_hand_on(tmp_path):
    page, _ = figures([total + 40 for total in TOTALS], {f"s{n}": total + 400 for n, total in enumerate(TOTALS)})
    write_figures(tmp_path, page.tables[:2], "30 of 32 scans of the reference")
    heading, *lines = csv_lines(tmp_path / FIGURES)
    assert len(lines) == sum(len(table.rows) for table in page.tables[:2])
    difference = dict(zip(heading, next(line for line in lines if line[0] == "Mean difference"), strict=True))
    assert difference["DeepCAC"] == "400 [400, 400]"
    assert difference["data"] == "30 of 32 scans of the reference"
