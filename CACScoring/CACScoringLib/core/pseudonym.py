"""Pseudonyms: keyed digests of patient and study, which join the results of a person without naming the person.

Without the key nobody can make a digest of a name, to find or confirm it. Digests of different keys cannot be compared,
so each states its key.
"""

from __future__ import annotations

import hmac
import json
import os
import secrets
from dataclasses import replace
from datetime import date
from pathlib import Path

from .acquisition import Acquisition
from .files import user_data_folder, write_once

FILE = "CAC_PATIENT_KEY"
"""Environment variable of the key file. Without it the key is in the user's folder, where it is made at first use."""

KEY_LENGTH = 32
"""Least length of a key in bytes."""

_DAYS = 2**30
"""Range of the shift of a patient's study dates; shifted days stay below 2³¹."""


def with_pseudonym(acquisition: Acquisition) -> Acquisition:
    """Add the pseudonym of patient and study and the digests of `Acquisition.identity`.

    Those of unknown facts are missing, and all if the key cannot be used.
    """
    if not (identity := acquisition.identity):
        return acquisition
    try:
        key = _key()
    except (OSError, ValueError):
        return acquisition

    def digest(*parts: str) -> str:
        return hmac.new(key, json.dumps(parts).encode(), "sha256").hexdigest()

    digests = {name: digest(name, text) for name, text in identity.items()}
    acquisition = replace(acquisition, identity_digests=digests, patient_key=digest("key")[:16])
    if (patient_id := identity.get("patient_id")) is None:
        return acquisition
    person = identity.get("patient_id_issuer", ""), patient_id
    pseudonym = replace(acquisition, patient_digest=digest("patient", *person))
    if (day := ordinal_of(acquisition.study_date)) is None:
        return pseudonym
    shift = int(digest("shift", *person), 16) % _DAYS
    return replace(pseudonym, study_digest=digest("study", *person, str(day)), shifted_day=day + shift)


def ordinal_of(study_date: str | None) -> int | None:
    """Return the day of a study as a number; None if the date is unknown or none."""
    try:
        return date.fromisoformat(study_date or "").toordinal()
    except ValueError:
        return None


def key_file() -> Path:
    """Return the place of the key."""
    return Path(os.environ.get(FILE) or user_data_folder() / "patient.key")


def _key() -> bytes:
    """Return the key. Raises OSError; ValueError for a file that holds none."""
    path = key_file()
    # A missing file that the site names was lost: in its place another would join nothing with earlier results.
    if not os.environ.get(FILE):
        write_once(path, f"{secrets.token_hex(KEY_LENGTH)}\n".encode())
    key = path.read_bytes().strip()
    if len(key) < KEY_LENGTH:
        raise ValueError("it is too short for a key")
    return key
