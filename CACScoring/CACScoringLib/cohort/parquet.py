"""Results of a cohort as anonymous parquet tables (`scans`, `scores`, `lesions`), and the dictionary of columns.

A scan is identified by its label in `cohort.json`; names and paths are only in `cohort.csv` unless requested.
Patients and sessions are those of the user's table.
Each file's metadata hold the version of the schema.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ..core.acquisition import Acquisition
from ..core.files import partial_folder, resource_rows
from ..core.labels import SITES
from ..core.progress import ScanState
from ..core.tables import table_text
from ..record import columns as declared
from ..record.columns import CATEGORIES, COLUMNS, PARQUET, Column, Row, lesion_rows, score_rows
from ..record.provenance import COLUMNS as PROVENANCE
from ..record.provenance import PATIENT_AND_JOURNAL
from ..record.score_record import ScoreRecord
from ..results import METHOD_TITLES
from ..scans.source import ScanSource
from .scoring import read_record, whole_scores
from .table import columns, result_row

SCHEMA = "cac-cohort-tables/3"
TABLES = {name: f"{name}.parquet" for name in PARQUET}
"""Files of the tables in the folder of a cohort."""
WRITTEN = "_tables"
"""Name of the temporary folder of the tables, which no scan's folder has."""

_PATH = re.compile(r"[^\s:'\"()]*[/\\][^\s:'\"()]*")
_IDENTIFYING = ("name", "ct")


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
        for name, file in TABLES.items():
            schema = pa.schema(_schema_fields(name, identify), metadata={"schema": SCHEMA})
            pq.write_table(pa.Table.from_pylist(rows[name], schema), place / file, compression="zstd")
        for file in TABLES.values():
            (place / file).replace(folder / file)


def rows_of(number: str, scan: ScanSource, state: ScanState, identify: bool) -> dict[str, list[Row]]:
    """Return the rows of a scan by table. Arguments as in `write_tables`."""
    status = "done" if state.state == "skipped" else state.state
    row: Row = {"scan": number, "state": status, "code": state.code or None, "reason": state.reason}
    # As in the user's table.
    row |= {"patient": scan.patient or None, "session": scan.session or None, "scan_group": scan.group or None}
    if identify:
        row |= {"name": scan.name, "ct": str(scan.ct)}
    elif state.reason:
        row["reason"] = redact_paths(state.reason, scan)
    record = whole_scores(state.folder) if status == "done" else None
    if record is None:
        return {"scans": [row]}
    row |= _scan_facts(record, identify)
    if inputs := read_record(state.folder):
        row["content_sha256"] = inputs.content
    scores, lesions = score_rows(record.methods), lesion_rows(record.methods)
    return {
        "scans": [row],
        "scores": [{"scan": number, **score} for score in scores],
        "lesions": [{"scan": number, **lesion} for lesion in lesions if lesion["method"] in record.methods],
    }


def redact_paths(reason: str, scan: ScanSource) -> str:
    """Return the reason of a failure without paths and file names, which often contain names of patients."""
    text = _PATH.sub("…", reason)
    names = {str(scan.ct), scan.name, scan.ct.name, *scan.ct.parts[-3:]} - {"", "/"}
    for name in sorted(names, key=len, reverse=True):
        text = text.replace(name, "…")
    return text


def declared_columns(name: str, identify: bool) -> list[Column]:
    """Return the columns of a table. identify: With those that identify a person."""
    names = (*PARQUET[name], *(Acquisition("").facts(identify) if name == "scans" else ()))
    return [COLUMNS[key] for key in names if identify or key not in _IDENTIFYING]


def _schema_fields(name: str, identify: bool) -> list[tuple[str, Any]]:
    import pyarrow as pa

    kinds = {"list": pa.list_(pa.string()), "string": pa.string(), "double": pa.float64()}
    kinds |= {"int32": pa.int32(), "bool": pa.bool_()}
    return [(column.name, kinds[column.kind]) for column in declared_columns(name, identify)]


def _scan_facts(record: ScoreRecord, identify: bool) -> Row:
    classes = {name: getattr(record.categories, name, None) for name in CATEGORIES}
    withheld = {} if identify else {"command": None, "reader": None}  # they may name people
    return {**result_row(record), **classes, **withheld, "warnings": [*record.warning_codes]}


FILE = "dictionary.csv"
HEAD = ("table", "column", "type", "unit", "scale", "empty", "meaning")

_PREFIXES = {"threshold_": "clinical rule", "decomposition_": "calcium map", "non_coronary_": "outside the arteries"}
_KEYS = ("scan", "state", "method", "artery", "lesion", "status")
"""Columns that are never empty."""


def all_tables(identify: bool = True, names: Iterable[str] | None = None) -> dict[str, list[str]]:
    """Return the columns of all tables.

    Args:
        identify: With columns that identify a person.
        names: Columns of `cohort.csv`; None for those of all methods.
    """
    of_cohort = columns(METHOD_TITLES, identify, ("vessels", "radiomics")) if names is None else names
    parquet = {f"{name}.parquet": [c.name for c in declared_columns(name, identify)] for name in PARQUET}
    tables = {
        "lesions.csv": (*declared.LESIONS_CSV, *PATIENT_AND_JOURNAL),
        "features.csv": (*declared.FEATURES_CSV, *PATIENT_AND_JOURNAL),
        "readings.csv": declared.READINGS_CSV,
        "reading_lesions.csv": declared.READ_LESIONS_CSV,
        "agreement.csv": declared.AGREEMENT_CSV,
    }
    with_origin = {name: list(dict.fromkeys((*columns, *PROVENANCE))) for name, columns in tables.items()}
    return {"cohort.csv": list(of_cohort), **parquet, **with_origin}


def dictionary(tables: Mapping[str, Iterable[str]]) -> list[tuple[str, ...]]:
    """Return the lines of the dictionary below HEAD. tables: Columns by the name of the table."""
    facts = {row["column"]: row for row in resource_rows("columns.csv")}
    return [(table, *_described(name, facts)) for table, names in tables.items() for name in names]


def dictionary_text(tables: Mapping[str, Iterable[str]]) -> str:
    """Return the dictionary as CSV."""
    return table_text(HEAD, dictionary(tables))


def _described(name: str, facts: Mapping[str, Mapping[str, str]]) -> tuple[str, ...]:
    prefix = next((prefix for prefix in _PREFIXES if name.startswith(prefix)), "")
    base, parts = name.removeprefix(prefix), [_PREFIXES[prefix]] if prefix else []
    if site := next((site for site in SITES if base == f"agatston_{site.key}"), None):
        base, parts = "agatston", [*parts, site.full_name]
    fact = facts[base]
    meaning = f"{fact['meaning']} ({', '.join(parts)})" if parts else fact["meaning"]
    return name, fact["kind"], fact["unit"], fact["scale"], "never" if name in _KEYS else "unknown", meaning
