"""Warnings: what their codes mean, and the checks that compare a quantity with limits.

Each code has a block in a file of Resources/Warnings: `severe` (yes), `advice`, `option` of the command line that
follows the advice, and advice `after_review`. A block with limits is a check, too, that `run_check` runs: `quantity`
with its unit, `low` and `high`, values in `sound` people, and `message`. A code with several checks has a block for
each, named by the code and a word. What is decided in code makes a `ScanWarning` there.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .files import resource_blocks

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
    """Comparison of a quantity with limits: a block of Resources/Warnings that has some.

    Attributes:
        name: Code of its warning; a word follows if the code has several checks.
        quantity: What is compared, with its unit.
        low: Least value without a warning.
        high: Largest value without a warning.
        sound: Values in sound people, as text; empty if they were not measured.
        message: Message of the warning, with names of facts in braces.
    """

    name: str
    quantity: str
    low: float
    high: float
    sound: str
    message: str

    @property
    def code(self) -> str:
        """Code of the warning."""
        return self.name.partition(" ")[0]

    @property
    def word(self) -> str:
        """Word that distinguishes the check from others of its code; empty if there is none."""
        return self.name.partition(" ")[2]


CHECKS: dict[str, Check] = {}
"""Checks by name, in the order of their blocks."""


def declare(blocks: Mapping[str, Mapping[str, str]]) -> None:
    """Add the codes and checks of a library's Resources/Warnings, by the names of their blocks."""
    for name, block in blocks.items():
        for key, texts in (("advice", ADVICE), ("option", OPTIONS), ("after_review", ADVICE_AFTER_REVIEW)):
            if key in block:
                texts[name] = block[key]
        if "severe" in block:
            SEVERE.add(name)
        if "message" in block:
            low, high = float(block.get("low", "-inf")), float(block.get("high", "inf"))
            CHECKS[name] = Check(name, block["quantity"], low, high, block.get("sound", ""), block["message"])


declare(resource_blocks("Warnings"))


def run_check(name: str, value: float | None, **facts: Any) -> list[ScanWarning]:
    """Compare a quantity with the limits of a check.

    Args:
        name: Name of the check.
        value: The quantity, in the check's unit; None and NaN are unknown and give no warning.
        facts: What the message needs beside value, low and high.

    Returns:
        The warning, if the value lies outside the limits.
    """
    check = CHECKS[name]
    if value is None or math.isnan(value) or check.low <= value <= check.high:
        return []
    return [ScanWarning(check.code, check.message.format(value=value, low=check.low, high=check.high, **facts))]
