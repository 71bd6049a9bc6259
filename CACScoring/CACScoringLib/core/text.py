"""Text for readers and terminals, and remedies in the words of the interface in use."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Literal

RESEARCH_ONLY = "For research only. Not a medical device; not for diagnosis or treatment."


def percent(probability: float) -> str:
    """Return a model's probability for readers; never 0 or 100%, because no model is certain."""
    if probability < 0.01:
        return "below 1%"
    return "above 99%" if probability > 0.99 else f"{probability:.0%}"


def printable(text: str, message: bool = False) -> str:
    """Return text from a file fit for terminals and pages: no control characters, at most 200 characters.

    Args:
        text: Text from outside.
        message: Keep the length, the line breaks, and surrogates of names that are not UTF-8, which streams escape.
    """
    cleaned = "".join(
        c if c.isprintable() or (message and (c == "\n" or "\ud800" <= c <= "\udfff")) else " " for c in text
    )
    return cleaned if message else cleaned.strip()[:200]


def counted(count: int, noun: str) -> str:
    """Return a number of things, such as "1 scan" or "1,200 scans"."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def signed(value: float, decimals: int) -> str:
    """Return a number with its sign, "+0.50" or "−3.53", and a minus of the width of the plus."""
    return f"{value + 0.0:+,.{decimals}f}".replace("-", "−")


def abbreviated_list(items: Iterable[str]) -> str:
    """Return the first five items and the number of the others."""
    items = list(items)
    return ", ".join(items[:5]) + (f" and {len(items) - 5} more" if len(items) > 5 else "")


Interface = Literal["option", "argument", "field"]

PANEL_WORKER = {"CAC_INTERFACE": "panel"}
"""Environment variable of a worker whose errors a panel shows."""

_interface: ContextVar[Interface] = ContextVar(
    "interface", default="field" if PANEL_WORKER.items() <= os.environ.items() else "option"
)


@dataclass(frozen=True)
class Remedy:
    """A setting under its names: option of `cac`, argument in Python, field or button of a panel."""

    option: str
    argument: str
    field: str

    def __str__(self) -> str:
        return str(getattr(self, _interface.get()))


@contextmanager
def words_of(interface: Interface) -> Iterator[None]:
    """Name remedies in the words of another interface."""
    token = _interface.set(interface)
    try:
        yield
    finally:
        _interface.reset(token)


OUTPUT = Remedy("another --output", "another folder", "another folder")
REPLACE = Remedy(", or replace results with --overwrite", ", or replace results with overwrite=True", "")
SERIES = Remedy("--series, or the column series of a table", "cac.read_ct(path, series=UID)", "the DICOM module")
DEVICE = Remedy("--device cpu or auto", 'device="cpu"', "the device Processor")
UNUSUAL = Remedy("--allow-unusual", "allow_unusual=True", "under Input, Advanced")
MASKS = Remedy("--heart or --pericardium", "heart or pericardium", "Heart mask or Pericardium")
MODEL = Remedy("--model", "model", "the model under Input")
RESUME = Remedy("--resume", "resume", "Resume")
START = Remedy("--start", "start", "Start from")
