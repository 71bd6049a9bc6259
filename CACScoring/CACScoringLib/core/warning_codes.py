"""Warnings: their codes with severity and advice (warnings.csv), and the checks that make them (checks.csv).

A warning's message stands where the warning is made. `docs/reference/warnings.md` is built from both.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from .files import resource_rows

Subject = TypeVar("Subject")

_ROWS = {row["code"]: row for row in resource_rows("warnings.csv")}

SEVERE = frozenset(code for code, row in _ROWS.items() if row["severe"])
"""Codes of severe warnings: the scores may be meaningless, so the warning is shown above them."""


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
class Check(Generic[Subject]):
    """Check of one quantity of a scan: a row of checks.csv.

    Attributes:
        code: Code of its warning.
        measure: Quantity of the scan, or a mapping of it, as `value`, and of what the message needs; None if unknown.
        low: Least quantity without a warning.
        high: Largest quantity without a warning.
        after: Codes of earlier checks that explain this one's finding, so that it is left out after them.
        message: Message of the warning, with names of values in braces.
    """

    code: str
    measure: Callable[[Subject], Any]
    low: float
    high: float
    after: tuple[str, ...]
    message: str


def checks(table: str, **measures: Callable[[Subject], Any]) -> tuple[Check[Subject], ...]:
    """Return the checks of one table of checks.csv. measures: Functions by the name of their quantity."""
    rows = [row for row in resource_rows("checks.csv") if row["table"] == table]
    return tuple(
        Check(
            row["code"],
            measures[row["quantity"]],
            float(row["low"] or "-inf"),
            float(row["high"] or "inf"),
            tuple(row["after"].split()),
            row["message"],
        )
        for row in rows
    )


def warnings_of(checks: Iterable[Check[Subject]], subject: Subject) -> list[ScanWarning]:
    """Return the warnings of checks in their order."""
    warnings: list[ScanWarning] = []
    for check in checks:
        if any(warning.code in check.after for warning in warnings):
            continue
        result = check.measure(subject)
        values: Mapping[str, Any] = result if isinstance(result, Mapping) else {"value": result}
        if values["value"] is not None and not check.low <= values["value"] <= check.high:
            message = check.message.format(low=check.low, high=check.high, **values)
            warnings.append(ScanWarning(check.code, message, values.get("severe")))
    return warnings


ADVICE = {code: row["advice"] for code, row in _ROWS.items()}
"""Advice to the reader of a warning, by code."""

OPTIONS = {code: row["option"] for code, row in _ROWS.items() if row["option"]}
"""Options of the command line that follow the advice, by code; the terminal shows them after the warning."""

ADVICE_AFTER_REVIEW = {code: row["after_review"] for code, row in _ROWS.items() if row["after_review"]}
"""Advice on warnings of automatic scores after a reader confirmed the score, by code; none is severe then."""


def declare(advice: Mapping[str, str]) -> None:
    """Add the codes of another library with their advice."""
    ADVICE.update(advice)
