"""Scan on disk, as all lists of scans have it."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class ScanSource:
    """A scan on disk.

    Attributes:
        name: Readable name, not necessarily unique.
        patient: Patient ID; "" if unknown.
        ct: Image file or DICOM folder.
        series: Number or UID of the DICOM series, as in `read_ct`; None for the only one.
        heart: File of the heart mask.
        lesions: File of a reader's lesions.
        pericardium: File of the mask of all within the pericardium.
        truth: The truth.json of a digital patient.
        session: Session.
        group: Group.
        key: Unique key, independent of the list's location: path below the folder or in the table, and series.
        fault: Reason why it cannot be read, if known in advance.
    """

    name: str
    patient: str
    ct: Path
    series: str | None = None
    heart: Path | None = None
    lesions: Path | None = None
    pericardium: Path | None = None
    truth: Path | None = None
    session: str = ""
    group: str = ""
    key: str = ""
    fault: str | None = None

    @property
    def label(self) -> str:
        """Anonymous label in tables and reports."""
        return scan_digest(self.key)


def scan_digest(key: str) -> str:
    """Return the anonymous label of a scan in `cohort.json`. key: `ScanSource.key`, which may identify a person."""
    return hashlib.sha256(json.dumps([key]).encode()).hexdigest()[:32]
