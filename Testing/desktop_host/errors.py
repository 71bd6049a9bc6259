"""Errors that Qt's slots and VTK's observers would only print: collected as well, so that a test fails of them."""

from __future__ import annotations

import sys

_errors: list[BaseException] = []


def collect(monkeypatch) -> None:
    """From now on keep what is raised in slots and observers."""
    _errors.clear()
    monkeypatch.setattr(sys, "excepthook", _keep)
    monkeypatch.setattr(sys, "unraisablehook", lambda what: _keep(what.exc_type, what.exc_value, what.exc_traceback))


def _keep(kind, error, traceback) -> None:
    _errors.append(error.with_traceback(traceback))
    sys.__excepthook__(kind, error, traceback)


def forget() -> None:
    """Drop what was collected, because it was raised on purpose."""
    _errors.clear()


def raise_errors() -> None:
    """Raise the first error that was collected, if any."""
    if _errors:
        first = _errors[0]
        _errors.clear()
        raise first
