"""Version of CAC and commit of its source code, stated in results; processor, memory and processes."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import subprocess
import sys
from contextlib import suppress
from functools import cache
from pathlib import Path

VERSION = "0.2.0"
"""Version in pyproject.toml, repeated here because Slicer has no package metadata."""

UNKNOWN = "unknown"
"""Beginning of `commit()` where no commit is known."""

PACKAGES = ("numpy", "scipy", "SimpleITK", "openvino", "torch")
"""Packages that scores depend on."""

_LIBRARY = Path(__file__).resolve().parents[1]
_PACKAGE = "slicer-cac"
_GIT_SECONDS = 10.0
_MEASURING = ("core", "io", "networks", "models", "calcium_map", "anatomy", "quality", "facts", "record", "scoring")
"""Rooms whose code measures scans."""


@cache
def commit() -> str:
    """Return the commit of the source code, "-changed" after it if files differ; or UNKNOWN and why.

    It is that of the git checkout; else of `Resources/commit.txt`, which builds write; else of pip's record (PEP 610).
    """
    checkout = _LIBRARY.parents[1]
    if (checkout / ".git").exists():
        return _commit_of(checkout)
    file = _commit_file(_LIBRARY)
    if file.is_file():
        return file.read_text(encoding="utf-8").strip()
    return _installed_commit() or f"{UNKNOWN}: no git checkout, and neither commit.txt nor pip names one"


@cache
def code_sha256() -> str:
    """Return the SHA-256 of the code and its tables that scans are measured by, whatever version states it."""
    digest = hashlib.sha256()
    files = (file for room in _MEASURING for file in (_LIBRARY / room).rglob("*.py"))
    for file in sorted((*files, *(_LIBRARY / "Resources").glob("*.csv"), _LIBRARY / "pipeline.py")):
        digest.update(f"{file.relative_to(_LIBRARY).as_posix()}\n".encode() + file.read_bytes())
    return digest.hexdigest()


def write_commit(library: Path) -> None:
    """Store the commit of the source code in a copy of the library, unless it is unknown."""
    if not commit().startswith(UNKNOWN):
        _commit_file(library).write_text(f"{commit()}\n", encoding="utf-8")


def package_versions() -> dict[str, str]:
    """Return the versions of those PACKAGES that this process has loaded."""
    return {name: str(sys.modules[name].__version__) for name in PACKAGES if name in sys.modules}


def _commit_file(library: Path) -> Path:
    return library / "Resources" / "commit.txt"


def _commit_of(checkout: Path) -> str:
    command = ["git", "describe", "--always", "--abbrev=40", "--dirty=-changed", "--exclude=*"]
    environment = {**os.environ, "GIT_OPTIONAL_LOCKS": "0"}
    try:
        answer = subprocess.run(
            command, cwd=checkout, env=environment, capture_output=True, text=True, timeout=_GIT_SECONDS, check=True
        )
    except (OSError, subprocess.SubprocessError) as error:
        return f"{UNKNOWN}: git failed in the checkout ({type(error).__name__})"
    return answer.stdout.strip()


def _installed_commit() -> str | None:
    from importlib.metadata import PackageNotFoundError, distribution

    try:
        origin = json.loads(distribution(_PACKAGE).read_text("direct_url.json") or "{}")
    except (PackageNotFoundError, ValueError):
        return None
    return origin.get("vcs_info", {}).get("commit_id")


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
