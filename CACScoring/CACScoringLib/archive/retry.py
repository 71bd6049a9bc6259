"""Asking again, after longer and longer waits, what an archive did not answer."""

from __future__ import annotations

import random
from collections.abc import Callable
from time import sleep
from typing import TypeVar

from .address import ArchiveError

FIRST_SECONDS, LONGEST_SECONDS = 1.0, 300.0
ATTEMPTS = 5

Result = TypeVar("Result")


def wait_seconds(failures: int) -> float:
    """How long to wait after so many failures in a row: doubled each time, with chance, so that clients spread."""
    return min(LONGEST_SECONDS, FIRST_SECONDS * 2 ** min(failures - 1, 30)) * random.uniform(0.5, 1.0)


def patiently(ask: Callable[[], Result]) -> Result:
    """Ask, and ask again where the archive was out of reach. Raises ArchiveError: the last one, or a lasting one."""
    for failures in range(1, ATTEMPTS):
        try:
            return ask()
        except ArchiveError as error:
            if error.lasting:
                raise
        sleep(wait_seconds(failures))
    return ask()
