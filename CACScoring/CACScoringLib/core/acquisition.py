"""Acquisition of a scan: how, when and of whom its scanner made it, and pseudonyms of that person and study."""

from __future__ import annotations

import hashlib
import hmac
import itertools
import json
import os
import re
import secrets
import unicodedata
import zlib
from dataclasses import asdict, dataclass, field, replace
from datetime import date
from pathlib import Path
from typing import Any

from .dates import without_dates
from .errors import CTError
from .files import read_file, resource_rows, user_data_folder, write_once
from .header_ranges import FIELD_RANGES


def terms_of(kind: str) -> set[str]:
    """Return the terms of one kind in image_terms.csv."""
    return {row["term"] for row in resource_rows("image_terms.csv") if row["kind"] == kind}


_NEGATIONS, _OF_CONTRAST, _INJECTED, _ORAL = map(terms_of, ("negation", "contrast", "injected", "oral"))
"""Words for none, unknown or enteral, words beside them, and words for injected or enteral contrast, in values of
ContrastBolusAgent, without accents. Where they state no injected agent, the blood's HU decide."""

_NO_NAMES = terms_of("placeholder")
"""Words of placeholders for an ID or a name, without accents."""

_KERNELS = resource_rows("kernels.csv")
"""Kernels that change HU, by manufacturer: pattern of their names, what their values are those of, and the source."""

AS_120_KVP = "120 kVp"
"""Values of a kernel whose images look as at 120 kVp, whatever their tube voltage."""

_MIX = re.compile(r"(?<![A-Z])[FM][_ ]?0[.,]\d+\b", re.IGNORECASE)
"""Weight of one tube voltage in Siemens' dual-energy images mixed of both ("F_0.5", "M_0.3"), as descriptions state it.
The mixture is made to look as at 120 kVp (Yu et al. 2009, doi:10.1118/1.3077921)."""

IDENTIFYING = ("patient_name", "patient_id", "patient_id_issuer", "patient_birth_date", "study_date", "series_uid")
"""Fields that identify a person."""

_UNLISTED = ("patient_birth_date", "identity_digests")
"""Fields that serve to compare patients alone."""

PSEUDONYM = ("patient_digest", "study_digest", "shifted_day", "patient_key")
"""Fields that tell persons and their studies apart without identifying them."""


def agent_named(text: str | None) -> str | None:
    """Return the contrast agent that a text names; None if there is none or it says so in any words."""
    plain = unicodedata.normalize("NFC", _plain(text))
    sequence = re.findall(r"[^\W\d_]+|\d+", re.sub(r"\b([wn])\s*/\s*([oa])\b", r"\1\2", plain))
    words = set(sequence)
    is_none = not words or (bool(words & _NEGATIONS) and words <= _NEGATIONS | _OF_CONTRAST)
    if words & _ORAL and words & _INJECTED:
        pairs = itertools.pairwise(sequence)
        is_none &= any(first in _NEGATIONS - _ORAL and second in _INJECTED for first, second in pairs)
    return None if is_none or not text else text.strip()


def is_placeholder(text: str) -> bool:
    """True for an ID or a name that stands for none, such as ANONYMOUS, N/A, 000000 or XXX."""
    words = re.findall(r"[^\W_]+", _plain(text))
    return "".join(words) in _NO_NAMES or all(w in _NO_NAMES or re.fullmatch("0+|9{3,}|x{2,}", w) for w in words)


def _plain(text: str | None) -> str:
    """Return a text in small letters without accents."""
    return "".join(c for c in unicodedata.normalize("NFKD", (text or "").casefold()) if not unicodedata.combining(c))


@dataclass(frozen=True)
class Acquisition:
    """Acquisition parameters of a scan, and who was scanned. None means unknown.

    Fields of IDENTIFYING identify a person: `facts` omits them by default. Numbers out of FIELD_RANGES raise CTError.

    Attributes:
        file_format: Source of the scan, such as "DICOM" or "memory".
        kvp: Tube voltage, kV.
        slice_thickness_mm: Thickness of a slice, which may differ from the distance between slices.
        exposure_mas: Tube current–time product, mAs.
        filter_material: Material of the X-ray filter, such as "tin".
        patient_height_m: Height of the patient, m.
        patient_weight_kg: Weight of the patient, kg.
        mass_factor_patient: mg/cm³ of hydroxyapatite per HU in this scan, as stated by its scanner (DICOM 0018,9351).
        mass_factor_small: The scanner's factor for small patients (DICOM 0018,9352).
        mass_factor_medium: The factor for medium patients.
        mass_factor_large: The factor for large patients.
        patient_digest: Keyed digest (HMAC-SHA256) of patient ID and issuer (`with_pseudonym`).
        study_digest: Digest of these and the study date.
        shifted_day: Number of the study's day, moved by a number of days that follows from patient and key, so that
            days of one patient keep their order and distance.
        patient_key: Beginning of a digest of the key, to tell by which one the digests were made.
        identity_digests: Digest of each fact of `identity`.
    """

    file_format: str
    kvp: float | None = None
    kernel: str | None = None
    contrast_agent: str | None = None
    gating: str | None = None
    manufacturer: str | None = None
    scanner_model: str | None = None
    slice_thickness_mm: float | None = None
    exposure_mas: float | None = None
    series_number: int | None = None
    series_description: str | None = None
    series_uid: str | None = None
    study_date: str | None = None
    patient_sex: str | None = None
    patient_age_years: int | None = None
    patient_id: str | None = None
    patient_id_issuer: str | None = None
    patient_name: str | None = None
    patient_birth_date: str | None = None
    mass_factor_patient: float | None = None
    mass_factor_small: float | None = None
    mass_factor_medium: float | None = None
    mass_factor_large: float | None = None
    filter_material: str | None = None
    patient_height_m: float | None = None
    patient_weight_kg: float | None = None
    patient_digest: str | None = None
    study_digest: str | None = None
    shifted_day: int | None = None
    patient_key: str | None = None
    identity_digests: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, allowed in FIELD_RANGES.items():
            value = getattr(self, name)
            if value is not None and not allowed.holds(value):
                raise CTError(f"The {allowed.name} ({name}) is {value:g}. Give {allowed}, or leave it out.")

    @property
    def identity(self) -> dict[str, str]:
        """Facts that tell patients apart, by field, in one spelling.

        Placeholders are none, nor is a name that repeats the ID, as a code in de-identified scans does.
        """
        alphabetic = (self.patient_name or "").split("=")[0]
        family_name, given_name = f"{alphabetic}^".split("^")[:2]
        facts = {
            "patient_id": (self.patient_id or "").strip(),
            "patient_id_issuer": (self.patient_id_issuer or "").strip(),
            "patient_name": " ".join(sorted(re.findall(r"[^\W_]+", _plain(f"{family_name} {given_name}")))),
        }
        if facts["patient_name"] == " ".join(sorted(re.findall(r"[^\W_]+", _plain(facts["patient_id"])))):
            facts["patient_name"] = ""
        facts = {name: text for name, text in facts.items() if not is_placeholder(text)}
        birth_date = self.patient_birth_date or ""
        return facts | ({"patient_birth_date": birth_date} if birth_date > "1901" else {})

    @property
    def series_sha256(self) -> str | None:
        """SHA-256 of the series UID, which does not identify a person; None without a series."""
        return None if self.series_uid is None else hashlib.sha256(self.series_uid.encode()).hexdigest()

    @property
    def has_tin_filter(self) -> bool:
        """True if tin hardened the beam, alone or with other materials."""
        return bool({"TIN", "SN"} & set((self.filter_material or "").upper().split()))

    @property
    def kernel_values(self) -> str | None:
        """Quantity that the images show if their kernel changes HU, such as "relative electron density"; else None."""
        maker, kernel = (self.manufacturer or "").upper(), (self.kernel or "").upper().split()
        rows = (row for row in _KERNELS if row["manufacturer"] in (maker or row["manufacturer"]))
        return next((row["values"] for row in rows if kernel and re.fullmatch(row["kernel"], kernel[0])), None)

    @property
    def energy_mix(self) -> str | None:
        """Weight that the description of a mixture of two tube voltages states, such as "F_0.5"; None of others."""
        match = _MIX.search(self.series_description or "")
        return match[0] if match else None

    @property
    def calcium_kvp(self) -> float | None:
        """Tube voltage whose thresholds hold: 120 for tin filters, mixed energies, and kernels such as Sa36."""
        # At 130 HU, tin-filtered scans at 100 kVp score 35 for 42 at 120 kVp (medians of 78 patients; Apfaltrer et al.
        # 2018), and no thresholds are published for them.
        is_like_120_kvp = self.has_tin_filter or self.energy_mix or self.kernel_values == AS_120_KVP
        return 120.0 if self.kvp and is_like_120_kvp else self.kvp

    def facts(self, identify: bool = False) -> dict[str, str | float | None]:
        """Return the facts for tables by name; those that identify a person only with `identify`."""
        omitted = _UNLISTED if identify else (*_UNLISTED, *IDENTIFYING)
        return {name: value for name, value in asdict(self).items() if name not in omitted}

    @property
    def pseudonym(self) -> dict[str, Any]:
        """Fields of PSEUDONYM by name."""
        return {name: getattr(self, name) for name in PSEUDONYM}

    @property
    def identifies(self) -> bool:
        """True if a fact identifies a person."""
        return any(getattr(self, name) is not None for name in IDENTIFYING)


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


def unnamed(text: str, acquisition: Acquisition, every_date: bool = False, of_device: bool = False) -> str:
    """Return a text of words and paths without those that state patient, ID, birth date, study date or series.

    Args:
        text: The text.
        acquisition: Whose facts are removed; the two dates in any usual form.
        every_date: Remove every date with a year of four digits, as from texts that people type.
        of_device: Keep parts of words that are letters of the name by chance, as in the kernel B35f of a patient B.

    Examples:
        >>> unnamed("cac score /data/Mueller_Eva/ct", Acquisition("DICOM", patient_name="MÜLLER^EVA"))
        'cac score /data/scan/ct'
    """
    text = _undated(text, acquisition, every_date)
    names = {form for word in re.split(r"[\W\d_]+", acquisition.patient_name or "") for form in _forms(word)}
    dates = (acquisition.patient_birth_date, acquisition.study_date)
    facts = (acquisition.patient_id, acquisition.series_uid, *dates)
    long = {form for fact in facts for form in _forms(fact or "") if len(form) >= MIN_ID}
    long |= {name for name in names if len(name) >= MIN_PART}
    short = names - long - {""}

    def is_named(part: str) -> bool:
        words = {form for word in re.split(r"[\W\d_]+", part) for form in _forms(word)}
        if of_device:
            return bool(long & {*words, *_forms(part)})
        return bool(short & words) or any(name in form for form in _forms(part) for name in long)

    return re.sub(r"[^\s'\"=,:{}/\\]+", lambda part: "scan" if is_named(part[0]) else part[0], text)


def unnamed_message(message: str, acquisition: Acquisition) -> str:
    """Return a message of this program without dates, IDs, and words with digits, underscores or dots of `unnamed`.

    Plain words of the message stay, which may hold letters of a name by chance ("heart" of Mrs Hart).
    """

    def without_names(part: re.Match[str]) -> str:
        is_file = re.search(r"[\d_/\\]|\w\.\w", part[0]) is not None
        return unnamed(part[0], acquisition) if is_file else part[0]

    return re.sub(r"[^\s(),;]+", without_names, _undated(message, acquisition, True))


def _undated(text: str, acquisition: Acquisition, every: bool) -> str:
    days = map(ordinal_of, (acquisition.patient_birth_date, acquisition.study_date))
    return without_dates(text, {date.fromordinal(day) for day in days if day}, every)


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
