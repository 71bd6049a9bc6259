"""The results of a cohort as parquet tables for SQL: `scans`, `scores`, `lesions`, without what identifies a person.

A scan is called by the number that `cohort.json` has for its folder; names, paths and patients stand in `cohort.csv`
only, unless they are asked for. The schema's version is in each file's metadata. A table of many scans is a folder of
parts, `scores.parquet/part-00001.parquet`, as parquet's readers take it.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..core.ct import Acquisition
from ..core.files import partial_folder
from ..core.progress import ScanState
from ..core.records import recorded_status
from .scans import CohortScan
from .scoring import ScanOutcome

SCHEMA = "cac-cohort-tables/1"
TABLES = ("scans", "scores", "lesions")
WRITTEN = "_tables"
"""Of the folder in which they are until they are whole; no scan's folder is called so."""
GROUP_ROWS = 5000
"""Rows that are kept in memory until they are written."""
PART_SCANS = 50_000
"""Scans of a part; the same of all tables. With fewer, a table is one file."""

_PLACE = re.compile(r"[^\s:'\"()]*[/\\][^\s:'\"()]*")
_SCORE = {
    "agatston": "double",
    "clinical_agatston": "double",
    "volume_mm3": "double",
    "mass_mg": "double",
    "pseudo_mass_hu_mm3": "double",
    "lesions": "int32",
    "peak_hu": "double",
}
_COLUMNS: dict[str, dict[str, str]] = {
    "scans": {
        **dict.fromkeys(("scan", "state", "reason", "group", "name", "ct", "patient", "session"), "string"),
        **dict.fromkeys(("columns", "rows", "slices"), "int32"),
        **dict.fromkeys(("pixel_mm", "slice_spacing_mm", "noise_hu", "seconds", "wall_seconds"), "double"),
        "peak_memory_bytes": "int64",
        **dict.fromkeys(("risk_class", "cac_drs", "content_sha256"), "string"),
        "warnings": "list",
    },
    "scores": {
        **dict.fromkeys(("scan", "method", "artery", "status"), "string"),
        **_SCORE,
        **dict.fromkeys(("interval_low", "interval_high"), "double"),
    },
    "lesions": {
        **dict.fromkeys(("scan", "method", "artery"), "string"),
        "lesion": "int32",
        **{name: kind for name, kind in _SCORE.items() if name != "lesions"},
    },
}
_IDENTIFYING = ("name", "ct", "patient", "session")
TOTAL = "total"
"""What `scores` has as the artery of a method's total."""


class TableWriter:
    """Takes scans as they end, in any order, and writes all three tables at the end; see `written`."""

    def __init__(self, folder: Path, identify: bool) -> None:
        self._folder, self._identify = folder, identify
        self._columns = {name: _typed(name, identify) for name in TABLES}
        self._rows: dict[str, list[dict]] = {name: [] for name in TABLES}
        self._writers: dict[str, Any] = {}
        self._scans, self._part = 0, 1

    def add(self, number: str, scan: CohortScan, state: ScanState, outcome: ScanOutcome | None) -> None:
        """Enter a scan. number: what it is called. outcome: None where it failed, or was not reached."""
        if self._scans == PART_SCANS:
            self._end_part()
            self._scans, self._part = 0, self._part + 1
        self._scans += 1
        content = outcome.content if outcome else None
        known = "done" if state.state == "skipped" else state.state
        row = {"scan": number, "state": known, "reason": state.reason, "group": scan.group or None}
        if self._identify:
            row |= {"name": scan.name, "ct": scan.place, "patient": scan.patient or None}
            row["session"] = scan.session or None
        elif state.reason:
            row["reason"] = without_places(state.reason, scan)
        if content is not None:
            record = outcome.record if outcome else None
            row |= _scan_facts(content, self._identify)
            row |= {"content_sha256": record.content, "wall_seconds": record.seconds} if record else {}
            row["peak_memory_bytes"] = record.peak_memory_bytes if record else None
            for method, result in content["methods"].items():
                self._rows["scores"] += _scores(number, method, result)
                self._rows["lesions"] += _lesions(number, method, result)
        self._rows["scans"].append(row)
        for name in TABLES:
            if len(self._rows[name]) >= GROUP_ROWS:
                self._flush(name)

    def close(self) -> None:
        """Write what is left, and put the tables into their places."""
        self._end_part()
        for name in TABLES if self._part == 1 else ():
            parts = table_path(self._folder, name)
            only = self._place(name, 1).rename(parts.with_suffix(".only"))
            parts.rmdir()
            only.rename(parts)

    def _end_part(self) -> None:
        for name in TABLES:
            self._flush(name)
            self._writers.pop(name).close()

    def _place(self, name: str, part: int) -> Path:
        return table_path(self._folder, name) / f"part-{part:05d}.parquet"

    def _flush(self, name: str) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        fields = self._columns[name]
        schema = pa.schema(fields, metadata={"schema": SCHEMA})
        if name not in self._writers:
            file = self._place(name, self._part)
            file.parent.mkdir(exist_ok=True)
            self._writers[name] = pq.ParquetWriter(file, schema, compression="zstd")
        if rows := self._rows[name]:
            self._writers[name].write_table(pa.Table.from_pylist(rows, schema=schema))
            rows.clear()


@contextmanager
def written(folder: Path, identify: bool) -> Iterator[TableWriter]:
    """Give a writer whose tables take the place of earlier ones in a folder at the end, also after an error."""
    with partial_folder(folder / WRITTEN) as place:
        writer = TableWriter(place, identify)
        try:
            yield writer
        finally:
            writer.close()
            for name in TABLES:
                _replace(table_path(place, name), table_path(folder, name))


def table_path(folder: Path, name: str) -> Path:
    """Where a table lies: a file, or a folder of parts."""
    return folder / f"{name}.parquet"


def table_files(folder: Path, name: str) -> list[Path]:
    """The files of a table, in their order; none where it is not there."""
    path = table_path(folder, name)
    return sorted(path.glob("part-*.parquet")) if path.is_dir() else [path] if path.is_file() else []


def _replace(made: Path, last: Path) -> None:
    """A file can be replaced at once; a folder, or what is to be one, is away for a moment."""
    if last.is_dir():
        shutil.rmtree(last)
    elif made.is_dir():
        last.unlink(missing_ok=True)
    made.replace(last)


def without_places(reason: str, scan: CohortScan) -> str:
    """Why a scan failed, without paths and names of files, which are often called by patients."""
    text = _PLACE.sub("…", reason)
    for name in sorted({scan.place, scan.name, scan.ct.name, *scan.ct.parts[-3:]} - {"", "/"}, key=len, reverse=True):
        text = text.replace(name, "…")
    return text


def _typed(name: str, identify: bool) -> list:
    import pyarrow as pa

    kinds = {"list": pa.list_(pa.string()), "string": pa.string(), "double": pa.float64()}
    kinds |= {"int32": pa.int32(), "int64": pa.int64()}
    wanted = dict(_COLUMNS[name])
    if name == "scans":
        for fact in Acquisition("").facts(identify):
            wanted.setdefault(fact, _kind_of_fact(fact))
    return [(key, kinds[kind]) for key, kind in wanted.items() if identify or key not in _IDENTIFYING]


def _kind_of_fact(name: str) -> str:
    annotation = str(Acquisition.__annotations__[name])
    return "double" if "float" in annotation or "int" in annotation else "string"


def _scan_facts(content: Mapping, identify: bool) -> dict:
    image, measured, categories = content["input"], content["measured"] or {}, content.get("categories") or {}
    facts = {name: content["acquisition"].get(name) for name in Acquisition("").facts(identify)}
    texts = {name: str(v) for name, v in facts.items() if v is not None and _kind_of_fact(name) == "string"}
    return {
        **facts,
        **texts,
        **dict(zip(("columns", "rows", "slices"), image["size"], strict=True)),
        "pixel_mm": image["spacing_mm"][0],
        "slice_spacing_mm": image["spacing_mm"][2],
        "noise_hu": measured.get("noise_hu"),
        "seconds": round(sum(content.get("seconds", {}).values()), 3),
        "risk_class": categories.get("risk_class"),
        "cac_drs": categories.get("cac_drs"),
        "warnings": list(dict.fromkeys(warning["code"] for warning in content["warnings"])),
    }


def _scores(number: str, method: str, result: Mapping) -> Iterator[dict]:
    status = recorded_status(method, result)
    for artery, score in {TOTAL: result["total"], **result["arteries"]}.items():
        low, high = score.get("interval_90") or (None, None)
        about = {"scan": number, "method": method, "artery": artery, "status": status}
        yield {**about, **_score(score), "interval_low": low, "interval_high": high}


def _lesions(number: str, method: str, result: Mapping) -> Iterator[dict]:
    for lesion in result.get("lesions", ()):
        about = {"scan": number, "method": method, "artery": lesion.get("artery"), "lesion": lesion.get("id")}
        yield about | {name: value for name, value in _score(lesion).items() if name != "lesions"}


def _score(score: Mapping) -> dict:
    return {name: score.get(name) for name in _SCORE}
