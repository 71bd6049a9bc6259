"""Classes of clinical scores.

Classes are published for integers: scores are rounded (halves up), but a score above zero never counts as zero.
"""

from __future__ import annotations

import math
import re
from pathlib import Path

from ..core.errors import CTError
from ..core.labels import MAIN_ARTERIES
from ..record.findings import Categories, Percentile
from ..record.scores import MethodScore

ROUNDING = "Scores are rounded to the nearest integer for classes; a score above 0 counts as at least 1."

_CLASSES = ((0, "0"), (10, "1–10"), (100, "11–100"), (400, "101–400"))
RISK_CLASSES = (*(name for _, name in _CLASSES), "> 400")
_CAC_DRS = ((0, "A0"), (99, "A1"), (299, "A2"))


def categories_of(clinical: MethodScore, percentile: Percentile | None = None) -> Categories | None:
    """Return the published classes of a clinical score.

    Returns:
        The classes; None for unevaluated candidates, scores by other rules, and where they are withheld.
    """
    if clinical.status == "candidates" or clinical.withheld or not clinical.rules.is_clinical:
        return None
    agatston = clinical.total.agatston
    vessels = sum(clinical.arteries[artery].agatston > 0 for artery in MAIN_ARTERIES)
    return Categories(
        "threshold",
        clinical.status,
        risk_class(agatston),
        cac_drs(agatston, vessels),
        arterial_age_years(agatston),
        percentile,
        clinical.category_probabilities,
        clinical.probabilities_withheld,
        ROUNDING,
    )


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


def percentile_of(
    clinical: MethodScore, table: Path | None, sex: str | None, age_years: int | None
) -> Percentile | None:
    """Look a reviewed score up in a table of percentiles (`percentile_from_table`); None without one, and of others.

    Raises CTError also if sex or age is unknown.
    """
    if table is None or not clinical.reviewed:
        return None
    if sex is None or age_years is None:
        raise CTError(
            "Percentiles need sex and age_years as the scan's header does not state them: add --settings "
            """'{"scoring": {"sex": "F", "age_years": 60}}'."""
        )
    return percentile_from_table(clinical.total.agatston, sex, age_years, table)


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
    from ..core.errors import TableError
    from ..core.tables import read_table

    _check_score(agatston)
    read = read_table(table, ("sex", "age_from", "age_to"))
    percents = {name: float(name[1:]) for name in read.columns if re.fullmatch(r"p\d+(\.\d+)?", name)}
    names = sorted((name for name, percent in percents.items() if 0 < percent < 100), key=percents.__getitem__)
    if not names:
        raise TableError(f"The table {table} has no column of a percentile. Name them p25, p50, …")
    matches = []
    for line in read.lines:
        line.need("sex")
        if line.text("sex").upper() == sex.upper():
            line.need("age_from", "age_to", *names)
            first, last, *limits = (line.number_in(name) or 0.0 for name in ("age_from", "age_to", *names))
            if first <= age_years <= last:
                matches.append(limits)
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
    ends = [None, *(percents[name] for name in names), None]
    return Percentile(ends[reached], ends[reached + 1], table.name)


def _check_score(agatston: float) -> None:
    if not (agatston >= 0 and math.isfinite(agatston)):
        raise ValueError(f"an Agatston score is a number from 0 up, not {agatston}")
