"""Categories at every boundary, and percentiles from good and broken tables."""

import math

import pytest

from CACScoringLib.core.errors import CTError
from CACScoringLib.scoring.scores import arterial_age_years, cac_drs, percentile_from_table, risk_class


@pytest.mark.parametrize(
    ("agatston", "expected"),
    [(0, "0"), (0.01, "1–10"), (10.49, "1–10"), (10.5, "11–100"), (100.5, "101–400"), (400.5, "> 400")],
)
def test_risk_class(agatston, expected):
    assert risk_class(agatston) == expected


@pytest.mark.parametrize(
    ("agatston", "vessels", "expected"),
    [
        (0, 0, "A0"),
        (0.2, 1, "A1/N1"),
        (99.49, 2, "A1/N2"),
        (99.5, 2, "A2/N2"),
        (299.49, 3, "A2/N3"),
        (299.5, 3, "A3/N3"),
        (50, 0, "A1/N0"),  # calcium in another coronary artery only
    ],
)
def test_cac_drs(agatston, vessels, expected):
    assert cac_drs(agatston, vessels) == expected


@pytest.mark.parametrize(("agatston", "vessels"), [(100, 5), (0, 1), (-1, 0), (math.nan, 1)])
def test_impossible_cac_drs_is_refused(agatston, vessels):
    with pytest.raises(ValueError, match="score"):
        cac_drs(agatston, vessels)


@pytest.mark.parametrize(("agatston", "years"), [(0, 39.1), (math.e - 1, 46.35), (99, 72.4875)])  # ln 100 = 4.605170
def test_arterial_age(agatston, years):
    assert arterial_age_years(agatston) == pytest.approx(years, abs=1e-4)


# --- percentiles

GOOD = "sex,age_from,age_to,p25,p50,p75,p90\nF,45,54,0,0,5,60\nF,55,64,0,2,40.5,200\nM,45,54,1,8,70,300\n"


def write(tmp_path, text, encoding="utf-8"):
    path = tmp_path / "table.csv"
    path.write_text(text, encoding=encoding)
    return path


@pytest.mark.parametrize(
    ("agatston", "at_least", "below"),
    [(0.99, None, 25), (1, 25, 50), (8, 50, 75), (300, 90, None)],
)
def test_a_percentile_begins_at_its_score(tmp_path, agatston, at_least, below):
    percentile = percentile_from_table(agatston, "M", 50, write(tmp_path, GOOD))
    assert (percentile.at_least, percentile.below) == (at_least, below)


@pytest.mark.parametrize(("age", "below"), [(45, 75), (54, 75), (55, 50), (64, 50)])
def test_both_ages_of_a_row_are_included(tmp_path, age, below):
    assert percentile_from_table(1, "f", age, write(tmp_path, GOOD)).below == below


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (GOOD.replace("sex", "gender"), "no column sex"),
        ("sex,age_from,age_to\nM,45,54\n", "no column of a percentile.*p50"),
        (GOOD.replace("1,8,70", "1,,70"), "no p50 in line 4"),
        (GOOD.replace("M,45,54", "M,45,old"), "age_to in line 4 .*old"),
        (GOOD + "M,50,60,0,1,2,3\n", "2 rows for sex M, age 50"),
        (GOOD.replace("M,", "X,"), "0 rows for sex M, age 50"),
        (GOOD.replace("1,8,70", "1,80,70"), "do not increase"),
    ],
)
def test_errors_of_a_broken_table_name_the_table(tmp_path, text, message):
    with pytest.raises(CTError, match=message) as raised:
        percentile_from_table(7, "M", 50, write(tmp_path, text))
    assert "table.csv" in str(raised.value)
