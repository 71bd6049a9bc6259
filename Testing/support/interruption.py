"""Ctrl+C at a known moment."""

import contextlib
import itertools

import pytest


@contextlib.contextmanager
def interrupted_at(owner, name, number):
    """Press Ctrl+C in the call of this number, counted from 1, of a function."""
    function, calls = getattr(owner, name), itertools.count(1)

    def interrupted(*words):
        if next(calls) == number:
            raise KeyboardInterrupt
        return function(*words)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(owner, name, interrupted)
        yield
