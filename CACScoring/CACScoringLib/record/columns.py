"""Columns of all tables of lesions, sites and scans, each declared once, and the cells of their rows.

A number of a `Lesion`, of a `Score` or of their features is a cell under the name of its field. To show it, declare
its column in columns.csv, and name it in the tables that it belongs to.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any

from ..core.acquisition import PSEUDONYM
from ..core.files import resource_rows
from .findings import PATIENT_FEATURES, ArteryFeatures, LesionFeatures
from .provenance import PATIENT_AND_JOURNAL

if TYPE_CHECKING:  # the panel loads this file before the packages that scores need
    from .scores import Lesion, MethodScore, NonCoronaryScore, Score

Cell = str | int | float | None
Row = dict[str, Any]
"""Cells by the names of their columns; of those that a table does not have, too."""

TOTAL = "total"
"""Artery of a row that holds all arteries."""

_READABLE_UNITS = {"mm2": "mm²", "mm3": "mm³", "[hnsf'U]": "HU", "[hnsf'U].mm3": "HU·mm³", "1": ""}


@dataclass(frozen=True)
class Column:
    """A number or a word about a lesion, a site or a scan.

    Attributes:
        name: Name in files and of its cells.
        title: Title in tables for people.
        unit: UCUM unit; empty for words.
        kind: Type in tables with types: "double", "int32", "string", "bool", or "list" of strings.
        heading: Title in the panel's narrow table, if not `title` above the unit.
        menu: Name in the menu of the panel's table, in which the column is hidden until the user chooses it; else "".
        factor: Factor from the cell to the unit.
        decimals: Decimals for people.
        is_blinded: True if its number shows what the networks found, so that a blind reader must not see it.
    """

    name: str
    title: str = ""
    unit: str = ""
    kind: str = "double"
    heading: str = ""
    menu: str = ""
    factor: int = 1
    decimals: int = 0
    is_blinded: bool = False

    @property
    def readable_unit(self) -> str:
        """Unit as people write it."""
        return _READABLE_UNITS.get(self.unit, self.unit)

    @property
    def titled(self) -> str:
        """Title with the unit."""
        return f"{self.title} {self.readable_unit}".strip()

    @property
    def narrow_title(self) -> str:
        """Title in the panel's table."""
        return self.heading or f"{self.title}\n{self.readable_unit}".strip()

    def rounded(self, value: Cell) -> str | int | float:
        """Return a cell rounded for people, numbers from 1000 without decimals; empty if unknown."""
        if value is None or isinstance(value, str):
            return value or ""
        scaled = value * self.factor
        return round(scaled, self.decimals) if self.decimals and scaled < 1000 else round(scaled)

    def text(self, value: float | None) -> str:
        """Return a number with its decimals; "–" if unknown."""
        return "–" if value is None else f"{value * self.factor:.{self.decimals}f}"


COLUMNS = {
    row["column"]: Column(
        *(row["column"], row["title"].replace("|", "\n"), row["ucum"], row["kind"], row["heading"], row["menu"]),
        *(int(row["factor"] or 1), int(row["decimals"] or 0), bool(row["blinded"])),
    )
    for row in resource_rows("columns.csv")
}
"""Columns by name, as declared in columns.csv."""

BLINDED = tuple(column.name for column in COLUMNS.values() if column.is_blinded)
"""Numbers of a lesion that a blind reader must not see."""

_SUMS = ("agatston", "adjusted_agatston", "volume_mm3", "mass_mg", "pseudo_mass_hu_mm3")
_MASSES = ("integrated_mass_mg", "mass_standard_error_mg")
_LESION_FEATURES = tuple(f.name for f in fields(LesionFeatures) if f.name != "id")
_SITE_FEATURES = tuple(dict.fromkeys((*(f.name for f in fields(ArteryFeatures)), *PATIENT_FEATURES)))
_SCENE_NUMBERS = ("agatston", "volume_mm3", "mass_mg", "pseudo_mass_hu_mm3", "peak_hu")

LESIONS_CSV = (
    *("method", "lesion", "artery", "first_slice", "last_slice", "voxels", "volume_mm3", "peak_hu", "mean_hu"),
    *("agatston", "adjusted_agatston", "mass_mg", "pseudo_mass_hu_mm3", "r_mm", "a_mm", "s_mm"),
    *("suggested_artery", "confidence", "not_coronary_probability", *_MASSES),
)
FEATURES_CSV = (
    *("method", "artery", "lesion", "lesions", *_SUMS, *_MASSES, "peak_hu", "mean_hu"),
    *dict.fromkeys((*_LESION_FEATURES, *_SITE_FEATURES)),
)
READ_LESION = ("lesion", "voxels", "slice", "image_row", "image_column", "lesion_site")
READINGS_CSV = (
    *("scan", "patient", "reader", "repetition", "time", "seconds", "changes", "agatston", "category"),
    *PATIENT_AND_JOURNAL,
)
READ_LESIONS_CSV = ("scan", "patient", "reader", "repetition", "time", *READ_LESION, *PSEUDONYM)
"""Columns of the lesions of readings, which `readings.csv` has totals of."""
AGREEMENT_CSV = ("first", "second", "measure", "estimate", "low", "high", "interval", "n", "scans")
COPIED = ("method", "artery", "lesions", "agatston", "volume_mm3", "mass_mg", "pseudo_mass_hu_mm3", "peak_hu")
"""Columns of the text for a spreadsheet."""
PANEL = ("lesion", "artery", "probability", "agatston", "volume_mm3", "peak_hu", "slice_range")
"""Columns of the panel's table of lesions; those of its menu follow."""
MENU = ("ostium_mm", "length_mm", "in_proximal_third", "nearest_lesion_mm", "median_hu", "sphericity", "slices")
SCENE = {
    "scores": ("method", "artery", *_SCENE_NUMBERS, "lesions"),
    "lesions": (
        *("method", "lesion", "artery", "slice_range", "weighted_area_mm2", *_SCENE_NUMBERS),
        *("suggested_artery", "confidence", "not_coronary_probability", "reason"),
    ),
}
"""Columns of the tables in Slicer's scene."""
GEOMETRY = ("image_columns", "image_rows", "slices", "pixel_mm", "slice_spacing_mm", "noise_hu")
INTERVAL = ("interval_low", "interval_high")
CATEGORIES = ("risk_class", "cac_drs")
COHORT_METHOD = ("status", "reviewed", "agatston", "volume_mm3", "mass_mg", "pseudo_mass_hu_mm3", "lesions", *INTERVAL)
"""Columns of each method in `cohort.csv`."""


def score_cells(score: Score, is_map: bool = False) -> Row:
    """Return the cells of a score: its fields, but agatston on the clinical scale. is_map: True for a calcium map."""
    interval = getattr(score, "interval_90", None) or (None, None)
    return {
        **vars(score),
        "agatston": score.clinical_agatston,
        "adjusted_agatston": score.agatston if is_map else None,
        **dict(zip(INTERVAL, interval, strict=True)),
    }


def lesion_cells(lesion: Lesion, is_map: bool = False, features: LesionFeatures | None = None) -> Row:
    """Return the cells of a lesion with its verdict and its features; positions in mm, Slicer's RAS axes."""
    slices = lesion.slices
    return {
        **score_cells(lesion, is_map),
        **({} if lesion.verdict is None else lesion.verdict.as_written({})),
        **({} if features is None else asdict(features)),
        "lesion": lesion.id,
        "lesions": None,
        "artery": lesion.site.key,
        "first_slice": min(slices, default=None),
        "last_slice": max(slices, default=None),
        "slice_range": lesion.slice_range,
        "weighted_area_mm2": sum(part.area_mm2 * part.weight for part in lesion.components),
        **dict(zip(("r_mm", "a_mm", "s_mm"), lesion.centroid_ras_mm, strict=True)),
    }


def lesion_rows(methods: Mapping[str, MethodScore], outside: Iterable[Lesion] = ()) -> Iterator[Row]:
    """Yield the row of each lesion by method, those left out after those that count, non-coronary ones last."""
    for name, method in methods.items():
        features = {} if method.features is None else {part.id: part for part in method.features.lesions}
        for lesion in method.lesions:
            yield {"method": name, **lesion_cells(lesion, method.is_map, features.get(lesion.id))}
        for lesion in method.left_out:
            yield {"method": f"{name}_left_out", **lesion_cells(lesion)}
    for lesion in outside:
        yield {"method": "non_coronary", **lesion_cells(lesion)}


def site_cells(method: MethodScore) -> dict[str, Row]:
    """Return the cells of each artery with its features, and of the TOTAL, by name."""
    features: dict[str, Row] = {}
    if method.features is not None:
        features = {key: asdict(part) for key, part in method.features.arteries.items()}
        features[TOTAL] = method.features.patient
    scores = {artery.key: score for artery, score in method.arteries.items()} | {TOTAL: method.total}
    return {key: score_cells(score, method.is_map) | features.get(key, {}) for key, score in scores.items()}


def score_rows(methods: Mapping[str, MethodScore], elsewhere: NonCoronaryScore | None = None) -> Iterator[Row]:
    """Yield the row of each artery by method, then of the TOTAL; non-coronary sites last."""
    for name, method in methods.items():
        for artery, cells in site_cells(method).items():
            yield {"method": name, "artery": artery, "status": method.status, **cells}
    for site, score in () if elsewhere is None else elsewhere.scores.items():
        yield {"method": "non_coronary", "artery": site.key, **score_cells(score)}
