"""Journal of a watch: the state of every series, written to disk before the watch acts on it.

The file is replaced atomically, so that it is consistent wherever the process or the machine stops.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from ..core.errors import OutputError
from ..core.files import atomic_write, read_document
from .series import SeriesSummary, digest

SCHEMA = "cac-watch/1"

STATES = ("arriving", "scored", "done", "present", "skipped", "grown", "failed")
"""States of a series, explained in docs/user/archive.md."""
ARRIVING, SCORED, DONE, PRESENT, SKIPPED, GROWN, FAILED = STATES


@dataclass(frozen=True)
class WatchSettings:
    """Settings of a watch.

    Attributes:
        poll_seconds: Interval between two searches, above 0.
        settle_seconds: Time without new images after which a series is complete, at least 0.
        keep: Keep pulled series.
        once: End when nothing is left to do.

    Raises:
        OutputError: An interval is too small.
    """

    poll_seconds: float = 30.0
    settle_seconds: float = 60.0
    keep: bool = False
    once: bool = False

    def __post_init__(self) -> None:
        if self.poll_seconds <= 0 or self.settle_seconds < 0:
            raise OutputError(
                f"poll_seconds is {self.poll_seconds:g}, and settle_seconds {self.settle_seconds:g}. Give above 0 for "
                "the first, and at least 0 for the second."
            )


@dataclass(frozen=True, repr=False)
class ArchiveEntry:
    """State of a series. Times are seconds since 1970.

    Attributes:
        number: Number in folders, tables and messages.
        images: Number of images at the last search.
        since: Time of the first search with this number of images.
        study_uid: Study UID; None once it is no longer needed.
        series_uid: Series UID; None once it is no longer needed.
        state: State, one of STATES.
        failures: Number of requests in a row about this series that the archive did not answer.
        due: Time of the next attempt.
        objects: Number of its results in the archive.
        reason: Reason of the state.
        seconds: Time of its scoring.
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
    seconds: float | None = None

    @property
    def series(self) -> SeriesSummary:
        """Series for requests to the archive."""
        if self.study_uid is None or self.series_uid is None:
            raise ValueError(f"The UIDs of series {self.number} are erased.")
        return SeriesSummary(self.study_uid, self.series_uid, self.images)


class ArchiveJournal:
    """File of a watch with an `ArchiveEntry` for each series, by a digest of its UID."""

    def __init__(self, path: Path, made_with: Mapping[str, object]) -> None:
        """Make or reopen the journal. Raises OutputError if the file is foreign or has other settings.

        made_with: the settings, as JSON.
        """
        self._path, self._made_with = path, json.loads(json.dumps(made_with, default=str))
        self._entries: dict[str, ArchiveEntry] = {}
        if not path.exists():
            self._write()
        try:
            content = read_document(path, SCHEMA)
            recorded = content["made_with"]
            self._entries = {name: ArchiveEntry(**fields) for name, fields in content["series"].items()}
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise OutputError(f"{path} is not the journal of a watch ({error}). Choose another --output.") from error
        if recorded != self._made_with:
            raise OutputError(
                f"{path.parent} holds results made with other settings, models or another archive. Choose another "
                "--output."
            )

    def __iter__(self) -> Iterator[ArchiveEntry]:
        """Iterate over all series by number."""
        return iter(list(self._entries.values()))

    def observe(self, summaries: Iterable[SeriesSummary], now: float) -> list[ArchiveEntry]:
        """Enter new series, and changed numbers of images; return the series that grew after they were scored."""
        updates: dict[str, ArchiveEntry] = {}
        changed: list[ArchiveEntry] = []
        highest = max((entry.number for entry in self), default=0)
        for series in summaries:
            name, images = digest(series.series_uid), series.images
            entry = self._entries.get(name) or updates.get(name)
            if entry is None:
                highest += 1
                updates[name] = ArchiveEntry(highest, images, now, series.study_uid, series.series_uid)
            elif entry.state in (ARRIVING, GROWN) and images != entry.images:
                updates[name] = replace(entry, images=images, since=now)
            elif entry.state in (SCORED, DONE) and images > entry.images:
                reason = f"It had {entry.images} images when it was scored and has {images} now: it is scored again."
                grown = ArchiveEntry(
                    entry.number, images, now, series.study_uid, series.series_uid, GROWN, reason=reason
                )
                updates[name] = grown
                changed.append(grown)
        self._enter(updates)
        return changed

    def settle(self, entry: ArchiveEntry, state: str, reason: str | None = None, **facts: float | None) -> None:
        """Enter a new state of a series, with facts by field. Its UIDs are erased once nothing is left to do."""
        erased = {} if state in (ARRIVING, GROWN, SCORED, FAILED) else {"study_uid": None, "series_uid": None}
        self._change([entry], state=state, reason=reason, **facts, failures=0, due=0.0, **erased)

    def postpone(self, entry: ArchiveEntry, due: float, reason: str) -> None:
        """Enter the time of a series' next attempt."""
        self._change([entry], failures=entry.failures + 1, due=due, reason=reason)

    def unsettle(self, now: float) -> None:
        """Restart waiting for the last images, after a time in which the archive was not searched."""
        self._change([entry for entry in self if entry.state in (ARRIVING, GROWN)], since=now)

    def retry_failed(self) -> None:
        """Reset failed series for another attempt."""
        self._change([entry for entry in self if entry.state == FAILED], state=ARRIVING, failures=0, due=0.0)

    def _change(self, entries: Iterable[ArchiveEntry], **fields: Any) -> None:
        names = {entry.number: name for name, entry in self._entries.items()}
        changed = [names[entry.number] for entry in entries]
        self._enter({name: replace(self._entries[name], **fields) for name in changed})

    def _enter(self, updates: Mapping[str, ArchiveEntry]) -> None:
        if updates:
            self._entries |= updates
            self._write()

    def _write(self) -> None:
        entries = {name: asdict(entry) for name, entry in self._entries.items()}
        content = {"schema": SCHEMA, "made_with": self._made_with, "series": entries}
        with atomic_write(self._path, durable=True) as temporary:
            temporary.touch(mode=0o600)  # UIDs identify persons
            temporary.write_text(json.dumps(content), encoding="utf-8")


def metrics_text(entries: Iterable[ArchiveEntry], has_answered: bool) -> str:
    """Return the metrics of a watch in Prometheus' text format, for the textfile collector of node_exporter.

    A file needs no port, and its age, which node_exporter reports too, shows whether the watch still runs.

    has_answered: True if the archive answered the latest search.
    """
    entries = list(entries)
    counts = Counter(entry.state for entry in entries)
    seconds = [entry.seconds for entry in entries if entry.seconds is not None]
    metrics: dict[str, dict[str, float]] = {
        "series gauge Series by state.": {f'{{state="{state}"}}': counts[state] for state in STATES},
        "scoring_seconds summary Seconds of scoring.": {"_sum": round(sum(seconds), 3), "_count": len(seconds)},
        "archive_up gauge 1 if the archive answered the latest search.": {"": int(has_answered)},
    }
    lines = []
    for description, values in metrics.items():
        name, kind, text = description.split(" ", 2)
        lines += [f"# HELP cac_watch_{name} {text}", f"# TYPE cac_watch_{name} {kind}"]
        lines += [f"cac_watch_{name}{suffix} {value}" for suffix, value in values.items()]
    return "\n".join(lines) + "\n"
