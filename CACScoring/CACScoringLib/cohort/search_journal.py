"""Which folders were searched for DICOM series and what they held, so that a search goes on where it was interrupted.

Reading the headers of a million files takes hours on a network drive; looking whether they changed takes minutes. The
file holds UIDs of series, which identify persons, so it is its owner's alone.
"""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
import time
from contextlib import suppress
from pathlib import Path

from ..io.reading import Series

FILE = ".search.sqlite"
VERSION = 1
"""Of what the file holds, and of how series are found; a file of another is begun anew."""

COMMIT_SECONDS = 2.0
"""How much of the search may be lost."""


class SearchJournal:
    """Beside the results of a cohort. It only saves time: where it cannot be read or written, all is searched again.

    Used with `with`. folder: of the results. root: of the search; its place does not count.
    """

    def __init__(self, folder: Path, root: Path) -> None:
        self._file, self._root = folder / FILE, root
        self._db: sqlite3.Connection | None = None
        self._committed = time.monotonic()

    def __enter__(self) -> SearchJournal:
        with suppress(sqlite3.Error, OSError):
            self._open()
        return self

    def __exit__(self, *error: object) -> None:
        if self._db is not None:
            with suppress(sqlite3.Error):
                self._db.commit()
            self._db.close()
            self._db = None

    def known(self, place: Path) -> tuple[list[Series], int] | None:
        """The series of a folder and how many of its files are broken; None where it has to be searched."""
        try:
            rows = self._execute("SELECT signature, series FROM folders WHERE path = ?", self._key(place))
            if not rows or rows[0][0] != signature(place):
                return None
            return [Series(*one) for one in json.loads(rows[0][1])], 0
        except (OSError, ValueError, TypeError):
            return None

    def add(self, place: Path, signed: str, series: list[Series], broken: int) -> None:
        """Keep what a folder held when its files were as `signature` told. One with broken files, which may only have
        been out of reach, is searched again."""
        if broken:
            return
        text = json.dumps([[one.uid, one.number, one.voxels] for one in series])
        self._execute("INSERT OR REPLACE INTO folders VALUES (?, ?, ?)", self._key(place), signed, text)
        if self._db is not None and time.monotonic() - self._committed > COMMIT_SECONDS:
            with suppress(sqlite3.Error):
                self._db.commit()
            self._committed = time.monotonic()

    def _open(self) -> None:
        os.close(os.open(self._file, os.O_CREAT | os.O_RDWR, 0o600))
        for attempt in (1, 2):
            db = sqlite3.connect(self._file)
            try:
                if attempt == 2 or db.execute("PRAGMA user_version").fetchone()[0] != VERSION:
                    db.execute("DROP TABLE IF EXISTS folders")
                    db.execute("CREATE TABLE folders (path BLOB PRIMARY KEY, signature TEXT, series TEXT)")
                    db.execute(f"PRAGMA user_version = {VERSION}")
                    db.commit()
                self._db = db
                return
            except sqlite3.DatabaseError:  # no database, or a damaged one
                db.close()
                if attempt == 2:
                    raise
                self._file.write_bytes(b"")

    def _execute(self, query: str, *values: object) -> list[tuple]:
        if self._db is None:
            return []
        try:
            return self._db.execute(query, values).fetchall()
        except sqlite3.Error:  # as on a full disk
            return []

    def _key(self, place: Path) -> bytes:
        return os.fsencode(place.relative_to(self._root).as_posix())


def signature(folder: Path) -> str:
    """Of names, sizes and times of change of a folder's files. Raises OSError."""
    with os.scandir(folder) as entries:
        found = [(entry.name, entry.stat()) for entry in entries if entry.is_file()]
    digest = hashlib.sha256()
    for name, status in sorted(found, key=lambda one: one[0]):
        digest.update(f"{name}\0{status.st_size}\0{status.st_mtime_ns}\n".encode(errors="surrogateescape"))
    return digest.hexdigest()
