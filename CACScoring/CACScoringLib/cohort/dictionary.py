"""Data dictionary of the tables: type, unit, scale and meaning of each declared column."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from ..core.acquisition import Acquisition
from ..core.labels import Artery, NonCoronary
from ..core.options import attribute_texts
from ..core.tables import table_text
from ..record.columns import COLUMNS, FEATURES_CSV, LESIONS_CSV, PARQUET, Column
from ..record.features import ArteryFeatures, Features, LesionFeatures
from ..record.provenance import COLUMNS as PROVENANCE
from ..record.provenance import Provenance
from ..record.scores import Lesion, SumScore, Verdict
from ..results import METHOD_TITLES
from .parquet import declared_columns
from .table import columns

HEAD = ("table", "column", "type", "unit", "scale", "empty", "meaning")
FILE = "dictionary.csv"

_SCORE = "Agatston score on the clinical scale; of the calcium map its equivalent"
MEANINGS: dict[str, str] = {
    **{name: text for kind in (Provenance, Acquisition) for name, text in attribute_texts(kind).items()},
    **{
        name: text
        for kind in (Features, ArteryFeatures, LesionFeatures)
        for name, text in attribute_texts(kind).items()
    },
    **{name: text for kind in (Verdict, Lesion, SumScore) for name, text in attribute_texts(kind).items()},
    "a_mm": "position of the lesion's middle towards the front",
    "adjusted_agatston": "score of the calcium map before conversion to the clinical scale",
    "agatston": _SCORE,
    "artery": "artery, or site outside the arteries; total for all arteries",
    "cac_commit": "commit of CAC's source code",
    "cac_drs": "CAC-DRS class, such as A2/N3",
    "cac_version": "version of CAC",
    "category_probability": "probability of the likeliest category",
    "code": "code of a failure",
    "confirmed": "time of confirmation",
    "content_sha256": "SHA-256 of the scan's files",
    "ct": "path of the scan",
    "diseased_arteries": "number of LM, LAD, LCX and RCA with calcium",
    "epicardial_fat_cm3": "volume of epicardial fat",
    "epicardial_fat_cm3_per_m2": "volume of epicardial fat by body surface",
    "epicardial_fat_hu": "mean of epicardial fat",
    "first_slice": "lowest slice, counted from 0 at the feet",
    "folder": "folder of the result",
    "image_columns": "columns of a slice",
    "image_rows": "rows of a slice",
    "input_sha256": "SHA-256 of the CT's voxels",
    "interval_high": "upper end of the 90 % interval",
    "interval_low": "lower end of the 90 % interval",
    "last_slice": "highest slice",
    "left_out": "number of candidates that do not count",
    "lesion": "number of the lesion in its scan",
    "likely_category": "likeliest category",
    "method": "threshold for the clinical rule, decomposition for the calcium map",
    "models_sha256": "SHA-256 of all models",
    "name": "name of the scan",
    "noise_hu": "standard deviation of noise in blood",
    "patient": "patient, as the input table states",
    "pixel_mm": "width of a pixel",
    "pseudo_mass_hu_mm3": "sum of HU × voxel volume",
    "r_mm": "position of the lesion's middle towards the patient's right",
    "radiomics_probability": "probability of calcium by radiomics",
    "reader": "reader who confirmed the score",
    "reason": "reason for a failure",
    "reviewed": "True if a reader confirmed the score",
    "risk_class": "class of the Agatston score",
    "s_mm": "position of the lesion's middle towards the head",
    "scaled_agatston": "score of the calcium map on the clinical scale",
    "scan": "key of a scan, in all tables",
    "scan_group": "group, as the input table states",
    "seconds": "time of scoring",
    "session": "session, as the input table states",
    "site": "name and SHA-256 of the site file",
    "slice_spacing_mm": "distance between slices",
    "slices": "number of slices",
    "state": "done, failed, running or waiting",
    "status": "automatic, candidates, given or reviewed",
    "suggested_artery": "artery that the networks suggest",
    "vessels_agatston": "Agatston score by vessel regression",
    "warnings": "codes of warnings",
}
"""Meaning of each column, from the attributes whose names it has."""

_PREFIXES = {
    **{f"{method}_": title for method, title in METHOD_TITLES.items()},
    "non_coronary_": "outside the arteries",
}
_UNITS = {
    r"mass_factor_\w+": "mg/cm³ per HU",
    r"\w+_hu_mm3": "HU·mm³",
    r"\w+_mm3": "mm³",
    r"\w+_cm3_per_m2": "cm³/m²",
    r"\w+_cm3": "cm³",
    r"\w+_mm": "mm",
    r"\w+_hu": "HU",
    r"\w+_mg": "mg",
    r"\w+_mas": "mAs",
    r"\w+_years": "years",
    r"\w+_m": "m",
    r"\w+_kg": "kg",
    "kvp": "kV",
    "seconds": "s",
}
_SCALES = {
    r"\w*(probability|confidence|share|in_proximal_third|diffusivity|sphericity)": "0 to 1",
    "risk_class": "0; 1–10; 11–100; 101–400; > 400",
    "likely_category": "0; 1–99; 100–399; 400+",
    "mean_weight": "1 to 4",
    "created|confirmed": "ISO 8601 with time zone",
    "study_date": "YYYYMMDD",
    "reviewed|left_main": "True, False",
}
_KEYS = ("scan", "state", "method", "artery", "lesion", "status")
"""Columns that are never empty in the tables of scores and lesions."""


def dictionary(tables: Mapping[str, Iterable[Column]]) -> list[tuple[str, ...]]:
    """Return the lines of the dictionary below HEAD. tables: Columns by the name of the table."""
    return [(table, *_described(column)) for table, listed in tables.items() for column in listed]


def all_tables(identify: bool = True, names: Iterable[str] | None = None) -> dict[str, list[Column]]:
    """Return the columns of all tables.

    Args:
        identify: With columns that identify a person.
        names: Columns of `cohort.csv`; None for those of all methods.
    """
    of_cohort = columns(METHOD_TITLES, identify, ("vessels", "radiomics")) if names is None else names
    tables = {"cohort.csv": [_column(name) for name in of_cohort]}
    tables |= {f"{name}.parquet": declared_columns(name, identify) for name in PARQUET}
    for name, listed in {"lesions.csv": LESIONS_CSV, "features.csv": FEATURES_CSV}.items():
        tables[name] = [_column(column) for column in (*listed, *PROVENANCE)]
    return tables


def dictionary_text(tables: Mapping[str, Iterable[Column]]) -> str:
    """Return the dictionary as CSV."""
    return table_text(HEAD, dictionary(tables))


def _column(name: str) -> Column:
    base = _base(name)[0]
    return Column(name, kind=COLUMNS[base].kind if base in COLUMNS else "double")


def _base(name: str) -> tuple[str, str]:
    """Return the name of a column without the method or site that it is of, and that in words."""
    prefix = next((prefix for prefix in _PREFIXES if name.startswith(prefix)), "")
    base, of = name.removeprefix(prefix), _PREFIXES.get(prefix, "")
    for site in (*Artery, *NonCoronary):
        if base == f"agatston_{site.key}":
            return "agatston", f"{of}, {site.full_name}"
    return base, of


def _described(column: Column) -> tuple[str, ...]:
    base, of = _base(column.name)
    unit = next((unit for pattern, unit in _UNITS.items() if re.fullmatch(pattern, base)), "")
    scale = next((scale for pattern, scale in _SCALES.items() if re.fullmatch(pattern, base)), "")
    meaning = MEANINGS[base] + (f" ({of})" if of else "")
    return column.name, column.kind, unit, scale, "never" if column.name in _KEYS else "unknown", meaning
