"""Dates in free texts, in any usual form, to remove them from what is written."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Iterator
from datetime import date

_MONTHS = {
    name: number
    for number, names in enumerate(
        (
            *("jan ene gen", "feb fev", "mar mrz maa", "apr avr abr", "may mai mag mei", "jun juin giu"),
            *("jul juil lug", "aug aou ago", "sep set", "oct okt ott out", "nov", "dec dez dic"),
        ),
        start=1,
    )
    for name in names.split()
}
"""Number of a month by the first letters of its name, without accents, in seven languages."""

_NAME = r"([^\W\d_]{3,10})"
_GAP = r"[\s.,/_-]*"
_YEAR = r"(\d{4}|\d\d)(?!\d)"
_DAY = r"(\d{1,2})(?:[a-z]{2})?(?!\d)"
_SEPARATOR = r"\s*([./,_\s-])\s*"
_FORMS = (
    (re.compile(rf"(?<!\d)(?=((\d{{1,4}}){_SEPARATOR}(\d{{1,2}})\s*\3\s*(\d{{1,4}})(?!\d)))"), (2, 4, 5)),
    (re.compile(r"(?<!\d)(?=((\d\d)(\d\d)(\d\d)(?!\d)))"), (2, 3, 4)),
    (re.compile(r"(?<!\d)(?=((\d\d)(\d\d)(\d{4})(?!\d)))"), (2, 3, 4)),
    (re.compile(r"(?<!\d)(?=((\d{4})(\d\d)(\d\d)(?!\d)))"), (2, 3, 4)),
    (
        re.compile(rf"(?<!\d)(?=({_DAY}{_GAP}(?:(?:of|de)\s+)?{_NAME}{_GAP}'?(?:(?:of|de)\s+)?{_YEAR}))", re.I),
        (2, 3, 4),
    ),
    (re.compile(rf"(?<![^\W\d_])(?=({_NAME}{_GAP}{_DAY}{_GAP}'?{_YEAR}))", re.I), (3, 2, 4)),
    (re.compile(rf"(?<!\d)(?=((\d{{4}}){_GAP}{_NAME}{_GAP}{_DAY}))", re.I), (2, 3, 4)),
)
"""Patterns of dates with the groups of their three parts; the first group is the whole date."""

_ORDERS = ("dmy", "mdy", "ymd", "ydm")
_YEARS = range(1900, 2100)
"""Years of patients and studies."""


def without_dates(text: str, dates: Collection[date] = (), every: bool = True) -> str:
    """Return a text in which dates are replaced by "scan".

    Args:
        text: The text.
        dates: Dates that are replaced in every form, that with a year of two digits included.
        every: Replace every other date with a year of four digits too.

    Examples:
        >>> without_dates("CaSc 3.0 *01.02.1950, 1 Feb 1950, Feb 1, 50", [date(1950, 2, 1)])
        'CaSc 3.0 *scan, scan, scan'
    """
    spans = sorted(_spans(text, frozenset(dates), every))
    parts, end = [], 0
    for start, stop in spans:
        if start >= end:
            parts += [text[end:start], "scan"]
        end = max(end, stop)
    return "".join([*parts, text[end:]])


def _spans(text: str, dates: frozenset[date], every: bool) -> Iterator[tuple[int, int]]:
    for pattern, groups in _FORMS:
        for match in pattern.finditer(text):
            parts = [match[number] for number in groups]
            readings = {reading for order in _ORDERS for reading in _read(parts, order)}
            full = {day for day, digits in readings if digits == 4}
            if dates & {day for day, _ in readings} or (every and full):
                yield match.span(1)


def _read(parts: list[str], order: str) -> Iterator[tuple[date, int]]:
    """Yield the dates that three parts mean in an order, with the number of the year's digits."""
    values = dict(zip(order, parts, strict=True))
    year, month, day = values["y"], _month(values["m"]), values["d"]
    if month is None or len(year) not in (2, 4) or not (year + day).isdecimal() or len(day) > 2:
        return
    years = [int(year)] if len(year) == 4 else [1900 + int(year), 2000 + int(year)]
    for number in years:
        if number in _YEARS:
            try:
                yield date(number, month, int(day)), len(year)
            except ValueError:
                continue


def _month(text: str) -> int | None:
    """Return the number of a month, given as digits or by its name; None for other words."""
    if text.isdecimal():
        return int(text) if len(text) <= 2 and 1 <= int(text) <= 12 else None
    plain = "".join(c for c in unicodedata.normalize("NFKD", text.casefold()) if not unicodedata.combining(c))
    return _MONTHS.get(plain[:4], _MONTHS.get(plain[:3]))
