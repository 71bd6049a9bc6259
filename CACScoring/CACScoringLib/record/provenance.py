"""Provenance of a result: program, machine, command, hashes of all that it follows from, and who reviewed it."""

from __future__ import annotations

import hashlib
import json
import platform
import re
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from ..core.acquisition import PSEUDONYM
from ..core.decoding import WHEN_SET
from ..core.files import file_sha256
from ..core.version import VERSION, commit, core_count, package_versions, processor_name

COLUMNS = (
    *("cac_version", "cac_commit", "created", "machine", "input_sha256", "models_sha256", "settings_sha256", "command"),
    *("reader", "confirmed"),
)
"""Columns of provenance and confirmation in every table."""

_FOLDERS = re.compile(r"[^\s'\"=,:{}]*[/\\]")


@dataclass(frozen=True)
class Provenance:
    """Origin of a result.

    Attributes:
        version: Version of CAC.
        commit: Commit of its source code (`core.version.commit`).
        created: Local date and time with the zone's offset, ISO 8601.
        machine: Kind of computer: system, processors, Python and where the networks ran.
        command: Command as run, quoted for a shell; without the folders of paths unless the result identifies.
        inputs_sha256: SHA-256 of the given files beside the CT, by role; that of the CT is `input.voxels_sha256`.
        cards_sha256: SHA-256 of the models' cards, each of which holds that of its weights, by network.
        settings: Settings of the run; of paths the names alone.
        settings_sha256: SHA-256 of `settings` as JSON with sorted keys and no spaces.
        packages: Versions of the loaded packages that scores depend on (`core.version.PACKAGES`).
        facts_sha256: SHA-256 of the file of facts beside the result; empty without one.
        code_sha256: SHA-256 of the code that measured them (`core.version.code_sha256`).
    """

    version: str
    commit: str
    created: str
    machine: str
    command: str
    inputs_sha256: dict[str, str] = field(default_factory=dict)
    cards_sha256: dict[str, str] = field(default_factory=dict)
    settings: dict[str, object] = field(default_factory=dict)
    settings_sha256: str = ""
    packages: dict[str, str] = field(default_factory=dict)
    facts_sha256: str = field(default="", metadata=WHEN_SET)
    code_sha256: str = field(default="", metadata=WHEN_SET)

    def stated(self, identify: bool) -> Provenance:
        """Return the provenance as results state it. identify: Keep the folders of paths, which often name patients."""
        return self if identify else replace(self, command=_FOLDERS.sub("…/", self.command))

    @property
    def models_sha256(self) -> str:
        """SHA-256 of all models: of `cards_sha256` as JSON with sorted keys and no spaces; empty without models."""
        return _sha256(self.cards_sha256) if self.cards_sha256 else ""

    def in_words(self, identify: bool) -> str:
        """Return the provenance in one line. identify: As in `stated`."""
        hashes = {"settings": self.settings_sha256, "models": self.models_sha256}
        stated = ", ".join(f"{name} {sha256}" for name, sha256 in hashes.items() if sha256)
        return (
            f"Made {self.created} by CAC {self.version}, commit {self.commit}, on {self.machine}"
            f"{''.join(f', {name} {version}' for name, version in self.packages.items())}, with: "
            f"{self.stated(identify).command}.{stated and f' SHA-256 of {stated}.'}"
        )

    def cells(
        self, input_sha256: str | None, reader: str | None = None, confirmed: str | None = None
    ) -> dict[str, str | None]:
        """Return the cells of COLUMNS. input_sha256: Hash of the CT's voxels. confirmed: Time of confirmation."""
        hashes = input_sha256, self.models_sha256, self.settings_sha256
        values = self.version, self.commit, self.created, self.machine, *hashes, self.command, reader, confirmed
        return dict(zip(COLUMNS, values, strict=True))


def now() -> str:
    """Return local date and time with the zone's offset, ISO 8601."""
    return datetime.now().astimezone().isoformat(timespec="seconds")


def provenance_of(
    settings: Mapping[str, Any] | None = None,
    inputs: Mapping[str, Path | None] | None = None,
    cards_sha256: Mapping[str, str] | None = None,
    device: str = "",
) -> Provenance:
    """Return the provenance of what this process makes now.

    Args:
        settings: Settings of the run; None if it has none.
        inputs: Given files by role; folders and None are left out.
        cards_sha256: As in `Provenance`.
        device: Where the networks ran; empty without networks.
    """
    plain = plain_settings(settings or {})
    files = {role: path for role, path in (inputs or {}).items() if path is not None and path.is_file()}
    return Provenance(
        VERSION,
        commit(),
        now(),
        f"{platform.system()} {platform.machine()}, {processor_name()}, {core_count()} cores, Python "
        + platform.python_version()
        + (f", networks on {device.upper()}" if device else ""),
        # Names of files that are not UTF-8 have surrogates, which no text file can hold.
        shlex.join(command_as_run()).encode("utf-8", "backslashreplace").decode(),
        {role: file_sha256(path) for role, path in files.items()},
        dict(cards_sha256 or {}),
        plain,
        _sha256(plain) if settings is not None else "",
        package_versions(),
    )


_command: list[str] = []


def remember_command(words: Sequence[str]) -> None:
    """Keep a command for `command_as_run`, which otherwise takes the words that Python was started with."""
    _command[:] = words


def command_as_run() -> list[str]:
    """Return the words of this process's command."""
    return _command or [Path(sys.argv[0]).name, *sys.argv[1:]]


def plain_settings(settings: Mapping[str, Any]) -> dict[str, object]:
    """Return settings as JSON has them; of paths the names alone."""
    return json.loads(json.dumps(settings, default=lambda value: getattr(value, "name", str(value))))


def _sha256(content: Mapping[str, object]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


JOURNAL = ("journal", "entries")
PATIENT_AND_JOURNAL = (*PSEUDONYM, *JOURNAL)
"""Columns that show whose a row is, and by how many entries of which journal."""


@dataclass(frozen=True)
class Confirmation:
    """Confirmation of a method's score by a reader; an edit of a confirmed score confirms it anew.

    Attributes:
        reader: Name or ID of the reader.
        time: Local date and time with the zone's offset, ISO 8601.
        sites: Number of lesions that counted, in the arteries and outside them.
        not_looked_at: IDs of those never shown to the reader, which stay automatic; None if unknown, as of labels from
            a file.
        candidates: Number of candidates at the start of the reading (`ScanReview.candidates`), rejected ones included.
        candidates_unseen: Number of these that were never shown to the reader.
        outside: Number of lesions outside the arteries.
        outside_unseen: Number of these that were never shown to the reader.
    """

    reader: str
    time: str
    sites: int
    not_looked_at: tuple[int, ...] | None = None
    candidates: int = 0
    candidates_unseen: int = 0
    outside: int = 0
    outside_unseen: int = 0

    @property
    def name(self) -> str:
        """The reader as texts name him: a DICOM person name without its carets."""
        return self.reader.replace("^", " ")

    @property
    def part(self) -> str:
        """Part that was looked at, such as "12 of 85 candidates looked at"; empty if all of it, or unknown."""
        count = self.candidates - self.candidates_unseen
        return f"{count} of {self.candidates} candidates looked at" if self.candidates_unseen else ""

    @property
    def in_words(self) -> str:
        """Confirmation in a sentence."""
        part = self.part or ("" if self.not_looked_at is None else f"all {self.candidates} candidates looked at")
        words = f"Confirmed by {self.name}, {self.time}{part and f', {part}'}."
        count = self.outside - self.outside_unseen
        return f"{words} Outside the arteries: {count} of {self.outside} looked at." if self.outside else words


@dataclass(frozen=True)
class ReaderScore:
    """A reader's own result before a consensus.

    Attributes:
        reader: Name or ID of the reader.
        time: UTC of the last change, ISO 8601.
        agatston: Total Agatston score.
        sites: Site by lesion of the consensus, "rejected" or "none" if it counted nowhere.
    """

    reader: str
    time: str
    agatston: float
    sites: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class JournalRecord:
    """The journal of a review as exported: its file, and the number of its entries then."""

    file: str
    entries: int

    @property
    def cells(self) -> dict[str, str | int]:
        """Cells of JOURNAL."""
        return dict(zip(JOURNAL, (self.file, self.entries), strict=True))


@dataclass(frozen=True)
class ReviewRecord:
    """A review.

    Attributes:
        program: Program of the review.
        methods: True for each method that a reader confirmed.
        slices_off: Slices of the calcium map that the reader switched off.
        slices_to_decompose: Slices that the reader switched on, though they were never decomposed.
        confirmations: Confirmation by method.
        readings: Results of the readers before a consensus.
        journal: Journal of the review in the browser.
        run: Provenance of the run that was reviewed.
    """

    program: str
    methods: dict[str, bool]
    slices_off: tuple[int, ...] = ()
    slices_to_decompose: tuple[int, ...] = ()
    confirmations: dict[str, Confirmation] = field(default_factory=dict)
    readings: tuple[ReaderScore, ...] = ()
    journal: JournalRecord | None = None
    run: Provenance | None = None

    @property
    def confirmation(self) -> Confirmation | None:
        """Confirmation of the clinical score."""
        return self.confirmations.get("threshold")

    @property
    def in_words(self) -> str:
        """Confirmation, readings and journal in one line."""
        parts = [f"{r.reader} had {r.agatston:.1f} ({r.time})" for r in self.readings]
        before = f"Before the consensus, {', '.join(parts)}." if parts else ""
        mark = self.journal
        journal = f"Journal {mark.file}, {mark.entries} entries." if mark else ""
        return " ".join(filter(None, (self.confirmation.in_words if self.confirmation else "", before, journal)))
