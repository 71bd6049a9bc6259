"""Processes of the system: ending them with all they have started, and how much memory and how many cores are free.

psutil is imported where it is used: 3D Slicer has it only where the panel has installed it.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

_GROUP_LIMIT = Path("/sys/fs/cgroup/memory.max")
"""Of a container, which psutil does not know."""


def kill_tree(process_id: int) -> None:
    """End a process and its descendants: Slicer's Python is a launcher, and what it runs is its child."""
    import psutil

    with suppress(psutil.NoSuchProcess):
        process = psutil.Process(process_id)
        for each in (process, *process.children(recursive=True)):
            with suppress(psutil.NoSuchProcess):
                each.kill()


def core_count() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def available_memory_bytes() -> int:
    """Memory that new processes may take without pushing others out, or the control group's limit where it is less."""
    import psutil

    available = psutil.virtual_memory().available
    text = _GROUP_LIMIT.read_text(encoding="ascii").strip() if _GROUP_LIMIT.exists() else "max"
    return available if text == "max" else min(available, int(text))
