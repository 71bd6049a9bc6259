"""Files that come with the library: the artery atlas, models."""

from __future__ import annotations

from pathlib import Path

_LIBRARY = Path(__file__).resolve().parents[1]


def resource_folder(name: str) -> Path:
    """Where a kind of file lies: inside an installed package, or in the module's Resources beside the library."""
    packaged = _LIBRARY / "Resources" / name
    return packaged if packaged.is_dir() else _LIBRARY.parent / "Resources" / name
