"""The folder MODEL.training beside a model: who trains in it, and how it was started.

`run.json` holds `arguments` (of the command line), `folder` (where they were given), `started`, `host`, `launcher`
(process that was started in the background), and, once it trains, `pid`, `network`, `steps` and `minutes`. `lock` is
held for the life of the training process; the file itself stays. A process number alone says nothing: the system
gives it to another process later.
"""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path

from CACScoringLib.core.ct import CTError
from CACScoringLib.core.files import OutputError, write_text_atomically

RUN, LOCK, PROGRESS, CHECKPOINT = "run.json", "lock", "progress.jsonl", "checkpoint.pt"

LOCK_SECONDS = 3.0
"""Whoever looks whether the lock is held holds it for a moment himself."""


class TrainingError(CTError):
    """Training cannot go on. The message says why and what to do."""


@contextmanager
def training_lock(folder: Path) -> Iterator[None]:
    """Hold a training's folder, which is made. Without a success, a folder in which nothing was written goes again.

    Raises TrainingError when another process holds it, and OutputError when it cannot be written to.
    """
    from filelock import FileLock, Timeout

    new = not folder.exists()
    lock = FileLock(folder / LOCK)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=LOCK_SECONDS)
    except Timeout as error:
        message = f"{folder} is being trained already by another process. Wait for its end, or choose another --output."
        raise TrainingError(message) from error
    except OSError as error:
        raise OutputError(f"Cannot write to {folder}: {error.strerror}. Choose another --output.") from error
    try:
        yield
    except BaseException:
        lock.release()
        if new and {path.name for path in folder.iterdir()} <= {LOCK, RUN}:
            for name in (LOCK, RUN):
                (folder / name).unlink(missing_ok=True)
            folder.rmdir()
        raise
    lock.release()


def has_checkpoint(folder: Path, resume: bool) -> bool:
    """True if there is a checkpoint to go on from. Raises OutputError when there is one, but no resume."""
    found = (folder / CHECKPOINT).exists()
    if found and not resume:
        raise OutputError(f"{folder} holds an earlier training. Go on with --resume, or choose another --output.")
    return found


def is_locked(folder: Path) -> bool:
    """True if a process trains in a folder now; False also where filelock, which comes with PyTorch, is missing."""
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


def read_run(folder: Path) -> dict:
    """Content of `run.json`; empty where there is none."""
    try:
        content = json.loads((folder / RUN).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def write_run(folder: Path, content: dict[str, object]) -> None:
    """Write `run.json` anew."""
    write_text_atomically(folder / RUN, json.dumps(content, indent=1) + "\n")


def record_training(folder: Path, arguments: tuple[str, ...], **facts: object) -> None:
    """Say in `run.json` that this process trains here. Call it with the lock held.

    arguments: of the command line that started it, or none; then those already written stay. facts: as in `run.json`.
    """
    known = read_run(folder)
    now = datetime.now(timezone.utc).isoformat(timespec="seconds")
    if arguments:
        known |= {"arguments": list(arguments), "folder": str(Path.cwd())}
    known = {"started": now, **known, "pid": os.getpid(), "host": platform.node(), **facts}
    write_run(folder, known)
