"""How scores of people agree with a reading, in a few figures of `results/people.csv`."""

from __future__ import annotations

import csv
from pathlib import Path
from statistics import median

FILE = Path(__file__).parents[1] / "results" / "people.csv"

NEAR, NEAR_SHARE, NEAR_FACTOR = 10.0, 0.2, 1.5
"""A total is right within NEAR or NEAR_SHARE of the reading, a map's within NEAR_FACTOR."""


def summary_as_markdown(asked: str) -> str:
    """Return the figures as a table. asked: "short" for the first two."""
    with FILE.open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    figures = _figures(rows)
    shown = figures[:2] if asked == "short" else figures
    return "\n".join(
        ["| question | answer |", "|---|---|", *(f"| {question} | {answer} |" for question, answer in shown)]
    )


def _figures(rows: list[dict[str, str]]) -> list[tuple[str, str]]:
    positive = [row for row in rows if float(row["reading"]) > 0]
    healthy = [row for row in rows if float(row["reading"]) == 0]
    shares = [float(row["right artery"]) for row in positive]
    intervals = [(row, *map(float, row["interval"].split(" to "))) for row in rows if " to " in row["interval"]]
    holds = sum(low <= float(row["reading"]) <= high for row, low, high in intervals)
    ratio = median((1 + high) / (1 + low) for row, low, high in intervals if float(row["reading"]) > 0)
    near = sum(
        1 / NEAR_FACTOR <= float(row["map"]) / float(row["reading"]) <= NEAR_FACTOR if float(row["map"]) else False
        for row in positive
    )
    above = sum(float(row["automatic"]) >= 1 for row in healthy)
    false = sum(float(row["false"] or 0) for row in rows)
    missed = sum(float(row["missed"] or 0) for row in rows)
    return [
        (
            f"total right (within {100 * NEAR_SHARE:g} % or {NEAR:g}, 0 below 1)",
            f"{sum(map(_is_right, rows))} of {len(rows)} scans",
        ),
        ("scans without coronary calcium that score 1 or more", f"{above} of {len(healthy)}"),
        ("right artery, share of the score: median, worst", f"{median(shares):.2f}, {min(shares):.2f}"),
        ("90 % interval holds the reading", f"{holds} of {len(intervals)} ({len(rows) - len(intervals)} withheld)"),
        ("its width with calcium, (1 + upper end) / (1 + lower end): median", f"{ratio:.1f}"),
        (f"map within a factor of {NEAR_FACTOR:g} of the reading", f"{near} of {len(positive)} with calcium"),
        (
            "score counted outside the reading; score read but not counted",
            f"{false:.0f}; {missed:.0f} of {sum(float(row['reading']) for row in rows):.0f}",
        ),
    ]


def _is_right(row: dict[str, str]) -> bool:
    reading, score = float(row["reading"]), float(row["automatic"])
    return score < 1 if reading == 0 else abs(score - reading) <= max(NEAR, NEAR_SHARE * reading)
