"""The scores of a cohort as tables of the OMOP common data model, version 5.4, with its medical imaging extension.

Image_occurrence, image_feature and measurement as github.com/OHDSI/ImageWG describes them (Park et al., J Imaging
Inform Med 2024; 37: 899). Keys of persons and procedures, dates and UIDs are the site's own, from a table that it
gives; nothing else that identifies a person is written.
"""

from __future__ import annotations

import json
import re
from datetime import date
from pathlib import Path
from typing import Any

from ..core.files import partial_folder
from ..core.output import OutputError
from ..core.tables import Line, TableError, read_table
from .folder import OMOP, RECORD
from .report import opened_tables, scan_folders

TABLES = ("image_occurrence", "image_feature", "measurement")

_IDS = ("person_id", "procedure_occurrence_id", "visit_occurrence_id")
_TEXTS = ("image_study_uid", "image_series_uid", "wadors_uri", "local_path")
_NEEDED = ("folder", "person_id", "procedure_occurrence_id", "image_occurrence_date", *_TEXTS[:2])
_LARGEST_ID = 2**31 - 1
_LONGEST = 250
"""Characters of a UID in the extension's tables."""

_CT, _MEASUREMENT_TABLE, _NO_CONCEPT = 4300757, 1147330, 0
"""Concepts: SNOMED's computed tomography; the table of measurements; none. A site maps measurement_source_value."""

_MEASURES = (
    ("agatston", "CASE method WHEN 'threshold' THEN agatston ELSE clinical_agatston END", "{score}"),
    ("volume", "CASE method WHEN 'threshold' THEN volume_mm3 END", "mm3"),
    ("mass", "mass_mg", "mg"),
)
"""What is exported of a method's total and arteries, on the clinical scale: name, value, unit in UCUM. The map's volume
and scores on its own scale mean nothing to others."""

_QUERIES = {
    "image_occurrence": f"""
        SELECT image_occurrence_id, person_id, procedure_occurrence_id, visit_occurrence_id,
            NULL AS anatomic_site_concept_id, wadors_uri, local_path, image_occurrence_date, image_study_uid,
            image_series_uid, {_CT} AS modality_concept_id
        FROM images ORDER BY image_occurrence_id""",
    "image_feature": f"""
        SELECT id AS image_feature_id, person_id, image_occurrence_id,
            {_MEASUREMENT_TABLE} AS image_feature_event_field_concept_id, id AS image_feature_event_id,
            {_NO_CONCEPT} AS image_feature_concept_id, {_NO_CONCEPT} AS image_feature_type_concept_id,
            NULL AS image_finding_concept_id, NULL AS image_finding_id, NULL AS anatomic_site_concept_id, $system AS
            alg_system, NULL AS alg_datetime
        FROM measured ORDER BY id""",
    "measurement": f"""
        SELECT id AS measurement_id, person_id, {_NO_CONCEPT} AS measurement_concept_id,
            image_occurrence_date AS measurement_date, NULL AS measurement_datetime, NULL AS measurement_time,
            {_NO_CONCEPT} AS measurement_type_concept_id, NULL AS operator_concept_id, value AS value_as_number,
            NULL AS value_as_concept_id, NULL AS unit_concept_id, NULL AS range_low, NULL AS range_high,
            NULL AS provider_id, visit_occurrence_id, NULL AS visit_detail_id,
            concat_ws('/', 'cac', method, artery, measure) AS measurement_source_value,
            NULL AS measurement_source_concept_id, unit AS unit_source_value, NULL AS unit_source_concept_id,
            status AS value_source_value, NULL AS measurement_event_id, NULL AS meas_event_field_concept_id
        FROM measured ORDER BY id""",
}


def write_omop(folder: Path, keys: Path) -> Path:
    """Write TABLES as CSV into OMOP below the folder of a cohort, and return it.

    keys: a table with the columns folder (as `cohort.csv` has it), person_id, procedure_occurrence_id,
    image_occurrence_date, image_study_uid, image_series_uid, and optionally visit_occurrence_id, wadors_uri and
    local_path. Lines without person_id, scans that are not listed or not scored, and candidates, which are no score,
    are left out. Ids begin at 1. Raises TableError, and OutputError as `report.opened_tables` does.
    """
    db = opened_tables(folder)
    _register_keys(db, folder, keys)
    db.execute(
        "CREATE TABLE images AS SELECT row_number() OVER (ORDER BY line) AS image_occurrence_id, keys.* "
        "FROM keys JOIN scans USING (scan) WHERE state = 'done'"
    )
    each = " UNION ALL ".join(
        f"SELECT *, {number} AS place, '{name}' AS measure, {value} AS value, '{unit}' AS unit FROM scores"
        for number, (name, value, unit) in enumerate(_MEASURES)
    )
    db.execute(
        "CREATE TABLE measured AS SELECT "
        "row_number() OVER (ORDER BY line, method DESC, artery <> 'total', artery, place) AS id, * "
        f"FROM images JOIN ({each}) USING (scan) WHERE status <> 'candidates' AND value IS NOT NULL"
    )
    try:
        with partial_folder(folder / OMOP) as place:
            for name in TABLES:
                query = _QUERIES[name].replace("$system", f"'{_system(folder)}'")
                db.execute(f"COPY ({query}) TO '{_quoted(place / f'{name}.csv')}' (HEADER)")
            (folder / OMOP).mkdir(exist_ok=True)
            for name in TABLES:
                (place / f"{name}.csv").replace(folder / OMOP / f"{name}.csv")
    except OSError as error:
        raise OutputError(f"Cannot write {folder / OMOP}: {error.strerror}.") from error
    return folder / OMOP


def _register_keys(db: Any, folder: Path, path: Path) -> None:
    table = read_table(path, short_lines=True)
    table.need(*_NEEDED)
    numbers = {name: scan for scan, name in scan_folders(folder).items()}
    lines = [line for line in table.lines if line.text("person_id")]
    if not lines:
        raise TableError(f"The table {path} has no line with a person_id. Fill it in for the scans that are wanted.")
    rows = []
    for number, line in enumerate(lines):
        line.need(*_NEEDED)
        if (scan := numbers.get(line.text("folder"))) is None:
            raise TableError(f"The folder in {line.where} is none of {folder}. Copy it from cohort.csv.")
        texts = [line.text(name) or None for name in _TEXTS]
        if any(len(text or "") > _LONGEST for text in texts[:2]):
            raise TableError(f"A UID in {line.where} has more than {_LONGEST} characters. Correct it.")
        rows.append((number, scan, *(_id(line, name) for name in _IDS), _date(line), *texts))
    if len({row[1] for row in rows}) < len(rows):
        raise TableError(f"A folder is in {path} twice. Keep one line for each scan.")
    names = [f"{name} INTEGER" for name in ("line",)] + ["scan VARCHAR"] + [f"{name} INTEGER" for name in _IDS]
    names += ["image_occurrence_date DATE", *(f"{name} VARCHAR" for name in _TEXTS)]
    db.execute(f"CREATE TABLE keys ({', '.join(names)})")
    db.executemany(f"INSERT INTO keys VALUES ({', '.join('?' * len(names))})", rows)


def _id(line: Line, name: str) -> int | None:
    value = line.number_in(name, 0, _LARGEST_ID, whole=True)
    return None if value is None else int(value)


def _date(line: Line) -> date:
    text = line.text("image_occurrence_date")
    try:
        return date(*map(int, re.fullmatch(r"(\d{4})-?(\d\d)-?(\d\d)", text).groups()))  # type: ignore[union-attr]
    except (AttributeError, ValueError) as error:
        raise TableError(f"The image_occurrence_date in {line.where} is no date. Write YYYY-MM-DD.") from error


def _system(folder: Path) -> str:
    """What scored, for the column alg_system."""
    try:
        models = json.loads((folder / RECORD).read_text(encoding="utf-8"))["made_with"]["models"]
        used = ", ".join(f"{network} {model}" for network, model in models.items())
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        used = ""
    return re.sub(r"[^\w .,:+-]", "", f"CAC: {used or 'clinical rule'}")


def _quoted(path: Path) -> str:
    return str(path).replace("'", "''")
