"""Time that an archive has for an answer: little for the first, so that a silent one is reported soon."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Timer

from .address import Address

CONNECT_SECONDS, NOTICE_SECONDS = 4.0, 2.0
"""Timeout of connecting, and time without an answer after which a person is told what is waited for."""

FIRST_SECONDS, LATER_SECONDS = 12.0, 120.0
"""Longest silence before the first answer, and once the archive has answered."""


class Patience:
    """Longest silence of an archive.

    Attributes:
        seconds: FIRST_SECONDS, twice as long after each failure, and LATER_SECONDS after the first answer.
    """

    def __init__(self, address: Address) -> None:
        self.seconds = FIRST_SECONDS
        self._address = address

    @contextmanager
    def wait(self) -> Iterator[None]:
        """Enclose a request, and print a line if the first answer takes long."""
        if self.seconds == LATER_SECONDS:
            yield
            return
        line = f"Waiting for {self._address.host}:{self._address.port} …"
        notice = Timer(NOTICE_SECONDS, print, (line,), {"file": sys.stderr, "flush": True})
        notice.daemon = True
        notice.start()
        try:
            yield
        except Exception:
            self.seconds = min(2 * self.seconds, LATER_SECONDS)
            raise
        else:
            self.seconds = LATER_SECONDS
        finally:
            notice.cancel()
