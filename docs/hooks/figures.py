"""Figures of the results, drawn from stored tables: each holds the hash of what it was drawn from."""

from __future__ import annotations

import csv
import hashlib
import io
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DOCS = Path(__file__).parents[1]


def draw_people(tables: list[list[dict[str, str]]]) -> Figure:
    """Draw the scores of people as `cac evaluate people` does."""
    from CACTrainingLib.truth import people_summary

    figure = _empty_figure(5.6, 4.6)
    people_summary.draw_people(figure, tables[0])
    return figure


def draw_lesion_training(tables: list[list[dict[str, str]]]) -> Figure:
    """Draw the validation of trainings by their steps, a line for each number of digital patients."""
    figure, axes = _figure(7.2, 3.6)
    rows = [row for row in tables[0] if row["steps"]]
    for number, patients in enumerate(dict.fromkeys(row["patients"] for row in rows)):
        part = [row for row in rows if row["patients"] == patients]
        steps, values = ([float(row[name]) for row in part] for name in ("steps", "log likelihood"))
        axes.plot(steps, values, "o-", color=f"C{number}", label=f"{int(patients):,} digital patients")
    means = {row["network"]: (row["patients"], float(row["log likelihood"])) for row in tables[0] if not row["steps"]}
    for name, (patients, value) in means.items():
        axes.axhline(value, color="0.4", linestyle="--" if patients else ":")
        axes.text(1.01, value, name, transform=axes.get_yaxis_transform(), va="center", fontsize=8)
    axes.set(xlabel="steps of 16 patches", ylabel="mean log likelihood of ten groups")
    axes.legend(loc="best", frameon=False, fontsize=8)
    return figure


FIGURES: dict[str, tuple[Callable[[list[list[dict[str, str]]]], Figure], list[str]]] = {
    "pictures/people.svg": (draw_people, ["results/people.csv"]),
    "pictures/lesion-training.svg": (draw_lesion_training, ["results/lesion-training.csv"]),
}
"""Function and tables of each figure."""


def stale() -> list[str]:
    """Return the figures that were not drawn from the present tables."""
    files = ((name, DOCS / name, sources) for name, (_, sources) in FIGURES.items())
    return [name for name, file, sources in files if not file.exists() or _hash(sources) not in file.read_text("utf-8")]


def write() -> None:
    """Draw the figures that are not current; needs Matplotlib."""
    for name in stale():
        draw, sources = FIGURES[name]
        tables = []
        for source in sources:
            with (DOCS / source).open(encoding="utf-8", newline="") as stream:
                tables.append(list(csv.DictReader(stream)))
        content = io.StringIO()
        draw(tables).savefig(content, format="svg", metadata={"Description": _hash(sources), "Date": None})
        (DOCS / name).write_text(content.getvalue(), encoding="utf-8")
        print(f"docs/{name}: drawn")


def _hash(sources: list[str]) -> str:
    return hashlib.sha256(b"".join((DOCS / source).read_bytes() for source in sources)).hexdigest()


def _figure(width: float, height: float) -> tuple[Figure, Axes]:
    figure = _empty_figure(width, height)
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _empty_figure(width: float, height: float) -> Figure:
    import matplotlib as mpl
    from matplotlib.figure import Figure

    mpl.rcParams["svg.hashsalt"] = "cac"
    return Figure((width, height), layout="constrained")
