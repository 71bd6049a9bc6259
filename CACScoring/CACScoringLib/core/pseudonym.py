"""Pseudonyms: keyed digests of patient and study, which join the results of a person without naming the person.

Names of files and folders that repeat the header's patient or study are replaced too.

Without the key nobody can make a digest of a name, to find or confirm it. Digests of different keys cannot be compared,
so each states its key.
"""

from __future__ import annotations

import hmac
import json
import os
import re
import secrets
import unicodedata
import zlib
from dataclasses import replace
from datetime import date
from pathlib import Path

from .acquisition import Acquisition
from .files import read_file, user_data_folder, write_once

FILE = "CAC_PATIENT_KEY"
"""Environment variable of the key file. Without it the key is in the user's folder, where it is made at first use."""

KEY_LENGTH = 32
"""Least length of a key in bytes, also compressed, which shortens repetitions."""

MIN_PART, MIN_ID = 3, 4
"""Letters from which a word of a name is found within other words, and characters from which an ID identifies."""

_UMLAUTS = {letter: f"{base}e" for letter, base in zip("äöüøæ", "aouoa", strict=True)} | {"å": "aa"}

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


def unnamed_scan(name: str, acquisition: Acquisition) -> str:
    """Return the name of a scan, or its pseudonym if the name states what the header keeps of patient or study."""
    if unnamed(name, acquisition) == name:
        return name
    return f"scan-{acquisition.study_digest[:8]}" if acquisition.study_digest else "scan"


def unnamed(text: str, acquisition: Acquisition) -> str:
    """Return a text of words and paths without the words that name the patient, the ID, the study date or the series.

    Examples:
        >>> unnamed("cac score /data/Mueller_Eva/ct", Acquisition("DICOM", patient_name="MÜLLER^EVA"))
        'cac score /data/scan/ct'
    """
    names = {form for word in re.split(r"[\W\d_]+", acquisition.patient_name or "") for form in _forms(word)}
    facts = (acquisition.patient_id, acquisition.study_date, acquisition.series_uid)
    long = {form for fact in facts for form in _forms(fact or "") if len(form) >= MIN_ID}
    long |= {name for name in names if len(name) >= MIN_PART}
    short = names - long - {""}

    def is_named(part: str) -> bool:
        words = {form for word in re.split(r"[\W\d_]+", part) for form in _forms(word)}
        return bool(short & words) or any(name in form for form in _forms(part) for name in long)

    return re.sub(r"[^\s'\"=,:{}/\\]+", lambda part: "scan" if is_named(part[0]) else part[0], text)


def _forms(text: str) -> set[str]:
    """Return the letters and digits of a text without accents, and with umlauts in two letters."""
    lower = unicodedata.normalize("NFC", text.casefold())
    texts = lower, "".join(_UMLAUTS.get(c, c) for c in lower)
    return {"".join(c for c in unicodedata.normalize("NFKD", form) if c.isalnum()) for form in texts}


def key_file() -> Path:
    """Return the place of the key."""
    return Path(os.environ.get(FILE) or user_data_folder() / "patient.key")


def key_fault() -> str:
    """Return why the key cannot be used; empty if it can."""
    try:
        _key()
    except (OSError, ValueError) as error:
        return getattr(error, "strerror", None) or str(error)
    return ""


def _key() -> bytes:
    """Return the key. Raises OSError; ValueError for a file that holds none."""
    path = key_file()
    # A missing file that the site names was lost: in its place another would join nothing with earlier results.
    if not os.environ.get(FILE):
        write_once(path, f"{secrets.token_hex(KEY_LENGTH)}\n".encode())
    key = read_file(path).strip()
    if min(len(key), len(zlib.compress(key))) < KEY_LENGTH:
        raise ValueError("it is too short or too simple; write 64 random hexadecimal digits into it")
    return key
