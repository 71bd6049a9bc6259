"""Describe a scan to train on: its files and the truth about its calcium."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from CACScoringLib.core.errors import DataError
from CACScoringLib.core.files import read_json
from CACScoringLib.models import preprocessing
from CACScoringLib.scans.source import ScanSource

from .scan_identity import content_hash

CACHE_VERSION = 3
KINDS = ("clean", "distractor", "coronary")
"""Kinds of scans: without calcium; with non-coronary calcium only; with coronary calcium."""


@dataclass(frozen=True, kw_only=True)
class TrainingScan(ScanSource):
    """Scan to train on. Its truth is a file with the slices' labels, in the format of digital patients.

    Attributes:
        heart: Mask of the heart.
        kind: One of KINDS; "clean" also if its calcium is unknown.
        calcium_map: True calcium map.
        heart_known: True if the heart was outlined or simulated, and not only proposed.
        use: "training", "validation" or "test" if a project stores it.
        annotators: Annotators of a real scan's labels.
        automatic: Folder of the scan's automatic score.
    """

    heart: Path
    kind: str = "clean"
    calcium_map: Path | None = None
    heart_known: bool = True
    use: str = ""
    annotators: tuple[str, ...] = ()
    automatic: Path | None = None

    def shows_calcium(self) -> bool:
        """True if coronary calcium is visible in any slice, by its truth.

        Raises DataError without a truth, or if unlabelled slices leave it open.
        """
        labels = [] if self.truth is None else [label["visible"] for label in read_truth(self.truth)["slices"]]
        if not any(labels) and (self.truth is None or None in labels):
            raise DataError(f"Nothing is known of the calcium in {self.ct}. Label its slices, or leave it out.")
        return any(labels)

    def fingerprint(self) -> str:
        """Return a hash that changes with the scan's files and with their preparation."""
        parts: list[object] = [CACHE_VERSION, preprocessing.VERSION, self.series]
        for path in (self.ct, self.heart, self.truth, self.calcium_map, self.automatic):
            if path is not None:
                files = [path, *sorted(path.rglob("*"))] if path.is_dir() else [path]
                for file in files:
                    stat = file.stat()
                    # A folder's size and time also change with hidden files.
                    parts += [str(file.resolve())] + ([] if file.is_dir() else [stat.st_size, stat.st_mtime_ns])
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:24]

    def content_hash(self) -> str:
        """Return the SHA-256 of what is known of the scan, or of the CT where nothing is."""
        return content_hash(self.truth or self.ct, self.series)


def read_truth(path: Path) -> dict[str, Any]:
    """Read a truth.json. Raises DataError if it is not one."""
    try:
        truth = read_json(path)
        if not all("k" in s and s["visible"] in (True, False, None) for s in truth["slices"]):
            raise KeyError("k, visible")
        truth["patient"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{path} is not the truth of a scan ({type(error).__name__}: {error}). Make the scan again."
        ) from error
    return truth


def kind_of(truth: dict[str, Any]) -> str:
    """Return the kind of a scan, one of KINDS, by its truth."""
    if truth.get("mass_mg") or any(s["visible"] for s in truth["slices"]):
        return "coronary"
    return "distractor" if truth.get("distractors") else "clean"


def scan_in(truth_path: Path) -> TrainingScan:
    """Return the scan with files beside a truth.json. Raises DataError if the heart's mask is missing."""
    folder = truth_path.parent
    truth = read_truth(truth_path)
    heart, calcium = folder / "heart.nii.gz", folder / "calcium_map.nii.gz"
    if not heart.is_file():
        raise DataError(f"{folder} has no heart.nii.gz. Every scan to train on needs its heart mask.")
    return TrainingScan(
        name=folder.name,
        patient=str(truth["patient"]),
        ct=folder / "ct.nii.gz",
        heart=heart,
        kind=kind_of(truth),
        truth=truth_path,
        calcium_map=calcium if calcium.is_file() else None,
        heart_known=truth.get("heart_source") != "lungs",
    )
