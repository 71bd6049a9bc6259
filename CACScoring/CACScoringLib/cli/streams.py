"""Standard streams whose reader may be gone: a closed terminal or pipe does not end a run that writes its results."""

from __future__ import annotations

import errno
import io
import os
import sys
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing_extensions import Buffer  # collections.abc has it from Python 3.12


class _Pipe(io.FileIO):
    """Raw output that drops what nobody reads any more."""

    def write(self, data: Buffer) -> int:
        try:
            return super().write(data)
        except OSError as error:
            if error.errno not in (errno.EPIPE, errno.EINVAL, errno.EBADF):  # EINVAL: a closed pipe of Windows
                raise
            return memoryview(data).nbytes


def guard_streams() -> None:
    """Make standard output and error of this process take any text at any time.

    A stream that was closed before the start is opened anew, so that no file of results takes its number and receives
    what a library writes there.
    """
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_WRONLY), "w"))
        elif isinstance(stream, io.TextIOWrapper):
            with suppress(io.UnsupportedOperation):  # a stream in memory has no number
                if not stream.isatty():
                    stream.flush()
                    raw = io.BufferedWriter(_Pipe(stream.fileno(), "w", closefd=False))
                    is_prompt = stream.line_buffering or stream.write_through  # the latter with PYTHONUNBUFFERED
                    stream = io.TextIOWrapper(raw, stream.encoding, line_buffering=is_prompt)
            stream.reconfigure(errors="backslashreplace")  # names of files may hold what the terminal cannot show
            setattr(sys, name, stream)
