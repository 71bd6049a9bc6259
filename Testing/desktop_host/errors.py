"""Collection of errors that Qt's slots and VTK's observers would only print, so that they fail a test."""

from __future__ import annotations

import sys

_errors: list[BaseException] = []


def collect(monkeypatch) -> None:
    """Begin to collect exceptions in slots and observers."""
    _errors.clear()
    monkeypatch.setattr(sys, "excepthook", _collect_error)
    monkeypatch.setattr(sys, "unraisablehook", lambda unraisable: _collect_error(*unraisable[:3]))


def _collect_error(kind, error, traceback) -> None:
    _errors.append(error.with_traceback(traceback))
    sys.__excepthook__(kind, error, traceback)


def forget() -> None:
    """Discard collected errors that a test has caused on purpose."""
    _errors.clear()


def raise_errors() -> None:
    """Raise the first error that was collected, if any."""
    if _errors:
        first = _errors[0]
        _errors.clear()
        raise first
