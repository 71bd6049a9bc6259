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
    """Draw score and interval, and the map, of each scan against the reading."""
    from matplotlib.ticker import NullLocator

    figure, axes = _figure(5.6, 4.6)
    rows = sorted(tables[0], key=lambda row: float(row["reading"]))
    ends = [0, 3000]
    axes.plot(ends, ends, color="0.6", linewidth=1, label="equal")
    axes.fill_between(ends, [n / 1.5 for n in ends], [n * 1.5 for n in ends], color="0.92", label="within 1.5")
    healthy = [row for row in rows if float(row["reading"]) == 0]
    for row in rows:
        reading, score = float(row["reading"]), float(row["automatic"])
        if " to " in row["interval"] and reading:
            low, high = map(float, row["interval"].split(" to "))
            axes.plot([reading, reading], [low, high], color="tab:blue", linewidth=1.2)
        label = row["scan"] if abs(score - reading) > max(10, 0.2 * reading) else None
        if label:
            axes.annotate(label, (reading, score), (-28, 4), textcoords="offset points", fontsize=8)
    reading, score, mapped = (
        [float(row[name]) for row in rows if float(row["reading"])] for name in ("reading", "automatic", "map")
    )
    axes.plot(reading, score, "o", color="tab:blue", label="automatic, 90 % interval")
    axes.plot(reading, mapped, "x", color="tab:red", label="map")
    axes.plot(0, max(float(row["automatic"]) for row in healthy), "o", color="tab:blue")
    axes.annotate(f"{len(healthy)} scans", (0, 0), (8, 8), textcoords="offset points", fontsize=8)
    for axis, scale in ((axes.xaxis, axes.set_xscale), (axes.yaxis, axes.set_yscale)):
        scale("symlog", linthresh=30)
        axis.set_ticks([0, 10, 30, 100, 300, 1000, 3000], ["0", "10", "30", "100", "300", "1000", "3000"])
        axis.set_minor_locator(NullLocator())
    axes.set(xlim=(-2, 3600), ylim=(-2, 6000), xlabel="reading (Agatston)", ylabel="score (Agatston)")
    axes.legend(loc="upper left", frameon=False, fontsize=8)
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
    import matplotlib as mpl
    from matplotlib.figure import Figure

    mpl.rcParams["svg.hashsalt"] = "cac"
    figure = Figure((width, height), layout="constrained")
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes
