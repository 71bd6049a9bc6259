"""Scores of people against their readings: the figures of `results/people.csv` in short."""

from __future__ import annotations

import csv
from pathlib import Path

from CACTrainingLib.truth.people_summary import SHORT, figures_of

FILE = Path(__file__).parents[1] / "results" / "people.csv"


def summary_as_markdown(asked: str) -> str:
    """Return the figures as a table. asked: "short" for those of the front page."""
    with FILE.open(encoding="utf-8", newline="") as stream:
        figures = figures_of(list(csv.DictReader(stream)))
    shown = figures[:SHORT] if asked == "short" else figures
    return "\n".join(
        ["| question | answer |", "|---|---|", *(f"| {question} | {answer} |" for question, answer in shown)]
    )
