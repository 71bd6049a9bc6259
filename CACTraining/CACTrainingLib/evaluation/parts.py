"""Parts of a study's page: tables, figures, galleries, and sections of these. `evaluation.page` writes them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from CACScoringLib.statistics.bootstrap import Estimate

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure as Drawing

Cell = str | int | float | Estimate | None
"""Cell of a table. An estimate is shown with its interval and n, None as a dash, NaN as "not defined"."""

Draw = Callable[["Drawing"], None]
"""Function that fills an empty matplotlib figure, such as those of `evaluation.figures`."""

PUBLISHED = "Published"
"""First word of the title of a column with figures published by others, which the page marks."""


@dataclass(frozen=True)
class _Part:
    """Part of a page. Its name, unique in a study, names its files and links: small letters, digits, underscores."""

    name: str
    title: str


@dataclass(frozen=True)
class TablePart(_Part):
    """Table of a study. The page marks a column whose title begins with `PUBLISHED`.

    Attributes:
        columns: Column titles.
        rows: A cell per column; the first cell names the row.
        note: Plain text below the table.
    """

    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    note: str = ""


@dataclass(frozen=True)
class Figure(_Part):
    """Figure of a study.

    Attributes:
        draw: Function that draws it.
        note: Plain text below the figure.
        size_inches: Width and height; the page is 7 inches wide.
    """

    draw: Draw
    note: str = ""
    size_inches: tuple[float, float] = (7, 4)


@dataclass(frozen=True)
class PicturePart:
    """Picture of a gallery.

    Attributes:
        jpeg: Encoded picture.
        caption: Plain text.
        link: Page that the picture links to, relative to the study's page.
    """

    jpeg: bytes
    caption: str
    link: str | None = None


@dataclass(frozen=True)
class Gallery(_Part):
    """Pictures that a reader pages through."""

    pictures: tuple[PicturePart, ...]
    note: str = ""


@dataclass(frozen=True)
class Section(_Part):
    """Section of the results.

    Attributes:
        text: Plain paragraphs before the tables and figures.
        values: Long tables from which the figures are computed.
    """

    text: tuple[str, ...] = ()
    tables: tuple[TablePart, ...] = ()
    figures: tuple[Figure, ...] = ()
    galleries: tuple[Gallery, ...] = ()
    values: tuple[pd.DataFrame, ...] = field(default=(), compare=False)


def heading(title: str, columns: Sequence[str]) -> tuple[Cell, ...]:
    """A row that is a heading across its table."""
    return (title, *[""] * (len(columns) - 1))


def count(items: Sequence[Any] | set[Any] | int, name: str) -> str:
    """“1 scan”, “2 scans”."""
    n = items if isinstance(items, int) else len(items)
    return f"{n} {name}" if n == 1 else f"{n} {name}s"


def p_cell(p: float) -> Cell:
    """p-value for a table; a bound below the resolution of the resamples."""
    return "< 0.001" if p < 0.001 else round(p, 4)


METHODS = {
    "map": "Calcium map",
    "reader": "130 HU, arteries known",
    "automatic": "130 HU, automatic",
    "slices": "Slices counted (control)",
    "noise_free": "Noise-free map (ceiling)",
}
"""Title in tables by method.

- map: the calcium map of `cac score`.
- reader: the clinical rule in a reader's regions; in digital patients, in the true regions of visible calcium.
- automatic: the automatic clinical score; the clinical rule on everything dense if the models evaluate no candidates.
- slices: number of slices that the classifier calls positive at its trained threshold.
- noise_free: the positive part of the true contribution of calcium to the scan, without noise.
"""


def candidates_counted(scans: int, of: int) -> tuple[str, ...]:
    """Sentence about scans whose candidates were all counted because no model evaluated them; empty if there are none.

    Args:
        scans: Number of these scans.
        of: Number of all scans.
    """
    if not scans:
        return ()
    return (
        f"“{METHODS['automatic']}” counts everything dense in {scans} of {of} scans, because their candidates were not "
        "evaluated. It is no calcium score there.",
    )
