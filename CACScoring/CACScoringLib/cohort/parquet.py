"""Results of a cohort as anonymous parquet tables: `scans`, `scores`, `lesions`.

A scan is identified by its label in `cohort.json`; names, paths and patients are only in `cohort.csv` unless requested.
Each file's metadata hold the version of the schema.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from ..core.acquisition import Acquisition
from ..core.files import partial_folder
from ..core.progress import ScanState
from ..record.features import PATIENT_FEATURES, ArteryFeatures, LesionFeatures
from ..record.provenance import COLUMNS
from ..record.score_record import ScoreRecord
from ..record.scores import MethodScore
from ..scans.source import ScanSource
from .scoring import read_record, whole_scores
from .table import result_row

SCHEMA = "cac-cohort-tables/2"
TABLES = ("scans", "scores", "lesions")
WRITTEN = "_tables"
"""Name of the temporary folder of the tables, which no scan's folder has."""
TOTAL = "total"
"""Value of `artery` for a method's total in `scores`."""

_PATH = re.compile(r"[^\s:'\"()]*[/\\][^\s:'\"()]*")
_SCORE = {
    **dict.fromkeys(("agatston", "adjusted_agatston", "volume_mm3", "mass_mg", "pseudo_mass_hu_mm3"), "double"),
    "lesions": "int32",
    "peak_hu": "double",
}
_COLUMNS: dict[str, dict[str, str]] = {
    "scans": {
        **dict.fromkeys(("scan", "state", "reason", "group", "name", "ct", "patient", "session"), "string"),
        **dict.fromkeys(("columns", "rows", "slices"), "int32"),
        **dict.fromkeys(("pixel_mm", "slice_spacing_mm", "noise_hu", "seconds"), "double"),
        **dict.fromkeys(("risk_class", "cac_drs", "content_sha256", *COLUMNS), "string"),
        "warnings": "list",
    },
    "scores": {
        **dict.fromkeys(("scan", "method", "artery", "status"), "string"),
        **_SCORE,
        **dict.fromkeys(("interval_low", "interval_high"), "double"),
        **dict.fromkeys((*(field.name for field in fields(ArteryFeatures)), *PATIENT_FEATURES), "double"),
        "left_main": "bool",
    },
    "lesions": {
        **dict.fromkeys(("scan", "method", "artery"), "string"),
        "lesion": "int32",
        **{name: kind for name, kind in _SCORE.items() if name != "lesions"},
        **{field.name: "double" for field in fields(LesionFeatures) if field.name != "id"},
    },
}
_IDENTIFYING = ("name", "ct", "patient", "session")

Row = dict[str, object]
"""Cells of a row by column."""


def write_tables(folder: Path, scans: Iterable[tuple[str, ScanSource, ScanState]], identify: bool) -> None:
    """Write the tables of a cohort from the results in its scans' folders, replacing earlier tables.

    scans: label, scan and state of each. Raises OSError.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows: dict[str, list[Row]] = {name: [] for name in TABLES}
    for number, scan, state in scans:
        for name, new_rows in rows_of(number, scan, state, identify).items():
            rows[name] += new_rows
    with partial_folder(folder / WRITTEN) as place:
        for name in TABLES:
            schema = pa.schema(_schema_fields(name, identify), metadata={"schema": SCHEMA})
            pq.write_table(pa.Table.from_pylist(rows[name], schema), table_path(place, name), compression="zstd")
        for name in TABLES:
            table_path(place, name).replace(table_path(folder, name))


def table_path(folder: Path, name: str) -> Path:
    """Return the path of a table."""
    return folder / f"{name}.parquet"


def rows_of(number: str, scan: ScanSource, state: ScanState, identify: bool) -> dict[str, list[Row]]:
    """Return the rows of a scan by table. Arguments as in `write_tables`."""
    status = "done" if state.state == "skipped" else state.state
    row: Row = {"scan": number, "state": status, "reason": state.reason, "group": scan.group or None}
    if identify:
        row |= {"name": scan.name, "ct": str(scan.ct), "patient": scan.patient or None, "session": scan.session or None}
    elif state.reason:
        row["reason"] = redact_paths(state.reason, scan)
    record = whole_scores(state.folder) if status == "done" else None
    if record is None:
        return {"scans": [row]}
    row |= _scan_facts(record, identify)
    if inputs := read_record(state.folder):
        row["content_sha256"] = inputs.content
    scores, lesions = _scores(number, record.methods), _lesions(number, record.methods)
    return {"scans": [row], "scores": [*scores], "lesions": [*lesions]}


def redact_paths(reason: str, scan: ScanSource) -> str:
    """Return the reason of a failure without paths and file names, which often contain names of patients."""
    text = _PATH.sub("…", reason)
    names = {str(scan.ct), scan.name, scan.ct.name, *scan.ct.parts[-3:]} - {"", "/"}
    for name in sorted(names, key=len, reverse=True):
        text = text.replace(name, "…")
    return text


def _schema_fields(name: str, identify: bool) -> list[tuple[str, Any]]:
    import pyarrow as pa

    kinds = {"list": pa.list_(pa.string()), "string": pa.string(), "double": pa.float64()}
    kinds |= {"int32": pa.int32(), "bool": pa.bool_()}
    column_kinds = dict(_COLUMNS[name])
    if name == "scans":
        for fact in Acquisition("").facts(identify):
            column_kinds.setdefault(fact, _kind_of_fact(fact))
    return [(key, kinds[kind]) for key, kind in column_kinds.items() if identify or key not in _IDENTIFYING]


def _kind_of_fact(name: str) -> str:
    annotation = str(Acquisition.__annotations__[name])
    return "double" if "float" in annotation or "int" in annotation else "string"


def _scan_facts(record: ScoreRecord, identify: bool) -> Row:
    row, categories = result_row(record), record.categories
    facts = {name: row.get(name) for name in Acquisition("").facts(identify)}
    texts = {name: str(v) for name, v in facts.items() if v is not None and _kind_of_fact(name) == "string"}
    classes = {name: getattr(categories, name, None) for name in ("risk_class", "cac_drs")}
    withheld = {} if identify else {"command": None, "reader": None}  # they may name people
    return {**row, **texts, **classes, **withheld, "warnings": [*record.warning_codes]}


def _scores(number: str, methods: Mapping[str, MethodScore]) -> Iterator[Row]:
    for method, result in methods.items():
        for artery, score in {TOTAL: result.total, **{a.key: s for a, s in result.arteries.items()}}.items():
            low, high = score.interval_90 or (None, None)
            about = {"scan": number, "method": method, "artery": artery, "status": result.status}
            interval = {"interval_low": low, "interval_high": high}
            yield {**about, **score.cells(method == "decomposition"), **interval, **_features(result, artery)}


def _lesions(number: str, methods: Mapping[str, MethodScore]) -> Iterator[Row]:
    for method, result in methods.items():
        features = {} if result.features is None else {part.id: asdict(part) for part in result.features.lesions}
        for lesion in result.lesions:
            about = {"scan": number, "method": method, "artery": lesion.site.key, "lesion": lesion.id}
            yield about | lesion.cells(method == "decomposition") | features.get(lesion.id, {})


def _features(method: MethodScore, artery: str) -> Row:
    """Return the features of an artery or of the total."""
    if method.features is None:
        return {}
    if artery == TOTAL:
        return dict(method.features.patient)
    part = method.features.arteries.get(artery)
    return {} if part is None else asdict(part)
