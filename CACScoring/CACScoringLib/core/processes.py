"""Process trees to end, free memory, usable cores and the processor's name.

psutil is imported on use: 3D Slicer lacks it until the panel has installed it.
"""

from __future__ import annotations

import os
import platform
from contextlib import suppress
from pathlib import Path

_GROUP_LIMIT = Path("/sys/fs/cgroup/memory.max")
"""Memory limit of a container, which psutil ignores."""


def kill_tree(process_id: int) -> None:
    """End a process and its descendants: Slicer's Python is a launcher whose child runs the program."""
    import psutil

    with suppress(psutil.NoSuchProcess):
        process = psutil.Process(process_id)
        for member in (process, *process.children(recursive=True)):
            with suppress(psutil.NoSuchProcess):
                member.kill()


def processor_name() -> str:
    """Return the processor's model, such as "AMD EPYC 9V74 80-Core Processor"; its architecture if that is unknown."""
    facts = Path("/proc/cpuinfo")
    lines = facts.read_text(encoding="utf-8", errors="replace").splitlines() if facts.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def core_count() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def available_memory_bytes() -> int:
    """Return the memory that new processes may take without swapping, at most the container's limit."""
    import psutil

    available = psutil.virtual_memory().available
    text = _GROUP_LIMIT.read_text(encoding="ascii").strip() if _GROUP_LIMIT.exists() else "max"
    return available if text == "max" else min(available, int(text))
