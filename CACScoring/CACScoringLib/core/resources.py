"""Files that come with the library: the artery atlas, models; and where a user's own are."""

from __future__ import annotations

import os
import sys
from pathlib import Path


def resource_folder(name: str) -> Path:
    """Folder of the files of one kind ("Models", "Atlas") that come with the library."""
    return Path(__file__).resolve().parents[1] / "Resources" / name


def user_data_folder() -> Path:
    """The system's place for what CAC keeps for a user."""
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData" / "Local"))
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Application Support"
    else:
        base = Path(os.environ.get("XDG_DATA_HOME", Path.home() / ".local" / "share"))
    return base / "CAC"
