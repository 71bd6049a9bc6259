"""Categories from numbers: risk classes, CAC-DRS, arterial age, percentiles from a user's table.

Classes are published for integers while scores are real numbers. Here a score is rounded to the nearest integer
(halves up), but a score above zero never counts as zero.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from ..core.ct import CTError
from ..core.tables import Line, TableError, read_table

ROUNDING = "Scores are rounded to the nearest integer for classes; a score above 0 counts as at least 1."

_CLASSES = ((0, "0"), (10, "1–10"), (100, "11–100"), (400, "101–400"))
RISK_CLASSES = (*(name for _, name in _CLASSES), "> 400")
_CAC_DRS = ((0, "A0"), (99, "A1"), (299, "A2"))


def whole_score(agatston: float) -> int:
    """The integer a class is read from (see the module's docstring). Raises ValueError for a negative score."""
    _check_score(agatston)
    return 0 if agatston == 0 else max(1, math.floor(agatston + 0.5))


def risk_class(agatston: float) -> str:
    """0, 1–10, 11–100, 101–400 or > 400."""
    return RISK_CLASSES[class_number(agatston)]


def class_number(agatston: float) -> int:
    """Place of a score's class among RISK_CLASSES, from 0. Raises ValueError for a negative score."""
    score = whole_score(agatston)
    return next((number for number, (highest, _) in enumerate(_CLASSES) if score <= highest), len(_CLASSES))


def cac_drs(agatston: float, vessels: int) -> str:
    """CAC-DRS for Agatston scores, as "A2/N3". vessels: how many of LM, LAD, LCX and RCA hold calcium.

    A0 0, A1 1–99, A2 100–299, A3 ≥ 300 (Hecht 2018, secondary source). Raises ValueError for impossible counts.
    """
    if not 0 <= vessels <= 4 or (vessels > 0 and agatston == 0):
        raise ValueError(f"{vessels} vessels with calcium do not fit a score of {agatston:g}")
    score = whole_score(agatston)
    level = next((name for highest, name in _CAC_DRS if score <= highest), "A3")
    return level if level == "A0" else f"{level}/N{vessels}"


def arterial_age_years(agatston: float) -> float:
    """39.1 + 7.25 ln(score + 1), McClelland 2009, doi:10.1016/j.amjcard.2008.08.031 (secondary source).

    Raises ValueError for a negative score.
    """
    _check_score(agatston)
    return 39.1 + 7.25 * math.log(agatston + 1)


@dataclass(frozen=True)
class Percentile:
    """Between which percentiles of a reference population a score lies; None where it is outside the table."""

    at_least: float | None
    below: float | None
    table: str

    def __str__(self) -> str:
        if self.at_least is None:
            return f"below percentile {self.below:g}"
        if self.below is None:
            return f"at or above percentile {self.at_least:g}"
        return f"from percentile {self.at_least:g} to below percentile {self.below:g}"


def percentile_from_table(agatston: float, sex: str, age_years: int, table: Path) -> Percentile:
    """Look a score up in the user's own table of percentiles by sex and age.

    Args:
        agatston: The Agatston score.
        sex: "F" or "M".
        age_years: Age in years.
        table: CSV with the columns sex (F or M), age_from, age_to (years, both included) and one column per percentile
            named p25, p50, …, holding the lowest Agatston score of that percentile.

    Raises:
        CTError: If the table cannot be read or has no single row for this person.
        ValueError: For a negative score.
    """
    _check_score(agatston)
    read = read_table(table, ("sex", "age_from", "age_to"))
    names = sorted((n for n in read.columns if n[:1] == "p" and _is_percent(n[1:])), key=lambda n: float(n[1:]))
    if not names:
        raise TableError(f"The table {table} has no column of a percentile. Name them p25, p50, …")
    matches = []
    for line in read.lines:
        line.need("sex")
        if line.text("sex").upper() != sex.upper():
            continue
        line.need("age_from", "age_to", *names)
        if _number(line, "age_from") <= age_years <= _number(line, "age_to"):
            matches.append([_number(line, name) for name in names])
    if len(matches) != 1:
        raise CTError(
            f"The percentile table {table.name} has {len(matches)} rows for sex {sex}, age {age_years}; exactly one "
            "is needed."
        )
    limits = matches[0]
    if limits != sorted(limits):
        raise CTError(
            f"The percentiles of {table.name} for sex {sex}, age {age_years} do not increase. Correct the row."
        )
    reached = sum(agatston >= limit for limit in limits)
    percent = [float(name[1:]) for name in names]
    return Percentile(
        percent[reached - 1] if reached else None, percent[reached] if reached < len(percent) else None, table.name
    )


def _number(line: Line, column: str) -> float:
    line.need(column)
    number = line.number_in(column)
    assert number is not None
    return number


def _check_score(agatston: float) -> None:
    if not (agatston >= 0 and math.isfinite(agatston)):
        raise ValueError(f"an Agatston score is a number from 0 up, not {agatston}")


def _is_percent(text: str) -> bool:
    try:
        return 0 < float(text) < 100
    except ValueError:
        return False
