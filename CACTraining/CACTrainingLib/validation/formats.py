"""Formats of references, detected from the content of a file or folder."""

from __future__ import annotations

from pathlib import Path

from CACScoringLib.core.text import abbreviated_list

from .coca import GATED, NONGATED
from .label_maps import ORCASCORE, OWN
from .reference import BadReferenceError, Counted, Reference
from .tables import TABLE

FORMATS = (GATED, ORCASCORE, OWN, NONGATED, TABLE)


def read_reference(source: Path, scans: Path | None = None, progress: Counted | None = None) -> Reference:
    """Read a reference of any known format.

    Args:
        source: Its file or folder.
        scans: Folder of the scans, for references that name them by an id only.
        progress: Takes how much is read of how much.

    Raises:
        BadReferenceError: It is of no known format or of several, or no scan of it can be used.
        TableError: It is a table that cannot be read.
    """
    if not source.exists():
        raise BadReferenceError(f"There is no reference {source}. Give a file or folder with reference scores.")
    fitting = [one for one in FORMATS if one.fits(source)]
    if not fitting:
        known = "; ".join(one.title for one in FORMATS)
        raise BadReferenceError(f"{source} holds no reference of a known format ({known}).")
    if len(fitting) > 1:
        titles = " and ".join(one.title for one in fitting)
        raise BadReferenceError(f"{source} holds {titles}. Name the folder of one of them.")
    (form,) = fitting
    if form.holds_scans and scans is not None:
        raise BadReferenceError(f"The scans of {form.title} lie in its own folder. Leave --scans out.")
    reference = form.read(source, scans, progress)
    if not reference.scans:
        why = abbreviated_list([f"{name}: {reason}" for name, reason in reference.refused]) or "it is empty"
        raise BadReferenceError(f"No scan of {source} ({reference.title}) can be compared. {why}")
    return reference
