"""CSV tables of a cohort with a row per scan, from its `scores.json`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from ..core.acquisition import Acquisition
from ..core.labels import Artery, NonCoronary
from ..core.progress import ScanState
from ..core.tables import table_text
from ..core.text import printable
from ..networks.configs import ESTIMATORS
from ..record.columns import CATEGORIES, COHORT_METHOD, GEOMETRY, INTERVAL, TOTAL, score_cells, site_cells
from ..record.findings import PATIENT_FEATURES
from ..record.provenance import COLUMNS
from ..record.score_record import ScoreRecord
from ..report.attention import SEPARATOR, attention
from ..results import METHOD_TITLES
from ..scans.source import ScanSource

SCAN = ("name", "folder", "ct", "patient", "session", "scan_group", "state", "code", "reason", "scan")
"""Columns of a scan whatever its scores."""

_AUTOMATIC = {f"automatic_{name}": name for name in ("status", "agatston", *INTERVAL)}
AUTOMATIC = tuple(f"{method}_{name}" for method in METHOD_TITLES for name in _AUTOMATIC)
"""Columns of the result before its review; empty in rows that are not reviewed."""

_FAT = {
    "epicardial_fat_cm3": "volume_cm3",
    "epicardial_fat_hu": "mean_hu",
    "epicardial_fat_cm3_per_m2": "indexed_cm3_per_m2",
}
"""Columns of epicardial fat, and their keys in `scores.json`."""
_LIKELY = ("likely_category", "category_probability")
_METHOD_COLUMNS = {
    "threshold": ("left_out", *CATEGORIES, *_LIKELY, "withheld", "alternative_agatston"),
    "decomposition": ("adjusted_agatston", "scaled_agatston"),
}
"""Columns of one method only. left_out: candidates that an automatic clinical score does not count. The agatston of
every method is on the clinical scale; scaled_agatston repeats it, as in `scores.json`."""
_QUANTITIES = {"total": "agatston", "probability": "probability"}
_ESTIMATES = {name: (f"{name}_{_QUANTITIES[role.estimate]}", role.estimate) for name, role in ESTIMATORS.items()}
"""Column of each whole-scan estimate, and the key of its number in `scores.json`."""


def columns(methods: Iterable[str], identify: bool, estimates: Iterable[str] = ()) -> list[str]:
    """Return the columns of `cohort.csv`, see `result_row` and `line`. estimates: kinds of whole-scan estimates."""
    names = [*SCAN, "look_first", "warnings", "severe_warnings", *Acquisition("").facts(identify), *GEOMETRY]
    for method in methods:
        names += [f"{method}_{part}" for part in (*COHORT_METHOD, *_METHOD_COLUMNS[method], *_AUTOMATIC)]
        names += [f"{method}_{part}" for part in (*(f"agatston_{artery.key}" for artery in Artery), *PATIENT_FEATURES)]
    elsewhere = [f"non_coronary_agatston_{site.key}" for site in NonCoronary]
    return [*names, *(_ESTIMATES[network][0] for network in estimates), *COLUMNS, "seconds", *elsewhere, *_FAT]


def automatic_cells(run: ScoreRecord) -> dict[str, object]:
    """Return the cells of AUTOMATIC. run: Result that was reviewed."""
    row: dict[str, object] = {}
    for name, method in run.methods.items():
        cells = {"status": method.status, **score_cells(method.total, method.is_map)}
        row |= {f"{name}_{column}": cells[part] for column, part in _AUTOMATIC.items()}
    return row


def result_row(record: ScoreRecord) -> dict[str, object]:
    """Return the row of `cohort.csv` for a scored scan."""
    columns_mm, _, slices_mm = record.input.spacing_mm
    to_check = attention(record)
    row: dict[str, object] = {
        "look_first": SEPARATOR.join(to_check.reasons),
        "warnings": " ".join(record.warning_codes),
        "severe_warnings": " ".join(to_check.severe),
        **record.acquisition.facts(identify=True),
        **dict(zip(GEOMETRY[:3], record.input.size, strict=True)),
        "pixel_mm": columns_mm,
        "slice_spacing_mm": slices_mm,
        "noise_hu": record.noise_hu,
        "seconds": round(sum(record.seconds.values()), 3),
        **record.provenance_cells,
    }
    for name, method in record.methods.items():
        row |= {f"{name}_{part}": getattr(method, part) for part in ("status", "reviewed")}
        sites = site_cells(method)
        row |= {f"{name}_{column}": value for column, value in sites[TOTAL].items()}
        row[f"{name}_scaled_agatston"] = method.total.clinical_agatston if method.is_map else None
        row |= {f"{name}_agatston_{artery}": cells["agatston"] for artery, cells in sites.items()}
    row["threshold_withheld"], row["threshold_alternative_agatston"] = to_check.withheld, to_check.alternative_agatston
    if row.get("threshold_status") == "automatic":
        row["threshold_left_out"] = len(record.methods["threshold"].left_out)
    if categories := record.categories:
        row |= {f"{categories.method}_{name}": getattr(categories, name) for name in CATEGORIES}
        if probabilities := categories.probabilities:
            likeliest = max(probabilities, key=probabilities.__getitem__)
            # Spreadsheets read a plain hyphen as a date.
            likeliest_values = (likeliest.replace("-", "–"), probabilities[likeliest])
            row |= {f"threshold_{part}": value for part, value in zip(_LIKELY, likeliest_values, strict=True)}
    if elsewhere := record.non_coronary:
        row |= {f"non_coronary_agatston_{site.key}": score.agatston for site, score in elsewhere.scores.items()}
    if fat := record.epicardial_fat:
        row |= {column: getattr(fat, key) for column, key in _FAT.items()}
    for network, estimate in record.second_opinions.items():
        if network in _ESTIMATES:
            column, key = _ESTIMATES[network]
            row[column] = getattr(estimate, key)
    return row


def with_scores(state: ScanState, record: ScoreRecord) -> ScanState:
    """Return the state with the scores of a scan."""
    methods = record.methods
    return replace(
        state,
        reason=None,
        status={name: method.status for name, method in methods.items()},
        agatston={name: method.total.clinical_agatston for name, method in methods.items()},
        warnings=record.warning_codes,
        severe=tuple(record.severe_warnings(state.name)),
        seconds=round(sum(record.seconds.values()), 3),
    )


def line(scan: ScanSource, state: ScanState, row: dict[str, object], names: Sequence[str]) -> str:
    """Return a scan's line of `cohort.csv`: its state, and its acquisition and scores once it is done.

    row: result of `result_row`, or empty.
    """
    fixed = {
        "name": scan.name,
        "folder": state.folder.name if row else None,
        "ct": printable(str(scan.ct)),
        "patient": scan.patient,
        "session": scan.session,
        "scan_group": scan.group,
        "state": "done" if state.state == "skipped" else state.state,
        "code": state.code,
        "reason": _one_line(state.reason),
        "scan": scan.label,
    }
    text = table_text(names, [{**row, **fixed}], guarded=True)
    return text.partition("\n")[2]


def failures_as_csv(scans: Sequence[ScanSource], states: Sequence[ScanState]) -> str:
    """Return the content of `failures.csv`: the scans that could not be scored, each with a code and the reason."""
    failed = [
        {"name": scan.name, "ct": printable(str(scan.ct)), "code": state.code, "reason": _one_line(state.reason)}
        for scan, state in zip(scans, states, strict=True)
        if state.state == "failed"
    ]
    return table_text(("name", "ct", "code", "reason"), failed, guarded=True)


def _one_line(text: str | None) -> str | None:
    return None if text is None else "; ".join(line.strip() for line in text.splitlines())
