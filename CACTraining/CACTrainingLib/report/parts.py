"""What a study hands to its page: tables, figures, galleries, and sections of these. `report.page` writes them down."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..statistics.bootstrap import Estimate

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Drawing

Cell = str | int | float | Estimate | None
"""What a table holds: an estimate is shown with its interval and n, None as a dash, NaN as "not defined"."""

PUBLISHED = "Published"
"""A column whose title begins with this word holds others' figures, and is marked as such on the page."""


@dataclass(frozen=True)
class _Part:
    """name: of its files and links, unique in a study; small letters, digits, underscores."""

    name: str
    title: str


@dataclass(frozen=True)
class Table(_Part):
    """rows: a cell per column; the first cell names the row. note: shown under the table, plain text.

    A column whose title begins with `PUBLISHED` is marked as others' figures.
    """

    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    note: str = ""


@dataclass(frozen=True)
class Figure(_Part):
    """draw: fills an empty matplotlib figure; `report.figures` has ready ones.

    size_inches: at the page's width, 7 inches are all of it.
    """

    draw: Callable[[Drawing], None]
    note: str = ""
    size_inches: tuple[float, float] = (7, 4)


@dataclass(frozen=True)
class Picture:
    """A picture of a gallery. caption: plain text. link: a page to go on to, relative to the study's own."""

    jpeg: bytes
    caption: str
    link: str | None = None


@dataclass(frozen=True)
class Gallery(_Part):
    """Pictures that a reader goes through one by one."""

    pictures: tuple[Picture, ...]
    note: str = ""


@dataclass(frozen=True)
class Section(_Part):
    """A part of the results. text: paragraphs before tables and figures, plain text."""

    text: tuple[str, ...] = ()
    tables: tuple[Table, ...] = ()
    figures: tuple[Figure, ...] = ()
    galleries: tuple[Gallery, ...] = ()


def heading(title: str, columns: Sequence[str]) -> tuple[Cell, ...]:
    """A row that is a heading across its table."""
    return (title, *[""] * (len(columns) - 1))


def count(items: Sequence | set | int, name: str) -> str:
    """“1 scan”, “2 scans”."""
    n = items if isinstance(items, int) else len(items)
    return f"{n} {name}" if n == 1 else f"{n} {name}s"


def p_cell(p: float) -> Cell:
    """A p-value for a table; below what the resamples can tell it is a bound."""
    return "< 0.001" if p < 0.001 else round(p, 4)


METHODS = {
    "map": "Calcium map",
    "reader": "130 HU, arteries known",
    "automatic": "130 HU, automatic",
    "slices": "Slices counted (control)",
    "noise_free": "Noise-free map (ceiling)",
}
"""Title in tables by method. map: the calcium map of `cac score`. reader: the clinical rule in a reader's regions; of
digital patients in every region with visible calcium, known perfectly. automatic: the automatic clinical score; where
the models hold no evidence of candidates, the clinical rule on everything dense. slices: how many slices the classifier
calls positive, at the threshold that its training chose. noise_free: the positive part of what calcium truly adds to
the scan, without noise."""


def candidates_counted(scans: int, of: int) -> tuple[str, ...]:
    """A sentence where the clinical rule counts all candidates of scans, for nothing evaluated them; else none."""
    if not scans:
        return ()
    return (
        f"“{METHODS['automatic']}” counts everything dense in {scans} of {of} scans, because their candidates were not "
        "evaluated. It is no calcium score there.",
    )
