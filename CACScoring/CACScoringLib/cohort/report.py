"""Report page of a cohort from its parquet tables: scores, warnings, failures, outliers."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from ..core.errors import OutputError
from ..core.files import write_text_atomically
from ..record.columns import TOTAL, Row
from ..report.page import rendered
from ..results import METHOD_TITLES
from .parquet import SCHEMA, TABLES

PAGE = "cohort-report.html"
WITHHOLDING = "beyond-calibration"
"""Code of the warning that withholds the category of an automatic score."""
OUTLIER_COUNT = 6
"""Number of outliers shown of each kind."""

_CLASSES = {"0": 0.0, "1–10": 10.0, "11–100": 100.0, "101–400": 400.0, "> 400": np.inf}
"""Upper limits of the Agatston score's classes."""


def write_cohort_report(folder: Path) -> Path:
    """Write PAGE into the folder of a cohort and return its path.

    Scans are named by their labels in the tables, without links, whose folders would name them. Raises OutputError if
    the tables are missing or have another schema, or the page cannot be written.
    """
    scans, scores, _ = (_read(folder, name) for name in TABLES)
    totals = [score for score in scores if score["artery"] == TOTAL]
    page = rendered(
        "cohort.html",
        "Cohort report",
        scans=scans,
        states=Counter(scan["state"] for scan in scans).most_common(),
        methods=_methods(totals, {scan["scan"] for scan in scans if WITHHOLDING in (scan["warnings"] or ())}),
        arteries=_arteries(scores),
        warnings=_warnings(scans),
        failures=_failures(scans),
        outliers=_outliers(scans, totals),
    )
    try:
        write_text_atomically(folder / PAGE, page)
    except OSError as error:
        raise OutputError(f"Cannot write {folder / PAGE}: {error.strerror}.") from error
    return folder / PAGE


def _read(folder: Path, name: str) -> list[Row]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    file = folder / TABLES[name]
    try:
        table = pq.read_table(file)
    except (OSError, pa.ArrowException) as error:
        raise OutputError(
            f"{file} is missing or damaged. Give the folder of a cohort; running its command again writes the tables."
        ) from error
    if (table.schema.metadata or {}).get(b"schema", b"").decode() != SCHEMA:
        raise OutputError(f"{file} is not of schema {SCHEMA}. Run the command of the cohort again.")
    return table.to_pylist()


def _methods(totals: Iterable[Row], withheld: Collection[str]) -> dict[str, dict[str, object]]:
    """Return statistics of total scores and the number of scans in each class, by the title of the method.

    withheld: Labels of scans whose automatic scores have no category.
    """
    by_method: dict[str, list[Row]] = defaultdict(list)
    for total in totals:
        by_method[total["method"]].append(total)
    figures = {}
    for method, scores in sorted(by_method.items(), reverse=True):
        values = np.array([total["agatston"] for total in scores], float)
        is_withheld = np.array([score["status"] == "automatic" and score["scan"] in withheld for score in scores])
        counts = Counter(np.searchsorted([*_CLASSES.values()], values[~is_withheld]).tolist())
        figures[METHOD_TITLES.get(method, method)] = {
            "states": Counter(total["status"] for total in scores).most_common(),
            "quartiles": np.percentile(values, (25, 50, 75)),
            "largest": values.max(),
            "zeros": int((values <= 0).sum()),
            "count": len(scores),
            "classes": {name: counts[n] for n, name in enumerate(_CLASSES)}
            | ({"category withheld": int(is_withheld.sum())} if is_withheld.any() else {}),
        }
    return figures


def _arteries(scores: Iterable[Row]) -> list[tuple[str, str, int, str]]:
    values = defaultdict(list)
    for score in scores:
        if score["artery"] != TOTAL:
            method: str = score["method"]
            values[METHOD_TITLES.get(method, method), score["artery"]].append(score["agatston"])
    scored = {key: agatstons for key, agatstons in sorted(values.items()) if any(agatstons)}
    return [(*key, sum(n > 0 for n in agatstons), f"{np.mean(agatstons):.1f}") for key, agatstons in scored.items()]


def _warnings(scans: Sequence[Row]) -> list[tuple[str, int, str]]:
    counts = Counter(code for scan in scans for code in scan["warnings"] or ())
    done = sum(scan["state"] == "done" for scan in scans) or 1
    return [(code, count, f"{100 * count / done:.1f} %") for code, count in counts.most_common()]


def _failures(scans: Iterable[Row]) -> list[tuple[str, int, str, str]]:
    """Return code, number of scans, and label and reason of one of them, the most frequent code first."""
    failed = defaultdict(list)
    for scan in scans:
        if scan["state"] == "failed":
            failed[scan["code"] or ""].append((scan["scan"][:8], scan["reason"] or ""))
    return [(code, len(group), *min(group)) for code, group in sorted(failed.items(), key=lambda item: -len(item[1]))]


def _outliers(scans: Iterable[Row], totals: Iterable[Row]) -> dict[str, list[tuple[str, str]]]:
    """Return each outlier's label and value by kind."""
    by_method: dict[str, dict[str, float]] = {"threshold": {}, "decomposition": {}}
    for total in totals:
        by_method.setdefault(total["method"], {})[total["scan"]] = total["agatston"]
    clinical, map_scores = by_method["threshold"], by_method["decomposition"]
    kinds: dict[str, Mapping[str, float]] = {
        "Largest scores": clinical,
        "Methods that disagree most": {n: abs(clinical[n] - map_scores[n]) for n in clinical.keys() & map_scores},
        "Most warnings": {scan["scan"]: len(scan["warnings"] or ()) for scan in scans},
    }
    outliers = {}
    for title, values in kinds.items():
        largest = sorted(values.items(), key=lambda item: (-item[1], item[0]))[:OUTLIER_COUNT]
        outliers[title] = [(scan, f"{value:.1f}") for scan, value in largest if value > 0]
    return outliers
