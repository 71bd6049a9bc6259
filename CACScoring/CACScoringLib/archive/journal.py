"""What a watch knows of every series, on the disk before anything is done on the strength of it.

SQLite commits wholly or not at all, also where the process or the machine stops in between.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ..core.output import OutputError
from ..core.uids import digest
from .series import FoundSeries

SCHEMA = "cac-watch/1"

ARRIVING, SCORED, DONE, PRESENT, SKIPPED, GROWN, FAILED = (
    "arriving",
    "scored",
    "done",
    "present",
    "skipped",
    "grown",
    "failed",
)
STATES = {
    ARRIVING: "waits for the last of its images, or to be scored",
    SCORED: "scored; its results are not yet all in the archive",
    DONE: "its results are in the archive",
    PRESENT: "the archive had results of it already, so it was not scored",
    SKIPPED: "is no CT volume, or of another slice thickness",
    GROWN: "more images arrived after it was scored",
    FAILED: "could not be scored, or its results could not be stored",
}
_OPEN = (ARRIVING, SCORED)

_TABLES = """
CREATE TABLE facts (name TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;
CREATE TABLE series (
    number INTEGER PRIMARY KEY,
    digest TEXT NOT NULL UNIQUE,
    study_uid TEXT,
    series_uid TEXT,
    images INTEGER NOT NULL,
    since REAL NOT NULL,
    state TEXT NOT NULL,
    failures INTEGER NOT NULL DEFAULT 0,
    due REAL NOT NULL DEFAULT 0,
    objects INTEGER,
    reason TEXT
) STRICT;
"""


@dataclass(frozen=True, repr=False)
class Entry:
    """What is known of a series.

    number: what it is called in folders, tables and messages. images: how many the archive had when it was last asked.
    since: when it had so many first. state: of STATES. failures: how often the archive did not answer about it. due:
    when it may be tried again. objects: how many of its results are in the archive. reason: why it is in this state.
    study_uid, series_uid: erased once they are needed no more.
    """

    number: int
    images: int
    since: float
    state: str
    failures: int
    due: float
    objects: int | None
    reason: str | None
    study_uid: str | None
    series_uid: str | None

    @property
    def series(self) -> FoundSeries:
        """As it is asked of the archive."""
        if self.study_uid is None or self.series_uid is None:
            raise ValueError(f"The UIDs of series {self.number} are erased.")
        return FoundSeries(self.study_uid, self.series_uid, self.images)


_FIELDS = ", ".join(Entry.__dataclass_fields__)


class Journal:
    """The file of a watch. Times are seconds since 1970."""

    def __init__(self, path: Path, made_with: Mapping) -> None:
        """Make or reopen it. made_with: the settings, as JSON. Raises OutputError where it is of others, or is none."""
        new = not path.exists()
        if new:
            path.touch(mode=0o600)  # UIDs identify persons
        try:
            self._data = sqlite3.connect(path, isolation_level=None)
            self._data.execute("PRAGMA synchronous = FULL")
            self._data.execute("PRAGMA secure_delete = ON")
            with self._at_once():
                if not self._data.execute("SELECT 1 FROM sqlite_master").fetchone():
                    for statement in _TABLES.split(";")[:-1]:
                        self._data.execute(statement)
                    facts = {"schema": SCHEMA, "made_with": _text(made_with)}
                    self._data.executemany("INSERT INTO facts VALUES (?, ?)", facts.items())
            facts = dict(self._data.execute("SELECT name, value FROM facts").fetchall())
        except sqlite3.Error as error:
            raise OutputError(f"{path} is not the journal of a watch ({error}). Choose another --output.") from error
        if facts.get("schema") != SCHEMA:
            raise OutputError(f"{path} is not of schema {SCHEMA}. Choose another --output.")
        if facts.get("made_with") != _text(made_with):
            raise OutputError(
                f"{path.parent} holds results made with other settings, models or another archive. Choose another "
                "--output."
            )

    def close(self) -> None:
        """Close the file."""
        self._data.close()

    def __iter__(self) -> Iterator[Entry]:
        """All series by number."""
        rows = self._data.execute(f"SELECT {_FIELDS} FROM series ORDER BY number").fetchall()
        return (Entry(*row) for row in rows)

    def observe(self, found: FoundSeries, now: float) -> None:
        """Enter a series, or how many images it has."""
        name = digest(found.series_uid)
        with self._at_once():
            known = self._data.execute("SELECT number, images, state FROM series WHERE digest = ?", (name,)).fetchone()
            if known is None:
                values = (name, found.study_uid, found.series_uid, found.images, now, ARRIVING)
                self._data.execute(
                    "INSERT INTO series (digest, study_uid, series_uid, images, since, state) "
                    "VALUES (?, ?, ?, ?, ?, ?)",
                    values,
                )
                return
            number, images, state = known
            if state == ARRIVING and images != found.images:
                self._data.execute(
                    "UPDATE series SET images = ?, since = ? WHERE number = ?", (found.images, now, number)
                )
            elif state in (SCORED, DONE) and found.images > images:
                reason = f"It had {images} images when it was scored and has {found.images} now."
                self._data.execute("UPDATE series SET state = ?, reason = ? WHERE number = ?", (GROWN, reason, number))

    def settle(self, entry: Entry, state: str, reason: str | None = None, objects: int | None = None) -> None:
        """Enter another state of a series. Its UIDs are erased where nothing is to be done any more."""
        with self._at_once():
            self._data.execute(
                "UPDATE series SET state = ?, reason = ?, objects = ?, failures = 0, due = 0 WHERE number = ?",
                (state, reason, objects, entry.number),
            )
            if state not in (*_OPEN, FAILED):
                self._data.execute(
                    "UPDATE series SET study_uid = NULL, series_uid = NULL WHERE number = ?", (entry.number,)
                )

    def postpone(self, entry: Entry, due: float, reason: str) -> None:
        """Enter that a series is tried again at a time."""
        with self._at_once():
            self._data.execute(
                "UPDATE series SET failures = failures + 1, due = ?, reason = ? WHERE number = ?",
                (due, reason, entry.number),
            )

    def unsettle(self, now: float) -> None:
        """Begin anew to wait for the last images: while nobody looked or the archive was down none may have come."""
        with self._at_once():
            self._data.execute("UPDATE series SET since = ? WHERE state = ?", (now, ARRIVING))

    def retry_failed(self) -> None:
        """Let what failed be tried again."""
        with self._at_once():
            self._data.execute("UPDATE series SET state = ?, failures = 0, due = 0 WHERE state = ?", (ARRIVING, FAILED))

    @contextmanager
    def _at_once(self) -> Iterator[None]:
        """A transaction, on the disk at the end."""
        self._data.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._data.execute("ROLLBACK")
            raise
        self._data.execute("COMMIT")


def _text(made_with: Mapping) -> str:
    return json.dumps(made_with, sort_keys=True, default=str)
