"""The page about a cohort, made from its parquet tables: scores, warnings, failures, time, outliers."""

from __future__ import annotations

import base64
import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from ..core.files import write_text_atomically
from ..core.output import OutputError
from ..report.markup import Markup, head, page, picture, row, small, table, tag
from ..results import METHOD_TITLES
from .folder import RECORD
from .parquet import SCHEMA, TABLES, TOTAL, table_path

PAGE = "cohort-report.html"
SHOWN = 6
"""Outliers of each kind that are shown."""

_PICTURE = re.compile(r'src="data:image/jpeg;base64,([A-Za-z0-9+/=]+)"')
_CLASSES = {"0": 0.0, "1–10": 10.0, "11–100": 100.0, "101–400": 400.0, "> 400": np.inf}
"""Names of the Agatston score's classes, and their highest score."""


def write_cohort_report(folder: Path) -> Path:
    """Write PAGE into the folder of a cohort and return it.

    Scans are called by the number that the tables have for them, with a link to their own report; pictures show the
    slice of the largest lesion as that report does. Raises OutputError where the tables are missing or of another
    schema, or the page cannot be written.
    """
    scans, scores, _ = (_read(folder, name) for name in TABLES)
    totals = [score for score in scores if score["artery"] == TOTAL]
    title = "Cohort report"
    parts = [tag.h1(title), *_summary(scans), *_scores(totals), *_arteries(scores), *_warnings(scans)]
    parts += [*_failures(scans), *_time(scans), *_outliers(scans, totals, folder)]
    try:
        write_text_atomically(folder / PAGE, page(title, *parts))
    except OSError as error:
        raise OutputError(f"Cannot write {folder / PAGE}: {error.strerror}.") from error
    return folder / PAGE


def _read(folder: Path, name: str) -> list[dict]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    file = table_path(folder, name)
    try:
        found = pq.read_table(file)
    except (OSError, pa.ArrowException) as error:
        raise OutputError(
            f"{file} is missing or damaged. Give the folder of a cohort; running its command again writes the tables."
        ) from error
    if (found.schema.metadata or {}).get(b"schema", b"").decode() != SCHEMA:
        raise OutputError(f"{file} is not of schema {SCHEMA}. Run the command of the cohort again.")
    return found.to_pylist()


def _summary(scans: Sequence[dict]) -> list[Markup]:
    text = ", ".join(f"{count} {state}" for state, count in Counter(scan["state"] for scan in scans).most_common())
    return [tag.p(f"{len(scans)} scans: {text}."), small("Scans are called by numbers; names stand in cohort.csv.")]


def _agatston(score: dict) -> float:
    """On the clinical scale."""
    own, clinical = score["agatston"], score["clinical_agatston"]
    return own if score["method"] == "threshold" or clinical is None else clinical


def _scores(totals: Iterable[dict]) -> list[Markup]:
    parts = [tag.h2("Scores and categories")]
    by_method = defaultdict(list)
    for total in totals:
        by_method[total["method"]].append(total)
    for method, own in sorted(by_method.items(), reverse=True):
        values = np.array([_agatston(total) for total in own], float)
        low, middle, high = np.percentile(values, (25, 50, 75))
        states = ", ".join(f"{n} {s}" for s, n in Counter(total["status"] for total in own).most_common())
        classes = Counter(np.searchsorted([*_CLASSES.values()], values).tolist())
        lines = []
        for n, name in enumerate(_CLASSES):
            bar = f"background:#00588c;height:.8rem;width:{max(1, round(220 * classes[n] / max(classes.values())))}px"
            lines.append(row(name, classes[n], f"{100 * classes[n] / len(own):.1f} %", tag.div(style=bar)))
        parts += [
            tag.h3(METHOD_TITLES.get(method, method)),
            tag.p(
                f"{len(own)} scans ({states}); Agatston score median {middle:.1f}, quartiles {low:.1f} and {high:.1f}, "
                f"largest {values.max():.1f}; {(values <= 0).sum()} without calcium."
            ),
            table([head("Agatston score", "Scans", "Proportion", ""), *lines]),
        ]
    return parts


def _arteries(scores: Iterable[dict]) -> list[Markup]:
    values = defaultdict(list)
    for score in scores:
        if score["artery"] != TOTAL:
            values[METHOD_TITLES.get(score["method"], score["method"]), score["artery"]].append(score["agatston"])
    lines = [
        row(method, artery, sum(value > 0 for value in own), f"{np.mean(own):.1f}")
        for (method, artery), own in sorted(values.items())
        if any(own)
    ]
    return [tag.h3("Arteries"), table([head("Method", "Artery", "Scans with calcium", "Mean Agatston score"), *lines])]


def _warnings(scans: Sequence[dict]) -> list[Markup]:
    counted = Counter(code for scan in scans for code in scan["warnings"] or ())
    done = sum(scan["state"] == "done" for scan in scans) or 1
    lines = [row(tag.code(code), count, f"{100 * count / done:.1f} %") for code, count in counted.most_common()]
    return [tag.h2("Warnings"), table([head("Warning", "Scans", "Of those scored"), *lines])]


def _failures(scans: Iterable[dict]) -> list[Markup]:
    failed = defaultdict(list)
    for scan in scans:
        if scan["state"] == "failed":  # numbers differ from scan to scan where the reason is the same
            failed[re.sub("[0-9]+", "n", scan["reason"] or "")].append(scan["scan"])
    often = sorted(failed.items(), key=lambda one: (-len(one[1]), one[0]))
    lines = [row(reason, len(own), tag.code(min(own)[:8])) for reason, own in often]
    return [tag.h2("Failures"), table([head("Reason", "Scans", "One of them"), *lines]) if lines else tag.p("None.")]


def _time(scans: Iterable[dict]) -> list[Markup]:
    sizes = defaultdict(list)
    for scan in scans:
        if scan["wall_seconds"] is not None:
            millions = scan["columns"] * scan["rows"] * scan["slices"] / 1e6
            sizes[int(millions // 20) * 20].append((scan["wall_seconds"], (scan["peak_memory_bytes"] or np.nan) / 1e9))
    lines = []
    for size, own in sorted(sizes.items()):
        (s, memory), (s_most, memory_most) = np.median(own, axis=0), np.max(own, axis=0)
        told = (f"{s:.1f}", f"{s_most:.1f}", f"{memory:.2f}", f"{memory_most:.2f}")
        lines.append(row(f"{size}–{size + 20}", len(own), *told))
    names = ("Million voxels", "Scans", "Median time, s", "Longest, s", "Median memory, GB", "Most, GB")
    note = small("Memory is the peak of the worker process; nan where the system does not tell.")
    return [tag.h2("Time and memory"), table([head(*names), *lines]), note]


def _outliers(scans: Iterable[dict], totals: Iterable[dict], folder: Path) -> list[Markup]:
    by_method: dict[str, dict[str, float]] = {"threshold": {}, "decomposition": {}}
    for total in totals:
        by_method.setdefault(total["method"], {})[total["scan"]] = _agatston(total)
    clinical, of_map = by_method["threshold"], by_method["decomposition"]
    kinds = {
        "Largest scores": clinical,
        "Methods that disagree most": {scan: abs(clinical[scan] - of_map[scan]) for scan in clinical.keys() & of_map},
        "Most warnings": {scan["scan"]: len(scan["warnings"] or ()) for scan in scans},
        "Longest time, s": {scan["scan"]: scan["wall_seconds"] or 0 for scan in scans},
    }
    folders = _folders(folder)
    parts: list[Markup] = [tag.h2("Outliers")]
    for title, values in kinds.items():
        lines = []
        for scan, value in sorted(values.items(), key=lambda one: (-one[1], one[0]))[:SHOWN]:
            if value > 0:
                shown, own = tag.code(scan[:8]), folders.get(scan)
                link = tag.a(shown, href=f"{own}/report.html") if own else shown
                lines.append(row(link, f"{value:.1f}", _picture(folder / own) if own else None))
        parts += [tag.h3(title), table([head("Scan", "Value", ""), *lines])] if lines else []
    return parts


def _picture(folder: Path) -> Markup | None:
    """The first picture of a scan's report."""
    try:
        text = (folder / "report.html").read_text(encoding="utf-8")
    except OSError:
        return None
    if found := _PICTURE.search(text):
        return picture(base64.b64decode(found[1]), "image/jpeg", "A slice of this scan", "max-width:260px")
    return None


def _folders(folder: Path) -> dict[str, str]:
    """Folders of scans by their number."""
    try:
        record = json.loads((folder / RECORD).read_text(encoding="utf-8"))["scans"]
        return {entry["scan"]: name for name, entry in record.items() if Path(name).name == name}
    except (OSError, ValueError, KeyError, TypeError):
        return {}
