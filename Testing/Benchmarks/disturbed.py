"""Commands in a process of their own, which is killed, or finds no room on the disk, at a chosen moment; on Linux.

The process is forked from one that has loaded what the command needs (`preload`), so that it begins with its work at
once and disturbances fall into that. A moment is a time after the beginning, or the n-th time that Python changes a
file in this process: opens one to write, renames, links or removes one, makes or removes a folder.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import importlib
import os
import resource
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

CHANGES = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "os.truncate"}
TAKE_ROOM = {"open", "os.mkdir", "os.link"}
_LONGEST_SECONDS = 600.0
_MOST_SAID = 2**20
"""Bytes on standard error."""


@dataclass(frozen=True)
class Disturbance:
    """kill_after: seconds; kill_at, full_at: number of a change of files, from 1, before which it is killed, and from
    which on there is no room left. file_bytes: no file can become larger."""

    kill_after: float | None = None
    kill_at: int | None = None
    full_at: int | None = None
    file_bytes: int | None = None


UNDISTURBED = Disturbance()


@dataclass(frozen=True)
class Ended:
    """code: exit code, negative where a signal ended it. said: on standard error. seconds: that it took. changes: of
    files that it made, and modules: that it had loaded; of one that ended by itself."""

    code: int
    said: str
    seconds: float
    changes: int = 0
    modules: tuple[str, ...] = ()


def run(do: Callable[[], int], environment: Mapping[str, str], disturbance: Disturbance = UNDISTURBED) -> Ended:
    """Do something in a forked process, disturbed; returns once it and all its children have ended."""
    with tempfile.TemporaryDirectory(prefix="cac-said-") as place:
        counted = Path(place, "counted")
        said, says = os.pipe()  # a file would be limited too
        fcntl.fcntl(says, fcntl.F_SETPIPE_SZ, _MOST_SAID)
        os.set_blocking(said, False)
        begun = time.perf_counter()
        child = os.fork()
        if child == 0:
            _become(do, environment, disturbance, says, counted)
        os.close(says)
        limit = disturbance.kill_after or _LONGEST_SECONDS
        while not (ended := os.waitpid(child, os.WNOHANG))[0]:
            if time.perf_counter() - begun > limit:
                break
            time.sleep(0.002)
        seconds = time.perf_counter() - begun
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child, signal.SIGKILL)
        if not ended[0]:
            ended = os.waitpid(child, 0)
        with os.fdopen(said, "rb") as stream:
            text = (stream.read() or b"").decode(errors="replace")
        if limit == _LONGEST_SECONDS <= seconds:
            raise TimeoutError(text)
        told = counted.read_text().split() if counted.exists() else []
        number, *modules = told or ["0"]  # none where it was killed at the very end
        return Ended(os.waitstatus_to_exitcode(ended[1]), text, seconds, int(number), tuple(modules))


def preload(modules: tuple[str, ...]) -> None:
    """Load what an undisturbed run had loaded."""
    for name in modules:
        if name not in sys.modules and not name.startswith("_"):
            with contextlib.suppress(Exception):
                importlib.import_module(name)


def _become(
    do: Callable[[], int], environment: Mapping[str, str], disturbance: Disturbance, says: int, counted: Path
) -> None:
    """What the forked process is: it never returns."""
    code = 70
    try:
        os.setsid()
        os.environ.update(environment)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        os.dup2(says, 2)
        sys.stdout, sys.stderr = (os.fdopen(number, "w", buffering=1, closefd=False) for number in (1, 2))
        if disturbance.file_bytes is not None:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # as CPython does itself where it starts
            resource.setrlimit(resource.RLIMIT_FSIZE, (disturbance.file_bytes, resource.RLIM_INFINITY))
        hear = _Hearer(disturbance)
        sys.addaudithook(hear)
        code = do()
        hear.heeds = False
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        counted.write_text(" ".join((str(hear.seen), *sys.modules)))
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    except BaseException:
        traceback.print_exc()
        code = 1
    finally:
        sys.stderr.flush()
        os._exit(code)


class _Hearer:
    """Counts the changes of files, and disturbs."""

    def __init__(self, disturbance: Disturbance) -> None:
        self.seen, self.heeds = 0, True
        self._disturbance = disturbance

    def __call__(self, event: str, arguments: tuple) -> None:
        if not self.heeds or not (event in CHANGES or (event == "open" and _writes(*arguments))):
            return
        self.seen += 1
        wanted = self._disturbance
        if wanted.kill_at == self.seen:
            os.killpg(0, signal.SIGKILL)
        if wanted.full_at is not None and self.seen >= wanted.full_at and event in TAKE_ROOM:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(arguments[0]))


def _writes(path: object, mode: str | None, flags: int) -> bool:
    if not isinstance(path, str | bytes) or os.fsdecode(path).startswith(("/dev/", "/proc/", "/sys/")):
        return False
    return bool(flags & (os.O_WRONLY | os.O_RDWR)) if mode is None else any(letter in mode for letter in "wax+")
