"""Report page of a cohort from its table: what to look at first, scores, figures, warnings, refused scans, outliers."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from ..core.errors import OutputError, TableError
from ..core.files import write_bytes_atomically, write_text_atomically
from ..core.labels import Artery
from ..core.tables import Line, read_table
from ..record.columns import TOTAL, Row
from ..report.attention import SEPARATOR, random_share, urgency
from ..report.headline import warning_lines
from ..report.page import rendered
from ..results import METHOD_TITLES
from ..scoring.scores import RISK_CLASSES, class_number
from .figures import CohortScore, figures_of
from .folder import TABLE
from .reviewed import count_reviews, is_cohort
from .scoring import whole_scores

PAGE = "cohort-report.html"
LOOK_FIRST_COUNT = 25
"""Number of scans in the list of those to look at first, beside the random share."""
OUTLIER_COUNT = 6
"""Number of outliers shown of each kind."""


def write_cohort_report(folder: Path, share: float = 0.0) -> Path:
    """Write PAGE and its figures into the folder of a cohort; return the page's path.

    Scans have the names of the table, and of results that identify patients their IDs too.

    Args:
        folder: Folder of the cohort.
        share: Proportion of the other scans, drawn at random, that the page lists to be checked too, 0 to 1.

    Raises:
        OutputError: The table is missing or damaged, or the page cannot be written.
    """
    if not 0 <= share <= 1:
        raise OutputError(f"--check is {share:g}. Give the proportion of scans to check, from 0 to 1.")
    if is_cohort(folder):
        count_reviews(folder)
    scans, scores = _read(folder / TABLE)
    totals = [score for score in scores if score["artery"] == TOTAL]
    to_check = _to_check(scans)
    others = [
        scan["scan"] for scan in scans if scan["state"] == "done" and not scan["reviewed"] and scan not in to_check
    ]
    drawn = random_share(others, share)
    figures = figures_of(_cohort_scores(scans, totals))
    page = rendered(
        "cohort.html",
        "Cohort report",
        scans=scans,
        states=Counter(scan["state"] for scan in scans).most_common(),
        to_check=to_check[:LOOK_FIRST_COUNT],
        more=len(to_check) - LOOK_FIRST_COUNT,
        drawn=[scan["label"] for scan in scans if scan["scan"] in drawn],
        methods=_methods(totals, {scan["scan"] for scan in scans if scan["withheld"]}),
        figures=figures,
        arteries=_arteries(scores),
        warnings=_warnings(scans, folder),
        failures=[scan for scan in scans if scan["state"] == "failed"],
        outliers=_outliers(scans, totals),
    )
    try:
        for figure in figures:
            for ending, content in figure.files.items():
                write_bytes_atomically(folder / f"{figure.name}.{ending}", content)
        write_text_atomically(folder / PAGE, page)
    except OSError as error:
        raise OutputError(f"Cannot write {folder / PAGE}: {error.strerror}.") from error
    return folder / PAGE


def _read(file: Path) -> tuple[list[Row], list[Row]]:
    """Return the scans of a cohort's table, and their scores by method and artery. Raises OutputError."""
    try:
        needed = ("scan", "state", "code", "reason", "warnings", "severe_warnings", "look_first", "name", "folder")
        table = read_table(file, needed)
        return [_scan(line) for line in table.lines], [score for line in table.lines for score in _scores(line)]
    except (TableError, ValueError) as error:
        raise OutputError(
            f"{file} is missing or damaged. Give the folder of a cohort; running its command again writes the table."
        ) from error


def _scan(line: Line) -> Row:
    row: Row = {key: line.text(key) for key in ("scan", "state", "code", "reason", "folder")}
    name = line.text("name").removeprefix("'")  # which guards formulas
    patient = line.text("patient_id").removeprefix("'")
    reviewed, undecided = line.text("threshold_reviewed"), line.text("threshold_alternative_agatston")
    row |= {"label": f"{patient} ({name})" if patient else name, "reviewed": reviewed == "True"}
    row |= {"severe": line.text("severe_warnings").split(), "warnings": line.text("warnings").split()}
    row |= {"withheld": line.text("threshold_withheld") == "True", "agatston": line.number_in("threshold_agatston")}
    row["reasons"] = [reason for reason in line.text("look_first").split(SEPARATOR) if reason]
    probability = line.number_in("threshold_category_probability")
    row["urgency"] = urgency(bool(row["severe"]), row["withheld"], bool(undecided), probability)
    return row


def _to_check(scans: Iterable[Row]) -> list[Row]:
    """Return the scans without a review that have a reason to be checked, the gravest first."""
    return sorted((scan for scan in scans if scan["reasons"] and not scan["reviewed"]), key=lambda s: -s["urgency"])


def _cohort_scores(scans: Iterable[Row], totals: Iterable[Row]) -> list[CohortScore]:
    """Return the scores of the scans that have a clinical one."""
    by_method: dict[str, dict[str, float]] = defaultdict(dict)
    for total in totals:
        by_method[total["method"]][total["scan"]] = total["agatston"]
    clinical, of_map = by_method["threshold"], by_method["decomposition"]
    scored = [(scan["scan"], bool(scan["severe"])) for scan in scans if scan["scan"] in clinical]
    return [CohortScore(clinical[label], of_map.get(label), is_severe) for label, is_severe in scored]


def _scores(line: Line) -> Iterator[Row]:
    """Yield the Agatston score of each artery by method, then of the TOTAL."""
    for method in METHOD_TITLES:
        columns = {artery.key: f"{method}_agatston_{artery.key}" for artery in Artery} | {TOTAL: f"{method}_agatston"}
        scored = {"scan": line.text("scan"), "method": method, "status": line.text(f"{method}_status")}
        for artery, column in columns.items():
            if agatston := line.text(column):
                yield {**scored, "artery": artery, "agatston": float(agatston)}


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


def _warnings(scans: Sequence[Row], folder: Path) -> list[tuple[str, int, str, int]]:
    """Return each warning in words, as the result of one scan has it, with the number of scans, its part, and how often
    it is severe; the most frequent first."""
    counts, severe = (Counter(code for scan in scans for code in set(scan[key])) for key in ("warnings", "severe"))
    done = sum(scan["state"] == "done" for scan in scans) or 1
    words = _words(scans, folder)
    return [(words.get(code, code), n, f"{100 * n / done:.1f} %", severe[code]) for code, n in counts.most_common()]


def _words(scans: Iterable[Row], folder: Path) -> dict[str, str]:
    """Return the first sentence of each warning by its code, from the result of the first scan that has it."""
    words: dict[str, str] = {}
    for scan in scans:
        name = scan["folder"]
        if Path(name).name == name and set(scan["warnings"]) - words.keys():
            record = whole_scores(folder / name)
            lines = [] if record is None else warning_lines(record.warnings, record.methods)
            words = {line.code: line.line for line in lines} | words
    return words


def _outliers(scans: Sequence[Row], totals: Iterable[Row]) -> dict[str, list[tuple[str, str]]]:
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
    labels = {scan["scan"]: scan["label"] for scan in scans}
    outliers = {}
    for title, values in kinds.items():
        largest = sorted(values.items(), key=lambda item: (-item[1], item[0]))[:OUTLIER_COUNT]
        outliers[title] = [(labels[scan], f"{value:.1f}") for scan, value in largest if value > 0]
    return outliers
