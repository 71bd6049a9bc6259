"""Acquisition of a scan: how, when and of whom its scanner made it."""

from __future__ import annotations

import hashlib
import itertools
import re
import unicodedata
from dataclasses import asdict, dataclass, field
from typing import Any

from .files import resource_rows


def terms_of(kind: str) -> set[str]:
    """Return the terms of one kind in image_terms.csv."""
    return {row["term"] for row in resource_rows("image_terms.csv") if row["kind"] == kind}


_NEGATIONS, _OF_CONTRAST, _INJECTED, _ORAL = map(terms_of, ("negation", "contrast", "injected", "oral"))
"""Words for none, unknown or enteral, words beside them, and words for injected or enteral contrast, in values of
ContrastBolusAgent, without accents. Where they state no injected agent, the blood's HU decide."""

_NO_NAMES = terms_of("placeholder")
"""Words of placeholders for an ID or a name, without accents."""

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

    Fields of IDENTIFYING identify a person: `facts` omits them by default.

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
        patient_digest: Keyed digest (HMAC-SHA256) of patient ID and issuer (`pseudonym.with_pseudonym`).
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

    @property
    def identity(self) -> dict[str, str]:
        """Facts that tell patients apart, by field, in one spelling; placeholders are none."""
        family_name, given_name = f"{self.patient_name or ''}^".split("=")[0].split("^")[:2]
        facts = {
            "patient_id": (self.patient_id or "").strip(),
            "patient_id_issuer": (self.patient_id_issuer or "").strip(),
            "patient_name": " ".join(sorted(re.findall(r"[^\W_]+", _plain(f"{family_name} {given_name}")))),
        }
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
    def calcium_kvp(self) -> float | None:
        """Tube voltage whose thresholds hold: 120 for Siemens' calcium-aware kernels, such as Sa36, and tin filters."""
        # Booij et al. 2020, doi:10.1007/s00330-020-06709-9; at 130 HU, tin-filtered scans at 100 kVp score 35 for 42
        # at 120 kVp (medians of 78 patients; Apfaltrer et al. 2018), and no thresholds are published for them.
        is_like_120_kvp = self.has_tin_filter or re.match(r"Sa\d", self.kernel or "")
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
