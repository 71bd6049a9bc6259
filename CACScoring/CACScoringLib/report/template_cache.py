"""Templates of reports compiled once for a user, not in each process, which would take a twentieth of a score."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from ..core.files import user_cache_folder

if TYPE_CHECKING:
    import jinja2


def template_cache(options: Mapping[str, object]) -> jinja2.BytecodeCache | None:
    """Return the store of compiled templates in the user's cache folder; None if it cannot be used safely.

    A compiled template is code: no folder is used that belongs to another user, or that others may write.

    Args:
        options: Options of the environment, by which the same template compiles to other code.
    """
    import jinja2

    class Cache(jinja2.FileSystemBytecodeCache):
        def get_source_checksum(self, source: str) -> str:
            made_with = f"{jinja2.__version__} {sorted(options.items())}"
            return hashlib.sha256(f"{made_with}\n{source}".encode()).hexdigest()

        def dump_bytecode(self, bucket: jinja2.bccache.Bucket) -> None:
            with suppress(OSError):  # a full disk costs time, not the report
                super().dump_bytecode(bucket)

    folder = user_cache_folder() / "Templates"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        is_safe = _is_own(folder)
    except (OSError, RuntimeError):  # without a home, or not to be written
        return None
    return Cache(str(folder)) if is_safe else None


def _is_own(folder: Path) -> bool:
    """Return True if a folder belongs to this user alone; on Windows, which gives each user a folder of its own."""
    if os.name == "nt":
        return True
    status = folder.lstat()
    return folder.is_dir() and status.st_uid == os.getuid() and not status.st_mode & 0o022
