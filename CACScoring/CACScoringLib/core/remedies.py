"""Remedies that errors name, in the words of the interface that a user works with.

An error's text holds a `Remedy`, which is an option on the command line, an argument in Python, and a field or button
for a worker of the panel. Warnings are stored with results, which all interfaces show; they name no option.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Literal

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
MODEL = Remedy("--model", "model", "the model under Input")
RESUME = Remedy("--resume", "resume", "Resume")
START = Remedy("--start", "start", "Start from")
