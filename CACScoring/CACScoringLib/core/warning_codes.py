"""Warnings: what their codes mean, and the checks of checks.csv that make them.

A row of checks.csv with a fact is a check: outside its range it makes a warning. A row without a fact is a code whose
warning is made in code. Severity stands in each row, advice in the first row of a code.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from .files import resource_rows
from .text import abbreviated_list

SEVERE: set[str] = set()
"""Codes of severe warnings: the scores may be meaningless, so the warning is shown above them."""

ADVICE: dict[str, str] = {}
"""Advice to the reader of a warning, by code."""

OPTIONS: dict[str, str] = {}
"""Options of the command line that follow the advice, by code; the terminal shows them after the warning."""

ADVICE_AFTER_REVIEW: dict[str, str] = {}
"""Advice on warnings of automatic scores after a reader confirmed the score, by code; none is severe then."""


@dataclass(frozen=True)
class ScanWarning:
    """A doubt about a result, which every export repeats.

    Attributes:
        code: Stable name for programs, such as "not-120-kvp"; the reference of warnings lists all.
        message: One sentence for a reader.
        severe: True if the scores may be meaningless; severe warnings are shown above the scores.
    """

    code: str
    message: str
    severe: bool | None = None

    def __post_init__(self) -> None:
        if self.severe is None:
            object.__setattr__(self, "severe", self.code in SEVERE)


@dataclass(frozen=True)
class Check:
    """Check of one fact: a row of checks.csv.

    Attributes:
        code: Code of its warning.
        is_severe: True if its warning is severe.
        fact: Name of the fact.
        low: Least value without a warning.
        high: Largest value without a warning.
        after: Codes of earlier checks that explain this one's finding, so that it is left out after them.
        message: Message of the warning, with names of facts in braces.
    """

    code: str
    is_severe: bool
    fact: str
    low: float
    high: float
    after: tuple[str, ...]
    message: str


_CHECKS: dict[str, tuple[Check, ...]] = {}


def declare(rows: Iterable[Mapping[str, str]]) -> None:
    """Add the rows of a library's checks.csv."""
    rows = list(rows)
    for row in rows:
        code = row["code"]
        for column, texts in (("advice", ADVICE), ("option", OPTIONS), ("after_review", ADVICE_AFTER_REVIEW)):
            if row[column]:
                texts[code] = row[column]
        if row["severe"]:
            SEVERE.add(code)
    for when in {row["when"] for row in rows if row["when"]}:
        _CHECKS[when] = tuple(_check(row) for row in rows if row["when"] == when)


def _check(row: Mapping[str, str]) -> Check:
    return Check(
        row["code"],
        bool(row["severe"]),
        row["fact"],
        float(row["low"] or "-inf"),
        float(row["high"] or "inf"),
        tuple(row["after"].split()),
        row["message"],
    )


declare(resource_rows("checks.csv"))


def checks_at(when: str) -> tuple[Check, ...]:
    """Return the checks of one step of the run, in their order."""
    return _CHECKS[when]


def run_checks(when: str, **facts: Any) -> list[ScanWarning]:
    """Compare facts with the limits of the checks of one step.

    Args:
        when: Step of the run: the column of checks.csv.
        facts: Numbers by name, and what messages need beside them. A text or a list counts by its length, and a message
            shows a list abbreviated; None and NaN are unknown and give no warning. A function gives its fact when its
            check comes to it.

    Returns:
        The warnings, in the order of the checks.
    """
    warnings: list[ScanWarning] = []
    for check in checks_at(when):
        if any(warning.code in check.after for warning in warnings):
            continue
        fact = facts[check.fact]
        if callable(fact):
            fact = facts[check.fact] = fact()
        value = len(fact) if isinstance(fact, str | list) else fact
        if value is not None and not math.isnan(value) and not check.low <= value <= check.high:
            texts = {name: abbreviated_list(x) if isinstance(x, list) else x for name, x in facts.items()}
            message = check.message.format(value=value, low=check.low, high=check.high, **texts)
            warnings.append(ScanWarning(check.code, message, check.is_severe))
    return warnings
