"""Report page of a cohort from its table: scores, warnings, failures, outliers."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from ..core.errors import OutputError, TableError
from ..core.files import write_text_atomically
from ..core.labels import Artery
from ..core.tables import Line, read_table
from ..record.columns import TOTAL, Row
from ..report.page import rendered
from ..results import METHOD_TITLES
from ..scoring.scores import RISK_CLASSES, class_number
from .folder import TABLE
from .reviewed import count_reviews, is_cohort

PAGE = "cohort-report.html"
WITHHOLDING = "beyond-calibration"
"""Code of the warning that withholds the category of an automatic score."""
OUTLIER_COUNT = 6
"""Number of outliers shown of each kind."""

_PATH = re.compile(r"[^\s:'\"()]*[/\\][^\s:'\"()]*")


def write_cohort_report(folder: Path) -> Path:
    """Write PAGE into the folder of a cohort and return its path.

    Scans are named by their labels in the table, without links, whose folders would name them. Raises OutputError if
    the table is missing or damaged, or the page cannot be written.
    """
    if is_cohort(folder):
        count_reviews(folder)
    scans, scores = _read(folder / TABLE)
    totals = [score for score in scores if score["artery"] == TOTAL]
    page = rendered(
        "cohort.html",
        "Cohort report",
        scans=scans,
        states=Counter(scan["state"] for scan in scans).most_common(),
        methods=_methods(totals, {scan["scan"] for scan in scans if WITHHOLDING in scan["warnings"]}),
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


def _read(file: Path) -> tuple[list[Row], list[Row]]:
    """Return the scans of a cohort's table, and their scores by method and artery. Raises OutputError."""
    try:
        table = read_table(file, ("scan", "state", "code", "reason", "warnings", "name", "ct"))
        identifies = "patient_name" in table
        scans = [_scan(line, identifies) for line in table.lines]
        return scans, [score for line in table.lines for score in _scores(line)]
    except (TableError, ValueError) as error:
        raise OutputError(
            f"{file} is missing or damaged. Give the folder of a cohort; running its command again writes the table."
        ) from error


def _scan(line: Line, identifies: bool) -> Row:
    row: Row = {key: line.text(key) for key in ("scan", "state", "code", "reason")}
    if not identifies:
        name, ct = (line.text(key).removeprefix("'") for key in ("name", "ct"))  # which guards formulas
        row["reason"] = redact_paths(row["reason"], name, ct)
    return row | {"warnings": line.text("warnings").split()}


def _scores(line: Line) -> Iterator[Row]:
    """Yield the Agatston score of each artery by method, then of the TOTAL."""
    for method in METHOD_TITLES:
        columns = {artery.key: f"{method}_agatston_{artery.key}" for artery in Artery} | {TOTAL: f"{method}_agatston"}
        scored = {"scan": line.text("scan"), "method": method, "status": line.text(f"{method}_status")}
        for artery, column in columns.items():
            if agatston := line.text(column):
                yield {**scored, "artery": artery, "agatston": float(agatston)}


def redact_paths(reason: str, name: str, ct: str) -> str:
    """Return the reason of a failure without paths and file names, which often contain names of patients."""
    text = _PATH.sub("…", reason)
    names = {ct, name, Path(ct).name, *Path(ct).parts[-3:]} - {"", "/"}
    for part in sorted(names, key=len, reverse=True):
        text = text.replace(part, "…")
    return text


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
        counts = Counter(map(class_number, values[~is_withheld].tolist()))
        figures[METHOD_TITLES.get(method, method)] = {
            "states": Counter(total["status"] for total in scores).most_common(),
            "quartiles": np.percentile(values, (25, 50, 75)),
            "largest": values.max(),
            "zeros": int((values <= 0).sum()),
            "count": len(scores),
            "classes": {name: counts[n] for n, name in enumerate(RISK_CLASSES)}
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
    counts = Counter(code for scan in scans for code in scan["warnings"])
    done = sum(scan["state"] == "done" for scan in scans) or 1
    return [(code, count, f"{100 * count / done:.1f} %") for code, count in counts.most_common()]


def _failures(scans: Iterable[Row]) -> list[tuple[str, int, str, str]]:
    """Return code, number of scans, and label and reason of one of them, the most frequent code first."""
    failed = defaultdict(list)
    for scan in scans:
        if scan["state"] == "failed":
            failed[scan["code"]].append((scan["scan"][:8], scan["reason"]))
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
        "Most warnings": {scan["scan"]: len(scan["warnings"]) for scan in scans},
    }
    outliers = {}
    for title, values in kinds.items():
        largest = sorted(values.items(), key=lambda item: (-item[1], item[0]))[:OUTLIER_COUNT]
        outliers[title] = [(scan, f"{value:.1f}") for scan, value in largest if value > 0]
    return outliers
