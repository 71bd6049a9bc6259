"""What to look at first: why a reader should check a scan's score, and which scans of many to begin with."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable
from dataclasses import dataclass

from ..record.score_record import ScoreRecord
from .headline import BY_STATUS, headline, warning_lines

SEPARATOR = " | "
"""Between sentences in a cell of a table."""

_WITHHOLDS = "beyond-calibration"
STATED_ELSEWHERE = (*BY_STATUS, _WITHHOLDS)
"""Codes of warnings that a status, or a reason to check the score, states too."""

WITHHELD = "The 90 % interval and the category are withheld."


@dataclass(frozen=True)
class Attention:
    """Reasons to check a score.

    Attributes:
        severe: Codes of the severe warnings, as they are in this result.
        reasons: Sentences, the gravest first: one per severe warning, then that interval and category are withheld,
            then the doubtful lesion that decides the score.
        withheld: True if interval and category are withheld.
        alternative_agatston: Score if the doubtful lesion that decides it were decided otherwise; None if none decides.
    """

    severe: tuple[str, ...]
    reasons: tuple[str, ...]
    withheld: bool
    alternative_agatston: float | None


def attention(record: ScoreRecord) -> Attention:
    """Return the reasons to check the score of a record."""
    lines = warning_lines(record.warnings, record.methods)
    severe = [line for line in lines if line.severe]
    reasons = [line.line for line in severe]
    if record.withholds:
        causes = [line.line for line in lines if line.code == _WITHHOLDS and not line.severe]
        reasons.append(" ".join([*causes, WITHHELD]))
    decision = headline(record.methods, record.categories, record.warnings).decision
    if decision is not None:
        reasons.append(f"{decision.question} Then the score is {decision.counted}, else {decision.rejected}.")
    alternative = None if decision is None else record.methods["threshold"].alternative_agatston
    return Attention(tuple(line.code for line in severe), tuple(reasons), record.withholds, alternative)


def urgency(
    is_severe: bool,
    withheld: bool,
    is_undecided: bool,
    category_probability: float | None,
    is_drawn: bool = False,
) -> float:
    """Return how urgently a reader should look at an automatic score; the largest comes first.

    Severe warnings come before withheld intervals, these before a doubtful lesion that decides the score, then scans
    drawn at random; those alike by the probability that their likeliest category is wrong.

    Args:
        is_severe: True if a warning is severe.
        withheld: True if interval and category are withheld.
        is_undecided: True if a doubtful lesion decides the score.
        category_probability: Probability of the likeliest category; None if unknown.
        is_drawn: True if the scan was drawn at random to be checked.
    """
    rank = 4 if is_severe else 3 if withheld else 2 if is_undecided else int(is_drawn)
    return rank + (0.5 if category_probability is None else 1.0 - category_probability)


def random_share(labels: Iterable[str], share: float, seed: int = 0) -> set[str]:
    """Return a random share of scans, the same whenever it is drawn with the same seed.

    Args:
        labels: Label of each scan.
        share: Proportion, 0 to 1; the number is rounded up.
        seed: Seed.
    """
    order = sorted(labels, key=lambda label: hashlib.sha256(f"{seed} {label}".encode()).hexdigest())
    return set(order[: math.ceil(round(share * len(order), 6))])
