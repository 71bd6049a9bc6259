"""The page about a cohort, made from its parquet tables by SQL: scores, warnings, failures, time, outliers."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..core.files import write_text_atomically
from ..core.output import OutputError
from ..report.markup import Markup, head, page, picture, row, small, table, tag
from ..results import METHOD_TITLES
from .folder import RECORD
from .parquet import SCHEMA, TABLES, table_files

PAGE = "cohort-report.html"
SHOWN = 6
"""Outliers of each kind that are shown."""

_PICTURE = re.compile(r'src="data:image/jpeg;base64,([A-Za-z0-9+/=]+)"')
_CLASSES = """CASE WHEN agatston <= 0 THEN 0 WHEN agatston <= 10 THEN 1 WHEN agatston <= 100 THEN 2
              WHEN agatston <= 400 THEN 3 ELSE 4 END"""
_CLASS_NAMES = ("0", "1–10", "11–100", "101–400", "> 400")
_TOTALS = "SELECT * FROM scores WHERE artery = 'total'"
_OUTLIERS = {
    "Largest scores": "SELECT scan, agatston AS value FROM totals WHERE method = 'threshold' AND agatston > 0",
    "Methods that disagree most": (
        "SELECT scan, abs(t.agatston - coalesce(d.clinical_agatston, d.agatston)) AS value "
        "FROM (FROM totals WHERE method = 'threshold') t JOIN (FROM totals WHERE method = 'decomposition') d "
        "USING (scan) WHERE value > 0"
    ),
    "Most warnings": "SELECT scan, len(warnings) AS value FROM scans WHERE len(warnings) > 3",
    "Longest time, s": "SELECT scan, coalesce(wall_seconds, seconds) AS value FROM scans WHERE value IS NOT NULL",
}


def write_cohort_report(folder: Path) -> Path:
    """Write PAGE into the folder of a cohort and return it.

    Scans are called by the number that the tables have for them, with a link to their own report; pictures show the
    slice of the largest lesion as that report does. Raises OutputError where the tables are missing or of another
    schema, or the page cannot be written.
    """
    db = opened_tables(folder)
    title = "Cohort report"
    parts = [tag.h1(title), *_summary(db), *_scores(db), *_warnings(db), *_failures(db), *_time(db)]
    parts += _outliers(db, scan_folders(folder), folder)
    try:
        write_text_atomically(folder / PAGE, page(title, *parts))
    except OSError as error:
        raise OutputError(f"Cannot write {folder / PAGE}: {error.strerror}.") from error
    return folder / PAGE


def opened_tables(folder: Path) -> Any:
    """A DuckDB connection with the tables, and the view `totals`. Raises OutputError."""
    import duckdb
    import pyarrow.parquet as pq

    db = duckdb.connect()
    for name in TABLES:
        files = table_files(folder, name)
        if not files:
            raise OutputError(
                f"{folder} has no {name}.parquet. Give the folder of a cohort; running its command again adds tables."
            )
        for file in files:
            if (pq.read_schema(file).metadata or {}).get(b"schema", b"").decode() != SCHEMA:
                raise OutputError(f"{file} is not of schema {SCHEMA}. Run the command of the cohort again.")
        db.read_parquet([str(file) for file in files]).create_view(name)
    db.execute(f"CREATE VIEW totals AS {_TOTALS}")
    return db


def _rows(db: Any, query: str) -> list[tuple]:
    return db.execute(query).fetchall()


def _summary(db: Any) -> list[Markup]:
    states = _rows(db, "SELECT state, count(*) FROM scans GROUP BY state ORDER BY count(*) DESC")
    total = sum(count for _, count in states)
    text = ", ".join(f"{count} {state}" for state, count in states)
    return [tag.p(f"{total} scans: {text}."), small("Scans are called by numbers; names stand in cohort.csv.")]


def _bars(titles: Sequence[str], counted: Sequence[tuple[object, int]]) -> Markup:
    """A table of counts, each with a bar."""
    most = max((count for _, count in counted), default=1) or 1
    total = sum(count for _, count in counted) or 1
    rows = [
        row(what, f"{count}", f"{100 * count / total:.1f} %", tag.div(style=_bar(count / most)))
        for what, count in counted
    ]
    return table([head(*titles, "Scans", "Proportion", ""), *rows])


def _bar(part: float) -> str:
    return f"background:#00588c;height:.8rem;width:{max(1, round(220 * part))}px"


def _scores(db: Any) -> list[Markup]:
    parts = [tag.h2("Scores and categories")]
    for (method,) in _rows(db, "SELECT DISTINCT method FROM totals ORDER BY method DESC"):
        score = "agatston" if method == "threshold" else "coalesce(clinical_agatston, agatston)"
        own = f"(SELECT {score} AS agatston, mass_mg, status FROM totals WHERE method = '{_word(method)}')"
        [(count, zero, *quantiles, most)] = _rows(
            db,
            f"SELECT count(*), sum((agatston <= 0)::INT), quantile_cont(agatston, 0.25), median(agatston), "
            f"quantile_cont(agatston, 0.75), max(agatston) FROM {own}",
        )
        low, middle, high = (f"{value:.1f}" for value in quantiles)
        status = ", ".join(
            f"{n} {s}" for s, n in _rows(db, f"SELECT status, count(*) FROM {own} GROUP BY 1 ORDER BY 2")
        )
        found = dict(_rows(db, f"SELECT {_CLASSES}, count(*) FROM {own} GROUP BY 1"))
        parts += [
            tag.h3(METHOD_TITLES.get(method, method)),
            tag.p(
                f"{count} scans ({status}); Agatston score median {middle}, quartiles {low} and {high}, largest "
                f"{most:.1f}; {zero} without calcium."
            ),
            _bars(("Agatston score",), [(name, found.get(i, 0)) for i, name in enumerate(_CLASS_NAMES)]),
        ]
    arteries = _rows(
        db,
        "SELECT method, artery, sum((agatston > 0)::INT), avg(agatston) FROM scores WHERE artery <> 'total' "
        "GROUP BY ALL HAVING sum(agatston) > 0 ORDER BY method DESC, artery",
    )
    lines = [row(METHOD_TITLES.get(m, m), artery, n, f"{mean:.1f}") for m, artery, n, mean in arteries]
    names = ("Method", "Artery", "Scans with calcium", "Mean Agatston score")
    return [*parts, tag.h3("Arteries"), table([head(*names), *lines])]


def _word(text: str) -> str:
    return re.sub(r"\W", "", text)


def _warnings(db: Any) -> list[Markup]:
    counted = _rows(
        db, "SELECT w, count(*) FROM (SELECT unnest(warnings) AS w FROM scans) GROUP BY w ORDER BY 2 DESC, 1"
    )
    total = _rows(db, "SELECT count(*) FROM scans WHERE state = 'done'")[0][0] or 1
    lines = [row(tag.code(code), count, f"{100 * count / total:.1f} %") for code, count in counted]
    return [tag.h2("Warnings"), table([head("Warning", "Scans", "Of those scored"), *lines])]


def _failures(db: Any) -> list[Markup]:
    counted = _rows(
        db,
        # Numbers differ from scan to scan where the reason is the same.
        "SELECT regexp_replace(reason, '[0-9]+', 'n', 'g') AS why, count(*), min(scan) FROM scans "
        "WHERE state = 'failed' GROUP BY why ORDER BY 2 DESC, 1",
    )
    lines = [row(reason, count, tag.code(scan[:8])) for reason, count, scan in counted]
    return [tag.h2("Failures"), table([head("Reason", "Scans", "One of them"), *lines]) if lines else tag.p("None.")]


def _time(db: Any) -> list[Markup]:
    found = _rows(
        db,
        "SELECT round(columns::DOUBLE * rows * slices / 1e6) // 20 * 20 AS voxels, count(*), median(wall_seconds), "
        "max(wall_seconds), median(peak_memory_bytes), max(peak_memory_bytes) FROM scans "
        "WHERE wall_seconds IS NOT NULL GROUP BY voxels ORDER BY voxels",
    )
    lines = [
        row(f"{voxels:.0f}–{voxels + 20:.0f}", count, f"{s:.1f}", f"{smax:.1f}", _gigabytes(m), _gigabytes(mmax))
        for voxels, count, s, smax, m, mmax in found
    ]
    names = ("Million voxels", "Scans", "Median time, s", "Longest, s", "Median memory, GB", "Most, GB")
    return [
        tag.h2("Time and memory"),
        table([head(*names), *lines]),
        small("Memory is the peak of the worker process."),
    ]


def _gigabytes(count: float | None) -> str:
    return "unknown" if count is None else f"{count / 1e9:.2f}"


def _outliers(db: Any, folders: dict[str, str], place: Path) -> list[Markup]:
    parts: list[Markup] = [tag.h2("Outliers")]
    for title, query in _OUTLIERS.items():
        found = _rows(db, f"SELECT scan, value FROM ({query}) ORDER BY value DESC, scan LIMIT {SHOWN}")
        if not found:
            continue
        lines = []
        for scan, value in found:
            own = folders.get(scan)
            shown = tag.code(scan[:8])
            link = tag.a(shown, href=f"{own}/report.html") if own else shown
            lines.append(row(link, f"{value:.1f}", _picture(place / own) if own else None))
        parts += [tag.h3(title), table([head("Scan", "Value", ""), *lines])]
    return parts


def _picture(folder: Path) -> Markup | None:
    """The first picture of a scan's report."""
    try:
        text = (folder / "report.html").read_text(encoding="utf-8")
    except OSError:
        return None
    found = _PICTURE.search(text)
    return (
        picture(base64.b64decode(found[1]), "image/jpeg", "A slice of this scan", "max-width:260px") if found else None
    )


def scan_folders(folder: Path) -> dict[str, str]:
    """Folders of scans by their number."""
    try:
        record = json.loads((folder / RECORD).read_text(encoding="utf-8"))["scans"]
        return {entry["scan"]: name for name, entry in record.items() if Path(name).name == name}
    except (OSError, ValueError, KeyError, TypeError):
        return {}
