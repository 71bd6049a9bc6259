"""Scores against true mass, on records whose figures are known by hand."""

import numpy as np
import pytest
from study_samples import record
from study_tables import cells, tables_of

from CACTrainingLib.evaluation.parts import METHODS
from CACTrainingLib.studies import accuracy
from CACTrainingLib.studies.records import Truth
from CACTrainingLib.studies.sample import Sample

MAP = METHODS["map"]


def scan(name, true, values, distractors=(), **more):
    return record(name, 1, true > 0, values, truth=Truth(float(true), {"LAD": float(true)}, distractors), **more)


def tables(records):
    return tables_of(accuracy.sections(Sample(records, np.random.default_rng(0))))


def row(table, title, after=None):
    return [*cells(table, title, after).values()]


def test_rank_correlation_is_of_order_alone_and_spoiled_by_other_calcium():
    """The map is a monotone curve of the truth; the automatic method is that but for scans with aortic calcium."""
    records = []
    for n in range(24):
        distractors = ("aortic wall",) if n % 2 else ()
        wrong = 1000.0 - 2 * n if distractors else 0.0
        records.append(scan(f"p{n}", n, {"map": n**2, "automatic": n + wrong}, distractors))
    results = tables(records)
    correlations = row(results["rank_correlation"], MAP)[1:]
    assert [cell.value for cell in correlations] == pytest.approx([1, 1, 1, 1])
    assert [cell.n for cell in correlations] == [24, 23, 12, 12]
    automatic = row(results["rank_correlation"], METHODS["automatic"])
    assert automatic[4].value == pytest.approx(1)
    assert automatic[1].value < 0.6
    assert automatic[3].value < -0.9
    difference = row(results["rank_differences"], METHODS["automatic"], after="All scans")
    assert difference[4].value == pytest.approx(difference[2] - difference[3])
    assert difference[4].low > 0
    assert difference[5] == "< 0.001"


def test_bias_of_half_of_the_mass_and_one_more():
    records = [scan(f"p{n}", n, {"map": 0.5 * n + 1}) for n in range(1, 21)]
    ratio, error, slope, intercept, correlation = row(tables(records)["mass_errors"], MAP)[1:]
    assert ratio.value == pytest.approx((0.5 * 210 + 20) / 210)
    assert error.value == pytest.approx(1 - 0.5 * 10.5)
    assert (slope.value, intercept.value, correlation.value) == pytest.approx((0.5, 1, 1))


def test_mass_where_there_is_no_coronary_calcium():
    records = [scan(f"d{n}", 0, {"map": 2.0 * (n % 2)}, ("valve",)) for n in range(6)]
    records += [scan(f"c{n}", 0, {"map": 0.0}) for n in range(6)]
    assert [(c.value, c.n) for c in row(tables(records)["wrong_mass"], MAP)[1:]] == [(1, 6), (0, 6)]
