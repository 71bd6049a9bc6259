"""Version of CAC and commit of its source code, stated in results."""

from __future__ import annotations

import json
import os
import subprocess
from functools import cache
from pathlib import Path

from .files import resource_folder

VERSION = "0.2.0"
"""Version in pyproject.toml, repeated here because Slicer has no package metadata."""

UNKNOWN = "unknown"
"""Beginning of `commit()` where no commit is known."""

_PACKAGE = "slicer-cac"
_GIT_SECONDS = 10.0


@cache
def commit() -> str:
    """Return the commit of the source code, "-changed" after it if files differ; or UNKNOWN and why.

    It is that of the git checkout; else of `Resources/commit.txt`, which builds write; else of pip's record (PEP 610).
    """
    checkout = Path(__file__).resolve().parents[3]
    if (checkout / ".git").exists():
        return _commit_of(checkout)
    file = resource_folder("commit.txt")
    if file.is_file():
        return file.read_text(encoding="utf-8").strip()
    return _installed_commit() or f"{UNKNOWN}: no git checkout, and neither commit.txt nor pip names one"


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
