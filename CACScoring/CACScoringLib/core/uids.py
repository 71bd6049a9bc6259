"""DICOM UIDs, which identify a person, and their digests."""

from __future__ import annotations

import hashlib
import re

_UID = re.compile(r"(?=.{1,64}$)(?:0|[1-9]\d*)(?:\.(?:0|[1-9]\d*))*")


def is_uid(text: str) -> bool:
    """True if a text is a UID (DICOM PS3.5, 9.1)."""
    return _UID.fullmatch(text) is not None


def digest(uid: str) -> str:
    """Return a reproducible name for a UID: 16 hexadecimal digits."""
    return hashlib.sha256(uid.encode()).hexdigest()[:16]
