"""Where the files of the page are."""

from __future__ import annotations

from pathlib import Path

_LIBRARY = Path(__file__).resolve().parents[1]


def page_folder() -> Path:
    """Inside an installed package, or in the module's Resources beside the library."""
    packaged = _LIBRARY / "Resources" / "Review"
    return packaged if packaged.is_dir() else _LIBRARY.parent / "Resources" / "Review"
