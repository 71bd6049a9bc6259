"""Dictionary of the columns of all tables, which a cohort writes beside its table."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from ..core.files import resource_rows
from ..core.labels import SITES
from ..core.tables import table_text
from ..networks.configs import ESTIMATORS
from ..record import columns as declared
from ..record.provenance import COLUMNS as PROVENANCE
from ..record.provenance import PATIENT_AND_JOURNAL
from ..results import METHOD_TITLES
from .table import columns

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
    of_cohort = columns(METHOD_TITLES, identify, ESTIMATORS) if names is None else names
    tables = {
        "lesions.csv": (*declared.LESIONS_CSV, *PATIENT_AND_JOURNAL),
        "features.csv": (*declared.FEATURES_CSV, *PATIENT_AND_JOURNAL),
        "readings.csv": declared.READINGS_CSV,
        "reading_lesions.csv": declared.READ_LESIONS_CSV,
        "agreement.csv": declared.AGREEMENT_CSV,
    }
    with_origin = {name: list(dict.fromkeys((*columns, *PROVENANCE))) for name, columns in tables.items()}
    return {"cohort.csv": list(of_cohort), **with_origin}


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
