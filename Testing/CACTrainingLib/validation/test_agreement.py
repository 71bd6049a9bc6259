"""The sections of a validation on scans made by hand, whose agreement is known."""

import math
from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score
from study_tables import tables_of

from CACTrainingLib.evaluation.page import write_study
from CACTrainingLib.references.reference import VESSELS
from CACTrainingLib.statistics.bootstrap import Estimate
from CACTrainingLib.validation import agreement, lesions
from CACTrainingLib.validation.agreement import ComparedScans, categories
from CACTrainingLib.validation.comparison import ComparedScan, OutlinedLesion, WrongLesion


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
        is_found = {"map": total > 30, "automatic": True}
        named = {"automatic": "LAD" if n % 4 else "LCX", **({"map": "LAD"} if is_found["map"] else {})}
        outlined = (OutlinedLesion("LAD", total, total / 2, is_found, named, {}),) if total else ()
        extra = (WrongLesion("automatic", "LAD", wrong, "thoracic_aorta", None),) if wrong else ()
        counts = {"map": int(total > 30), "automatic": len(outlined) + len(extra)}
        scan = ComparedScan(
            *(f"s{n}", f"p{n}", f"s{n}", total, vessels, measured, by_vessel, outlined, extra, counts),
            seconds=float(n),
            models=(),
            warnings=(),
        )
        scans.append(replace(scan, **more))
    return ComparedScans(scans, np.random.default_rng(1), VESSELS)


@pytest.fixture(scope="module")
def compared():
    return hand_made_scans()


def row(sections, name, title, index=0):
    table = tables_of(sections)[name]
    lines = [line for line in table.rows if str(line[0]).strip() == title]
    return dict(zip(table.columns, lines[index], strict=True))


def icc_by_anova(pairs):
    """ICC(2,1) of Shrout and Fleiss 1979 from the mean squares."""
    n, k = pairs.shape
    rows = k * pairs.mean(1).var(ddof=1)
    columns = n * pairs.mean(0).var(ddof=1)
    residual = (pairs.var() * n * k - rows * (n - 1) - columns * (k - 1)) / ((n - 1) * (k - 1))
    return (rows - residual) / (rows + (k - 1) * residual + k * (columns - residual) / n)


def scores(compared, method):
    """Scores of the reference and of a method, float [scans, 2]."""
    return compared.totals.query("method == @method")[["truth", "value"]].to_numpy()


def test_totals_are_those_of_the_libraries(compared):
    sections = agreement.sections(compared)
    for title, method in (("Calcium map", "map"), ("130 HU, automatic", "automatic")):
        cells = row(sections, "totals", title)
        pairs = scores(compared, method)
        assert cells["ICC"].value == pytest.approx(icc_by_anova(pairs))
        assert cells["ICC"].low < cells["ICC"].value < cells["ICC"].high
        differences = np.diff(pairs)[:, 0]
        assert cells["Mean difference"].value == pytest.approx(differences.mean())
        assert cells["Upper limit"].value == pytest.approx(differences.mean() + 1.96 * differences.std(ddof=1))
        assert cells["Slope"].value == pytest.approx(np.polyfit(*pairs.T, 1)[0], rel=1e-6)
        classes = categories(pairs).reshape(-1, 2)
        assert cells["κ of categories"].value == pytest.approx(cohen_kappa_score(*classes.T, weights="linear"))


def test_detection_counts_scans(compared):
    true, predicted = scores(compared, "automatic").T >= 0.5
    line = row(agreement.sections(compared), "detection", "130 HU, automatic")
    assert line["Sensitivity"].value == 1
    assert line["Specificity"].value == pytest.approx((~predicted & ~true).sum() / (~true).sum())
    assert line["Positive predictive value"].value == pytest.approx((predicted & true).sum() / predicted.sum())
    assert line["F1"].value == pytest.approx(2 * (predicted & true).sum() / (predicted.sum() + true.sum()))


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


def test_lesions_are_counted(compared, tmp_path):
    sections = lesions.sections(compared, tmp_path, "scans")
    recall = row(sections, "lesions_found", "All")
    totals = scores(compared, "automatic")[:, 0]
    outlined = totals[totals > 0]
    assert recall["Calcium map"].value == pytest.approx((outlined > 30).mean())
    named = row(sections, "lesions_found", "Artery named as the reference does, of those found")
    assert named["130 HU, automatic"].value == pytest.approx(0.5, abs=0.03)
    wrong = row(sections, "lesions_wrong", "Wrong lesions per scan")
    assert (wrong["Calcium map"].value, wrong["130 HU, automatic"].value) == (0, pytest.approx(27 / 80))
    assert row(sections, "lesions_wrong", "thoracic aorta")["130 HU, automatic"] == 27


def test_a_page_of_few_scans_without_outlines(tmp_path):
    compared = hand_made_scans(3, lesions=None, wrong=None, vessels={}, counts={})
    sections = (*agreement.sections(compared), *lesions.sections(compared, tmp_path, "scans"))
    assert [section.name for section in sections] == ["totals", "categories", "detection", "scans"]
    icc = row(sections, "totals", "Calcium map")["ICC"]
    assert isinstance(icc, Estimate)
    assert math.isnan(icc.low)
    assert write_study(tmp_path, "A validation", sections, {}, False, "validation.html").is_file()
