"""Formats of references, detected from the content of a file or folder."""

from __future__ import annotations

from pathlib import Path

from CACScoringLib.core.text import abbreviated_list

from .coca import GATED, NONGATED
from .label_maps import CAC_LABELS, NAMED_LABELS, ORCASCORE
from .reference import BadReferenceError, ProgressCallback, Reference
from .tables import TABLE

FORMATS = (GATED, ORCASCORE, CAC_LABELS, NAMED_LABELS, NONGATED, TABLE)


def read_reference(source: Path, scans: Path | None = None, progress: ProgressCallback | None = None) -> Reference:
    """Read a reference of any known format.

    Args:
        source: File or folder of the reference.
        scans: Folder of the scans, for references that name them by an id only.
        progress: Callback for the number of items read.

    Raises:
        BadReferenceError: The format is unknown or ambiguous, or no scan can be used.
        TableError: The table cannot be read.
    """
    if not source.exists():
        raise BadReferenceError(f"There is no reference {source}. Give a file or folder with reference scores.")
    fitting = [form for form in FORMATS if form.fits(source)]
    if not fitting:
        titles = "; ".join(form.title for form in FORMATS)
        raise BadReferenceError(f"{source} holds no reference of a known format ({titles}).")
    if len(fitting) > 1:
        titles = " and ".join(form.title for form in fitting)
        raise BadReferenceError(f"{source} holds {titles}. Name the folder of one of them.")
    (form,) = fitting
    if form.holds_scans and scans is not None:
        raise BadReferenceError(f"The scans of {form.title} lie in its own folder. Leave --scans out.")
    reference = form.read(source, scans, progress)
    if not reference.scans:
        why = abbreviated_list([f"{name}: {reason}" for name, reason in reference.refused]) or "it is empty"
        raise BadReferenceError(f"No scan of {source} ({reference.title}) can be compared. {why}")
    return reference
