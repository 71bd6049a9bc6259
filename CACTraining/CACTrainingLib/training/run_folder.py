"""Lock and describe MODEL.training, the folder of a training beside its model.

`run.json` holds `arguments` of the command line, the working `folder`, `started`, `host`, `launcher` (process started
in the background), and, once it trains, `pid`, `network`, `steps` and `minutes`. `lock` is held for the life of the
training process; the file itself stays. A process number alone proves nothing, because the system reuses numbers.
"""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from CACScoringLib.core.errors import CTError, OutputError
from CACScoringLib.core.files import read_json, write_text_atomically
from CACScoringLib.core.text import OUTPUT, RESUME

RUN, LOCK, PROGRESS, CHECKPOINT = "run.json", "lock", "progress.jsonl", "checkpoint.pt"

LOCK_SECONDS = 3.0
"""Longest wait for the lock; a process that tests the lock holds it for a moment itself."""


@contextmanager
def training_lock(folder: Path) -> Iterator[None]:
    """Make and lock a training's folder. On an error, a new folder without results is deleted again.

    Raises CTError if another process holds the lock, and OutputError if the folder cannot be written to.
    """
    from filelock import FileLock, Timeout

    is_new = not folder.exists()
    lock = FileLock(folder / LOCK)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=LOCK_SECONDS)
    except Timeout as error:
        message = f"{folder} is being trained already by another process. Wait for its end, or choose {OUTPUT}."
        raise CTError(message) from error
    except OSError as error:
        raise OutputError(f"Cannot write to {folder}: {error.strerror}. Choose {OUTPUT}.") from error
    try:
        yield
    except BaseException:
        lock.release()
        if is_new and {path.name for path in folder.iterdir()} <= {LOCK, RUN}:
            for name in (LOCK, RUN):
                (folder / name).unlink(missing_ok=True)
            folder.rmdir()
        raise
    lock.release()


def has_checkpoint(folder: Path, resume: bool) -> bool:
    """True if there is a checkpoint to resume. Raises OutputError if there is one but `resume` is False."""
    exists = (folder / CHECKPOINT).exists()
    if exists and not resume:
        raise OutputError(f"{folder} holds an earlier training. Go on with {RESUME}, or choose {OUTPUT}.")
    return exists


def is_locked(folder: Path) -> bool:
    """True if a process is training in a folder; False without filelock, which comes with PyTorch."""
    if not (folder / LOCK).exists():
        return False
    try:
        from filelock import FileLock, Timeout
    except ImportError:
        return False
    lock = FileLock(folder / LOCK)
    try:
        lock.acquire(timeout=0)
    except (Timeout, OSError):
        return True
    lock.release()
    return False


def read_run(folder: Path) -> dict[str, Any]:
    """Return the content of `run.json`, or {} if there is none."""
    try:
        content = read_json(folder / RUN)
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def write_run(folder: Path, content: dict[str, object]) -> None:
    """Replace the content of `run.json`."""
    write_text_atomically(folder / RUN, json.dumps(content, indent=1) + "\n")


def record_training(folder: Path, arguments: tuple[str, ...], **facts: object) -> None:
    """Record in `run.json` that this process trains here. Call it with the lock held.

    arguments: Arguments of the command line; an empty tuple keeps the recorded ones. facts: Further entries.
    """
    run = read_run(folder)
    now = datetime.now(timezone.utc).isoformat(timespec="seconds")
    if arguments:
        run |= {"arguments": list(arguments), "folder": str(Path.cwd())}
    run = {"started": now, **run, "pid": os.getpid(), "host": platform.node(), **facts}
    write_run(folder, run)
