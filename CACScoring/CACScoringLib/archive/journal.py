"""Journal of a watch: the state of every series, written to disk before it acts on it.

The file is replaced as a whole, so that it is as it was or as it is to be wherever the process or the machine stops.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from ..core.files import OutputError, atomic_write
from ..core.options import option
from ..core.uids import digest
from .series import FoundSeries

SCHEMA = "cac-watch/1"

STATES = ("arriving", "scored", "done", "present", "skipped", "grown", "failed")
"""Of a series; docs/user/archive.md explains them."""
ARRIVING, SCORED, DONE, PRESENT, SKIPPED, GROWN, FAILED = STATES


@dataclass(frozen=True)
class WatchSettings:
    """Settings of a watch.

    poll_seconds: between two searches, above 0. settle_seconds: how long the number of a series' images has to stay
    the same until it is complete. keep: keep pulled series. once: end when nothing is to be done.

    Raises OutputError for times below these.
    """

    poll_seconds: float = 30.0
    settle_seconds: float = 60.0
    keep: bool = False
    once: bool = option(False, "end when nothing is left to do", default=None)

    def __post_init__(self) -> None:
        if self.poll_seconds <= 0 or self.settle_seconds < 0:
            raise OutputError(
                f"poll_seconds is {self.poll_seconds:g}, and settle_seconds {self.settle_seconds:g}. Give above 0 for "
                "the first, and at least 0 for the second."
            )


@dataclass(frozen=True, repr=False)
class Entry:
    """State of a series.

    number: what it is called in folders, tables and messages. images: how many the archive had when it was last asked.
    since: when it had so many first. state: of STATES. failures: how often the archive did not answer about it. due:
    when it may be tried again. objects: how many of its results are in the archive. reason: why it is in this state.
    study_uid, series_uid: erased once they are needed no more. Times are seconds since 1970.
    """

    number: int
    images: int
    since: float
    study_uid: str | None
    series_uid: str | None
    state: str = ARRIVING
    failures: int = 0
    due: float = 0.0
    objects: int | None = None
    reason: str | None = None

    @property
    def series(self) -> FoundSeries:
        """Series as the archive states it."""
        if self.study_uid is None or self.series_uid is None:
            raise ValueError(f"The UIDs of series {self.number} are erased.")
        return FoundSeries(self.study_uid, self.series_uid, self.images)


class Journal:
    """The file of a watch, and what it holds: by a digest of its UID an `Entry` for each series."""

    def __init__(self, path: Path, made_with: Mapping) -> None:
        """Make or reopen it. made_with: the settings, as JSON. Raises OutputError where it is of others, or is none."""
        self._path, self._made_with = path, json.loads(json.dumps(made_with, default=str))
        self._entries: dict[str, Entry] = {}
        if not path.exists():
            self._write()
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            schema, recorded = content["schema"], content["made_with"]
            self._entries = {name: Entry(**fields) for name, fields in content["series"].items()}
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise OutputError(f"{path} is not the journal of a watch ({error}). Choose another --output.") from error
        if schema != SCHEMA:
            raise OutputError(f"{path} is not of schema {SCHEMA}. Choose another --output.")
        if recorded != self._made_with:
            raise OutputError(
                f"{path.parent} holds results made with other settings, models or another archive. Choose another "
                "--output."
            )

    def __iter__(self) -> Iterator[Entry]:
        """All series by number."""
        return iter(list(self._entries.values()))

    def observe(self, found: Iterable[FoundSeries], now: float) -> None:
        """Enter series, or how many images they have."""
        changed = {}
        for series in found:
            name, images = digest(series.series_uid), series.images
            known = self._entries.get(name) or changed.get(name)
            if known is None:
                number = len(self._entries) + len(changed) + 1
                changed[name] = Entry(number, images, now, series.study_uid, series.series_uid)
            elif known.state == ARRIVING and images != known.images:
                changed[name] = replace(known, images=images, since=now)
            elif known.state in (SCORED, DONE) and images > known.images:
                reason = f"It had {known.images} images when it was scored and has {images} now."
                changed[name] = replace(known, state=GROWN, reason=reason)
        self._enter(changed)

    def settle(self, entry: Entry, state: str, reason: str | None = None, objects: int | None = None) -> None:
        """Enter another state of a series. Its UIDs are erased where nothing is to be done any more."""
        erased = {} if state in (ARRIVING, SCORED, FAILED) else {"study_uid": None, "series_uid": None}
        self._change([entry], state=state, reason=reason, objects=objects, failures=0, due=0.0, **erased)

    def postpone(self, entry: Entry, due: float, reason: str) -> None:
        """Enter that a series is tried again at a time."""
        self._change([entry], failures=entry.failures + 1, due=due, reason=reason)

    def unsettle(self, now: float) -> None:
        """Begin anew to wait for the last images: while nobody looked or the archive was down none may have come."""
        self._change([entry for entry in self if entry.state == ARRIVING], since=now)

    def retry_failed(self) -> None:
        """Let what failed be tried again."""
        self._change([entry for entry in self if entry.state == FAILED], state=ARRIVING, failures=0, due=0.0)

    def _change(self, entries: Iterable[Entry], **fields: Any) -> None:
        names = list(self._entries)  # in the order of their numbers
        changed = [names[entry.number - 1] for entry in entries]
        self._enter({name: replace(self._entries[name], **fields) for name in changed})

    def _enter(self, changed: Mapping[str, Entry]) -> None:
        if changed:
            self._entries |= changed
            self._write()

    def _write(self) -> None:
        entries = {name: asdict(entry) for name, entry in self._entries.items()}
        content = {"schema": SCHEMA, "made_with": self._made_with, "series": entries}
        with atomic_write(self._path, durable=True) as half:
            half.touch(mode=0o600)  # UIDs identify persons
            half.write_text(json.dumps(content), encoding="utf-8")
