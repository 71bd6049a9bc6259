"""Folders that are laid out as BIDS: sub-LABEL/[ses-LABEL/]ct/sub-LABEL_…_ct.nii.gz.

The Brain Imaging Data Structure has no computed tomography yet; its extension proposal 24 and the tools that write CT
use the suffix _ct. A tree is known by its folders sub-…, whether or not it has a dataset_description.json.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import PurePath

from ..io.reading import stem

NOT_RAW = ("derivatives", "sourcedata", "code", "stimuli", "phenotype")
"""Folders beside those of the subjects: what was made of the scans, or where they came from."""

DATATYPES = ("anat", "beh", "dwi", "eeg", "fmap", "func", "ieeg", "meg", "micr", "motion", "mrs", "nirs", "perf", "pet")
"""Folders beside `ct`, of other modalities."""

_CT = "ct"
_SUBJECT, _SESSION = re.compile(r"sub-([A-Za-z0-9+]+)"), re.compile(r"ses-([A-Za-z0-9+]+)")
_SUFFIX = f"_{_CT}"


def raw_folders(names: Sequence[str], below: PurePath) -> list[str]:
    """Those among the folders of a folder that may hold scans: where there are subjects, without NOT_RAW, and where a
    subject has CTs, without DATATYPES. below: the folder, as seen from the root of the search."""
    left_out = NOT_RAW if any(_SUBJECT.fullmatch(name) for name in names) else ()
    if _CT in names and subject_and_session(below)[0]:
        left_out = DATATYPES
    return [name for name in names if name not in left_out]


def scans_among(images: Sequence[PurePath], below: PurePath) -> list[PurePath]:
    """The CTs among the images of a folder: in a subject's folder where some end in _ct, these, and no masks.

    below: the folder, as seen from the root of the search.
    """
    cts = [path for path in images if stem(path).endswith(_SUFFIX)] if subject_and_session(below)[0] else []
    return cts or list(images)


def subject_and_session(below: PurePath) -> tuple[str, str]:
    """The labels of subject and session in the folders of a path; empty where there are none."""
    subject, rest = _first(_SUBJECT, below.parts)
    session, _ = _first(_SESSION, rest[:1])
    return subject, session


def bids_name(path: PurePath) -> str | None:
    """What a scan is called, without its suffix; None for a file that is named otherwise."""
    name = stem(path)
    return name.removesuffix(_SUFFIX) if name.endswith(_SUFFIX) and _SUBJECT.match(name) else None


def _first(pattern: re.Pattern, parts: Iterable[str]) -> tuple[str, tuple[str, ...]]:
    parts = tuple(parts)
    for at, part in enumerate(parts):
        if match := pattern.fullmatch(part):
            return match[1], parts[at + 1 :]
    return "", ()
