"""The name of a reader, before anything is made that states it."""

from __future__ import annotations

from ..core.ct import CTError

LONGEST_NAME = 64
"""Characters of a person's name (PS3.5 6.2, VR PN)."""


def check_reader(name: str | None) -> None:
    """Raises CTError when a reader's name is none that DICOM can hold."""
    if name is None:
        return
    if not name.strip() or len(name) > LONGEST_NAME or not name.isprintable() or set("\\=") & set(name):
        raise CTError(
            f"{name!r} is no DICOM person name. Write Family^Given, with at most {LONGEST_NAME} characters and "
            "without \\ and =."
        )
