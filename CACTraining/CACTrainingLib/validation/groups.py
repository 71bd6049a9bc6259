"""Sections by results of the scans: prediction intervals, withheld categories, groups of scans, and false zeros."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from CACScoringLib.core.errors import CTError
from CACScoringLib.io.reading import read_ct
from CACScoringLib.io.series_rule import is_soft_kernel
from CACScoringLib.record.reading import read_result
from CACScoringLib.record.score_record import ScoreRecord
from CACScoringLib.record.scores import Lesion
from CACScoringLib.report.pictures import patch_picture

from ..evaluation.measures import Measure, long_table, mean_difference, mean_value, value_row
from ..evaluation.parts import METHODS, Cell, Gallery, Picture, Section, Table, heading
from ..evaluation.scored_scan import SCORED_METHODS
from ..references.reference import ReferenceScan
from ..statistics.patient_folds import CATEGORY_TITLES
from .agreement import ComparedScans, Raters, categories, category_kappa, reach
from .comparison import PICTURE_MM
from .lesions import MAX_PICTURES

THICKNESSES_MM = (1.5, 2.25, 3.25)
"""Limits of the groups of slice thickness."""

KERNELS = {True: "soft", False: "sharp", None: "unknown"}


def sections(
    compared: ComparedScans, raters: Raters, sources: Mapping[str, ReferenceScan], folder: Path
) -> tuple[Section, ...]:
    """Sections on intervals, groups of scans, and scans with a false zero.

    Args:
        compared: The scans.
        raters: The methods, and another program if there is one.
        sources: Scans of the reference by name.
        folder: Folder of the scans' results.
    """
    records = {scan.name: read_result(folder / scan.folder) for scan in compared.scans}
    zeros = _false_zeros(compared, records, sources, folder.name)
    return (_intervals(compared, records), _groups(raters, records), *zeros)


def _intervals(compared: ComparedScans, records: Mapping[str, ScoreRecord]) -> Section:
    rows = []
    for scan in compared.scans:
        record = records[scan.name]
        withheld = record.categories is not None and record.categories.probabilities_withheld
        for method in compared.methods:
            low, high = record.methods[SCORED_METHODS[method][0]].total.interval_90 or (math.nan, math.nan)
            held = float(low <= scan.total <= high)
            rows.append(value_row(scan, method, held, scan.total, low=low, high=high, withheld=float(withheld)))
    table = long_table(rows, ("low", "high", "withheld"))
    columns = ("Reference", "Scans", "Category withheld", *(f"Held by {METHODS[m]}" for m in compared.methods))
    lines: list[tuple[Cell, ...]] = []
    place = categories(table.truth.to_numpy()) if len(table) else np.zeros(0, int)
    for title, members in {
        **{name: place == n for n, name in enumerate(CATEGORY_TITLES)},
        "all": place >= 0,
    }.items():
        part = table[members]
        first = part[part.method == compared.methods[0]]
        if len(first):
            share = Measure(title, mean_value, first.assign(value=first.withheld), True)
            _, *cells = compared.measure_row(title, Measure(title, mean_value, part.dropna(subset="low"), True))
            lines.append((title, len(first), compared.estimate(share, compared.methods[0]), *cells))
    note = (
        "Proportion of 90 % prediction intervals of the total that hold the reference's score, and n, the number of "
        "scans that have one. The interval of the map is for a still scan without noise, which no reader sees. A "
        "category is withheld where a scan is unlike those of the calibration."
    )
    title = "Intervals and withheld categories"
    return Section("intervals", title, (), (Table("intervals", title, columns, tuple(lines), note),), values=(table,))


def _thickness(record: ScoreRecord) -> str:
    thickness_mm = record.acquisition.slice_thickness_mm or record.input.spacing_mm[2]
    names = [f"below {THICKNESSES_MM[0]} mm", *(f"from {limit} mm" for limit in THICKNESSES_MM)]
    return names[int(np.searchsorted(THICKNESSES_MM, thickness_mm, side="right"))]


GROUPS: dict[str, Callable[[ScoreRecord], str]] = {
    "Kernel": lambda record: KERNELS[is_soft_kernel(record.acquisition.kernel)],
    "Slice thickness": _thickness,
    "Sex": lambda record: record.acquisition.patient_sex or "unknown",
    "Manufacturer": lambda record: record.acquisition.manufacturer or "unknown",
}
"""Group of a scan by the header, by what groups are."""


def _groups(raters: Raters, records: Mapping[str, ScoreRecord]) -> Section:
    titles = raters.titles.values()
    columns = ("Group", "Scans", *(f"κ, {t}" for t in titles), *(f"Mean difference, {t}" for t in titles))
    lines: list[tuple[Cell, ...]] = []
    for title, group_of in GROUPS.items():
        groups = raters.rows.scan.map({name: group_of(record) for name, record in records.items()})
        if groups.nunique() < 2:
            continue
        lines.append(heading(title, columns))
        for name, part in raters.rows.groupby(groups):
            _, *kappas = raters.measure_row(name, Measure("κ", category_kappa, part))
            _, *differences = raters.measure_row(name, Measure("Difference", mean_difference, part))
            lines.append((f"  {name}", part.scan.nunique(), *kappas, *differences))
    text = () if lines else ("All scans have one kernel type, thickness, sex and manufacturer, or headers without.",)
    note = "By what the headers state. κ of categories with linear weights; differences in Agatston score."
    tables = (Table("groups", "Agreement by group", columns, tuple(lines), note),) if lines else ()
    return Section("groups", "Groups of scans", text, tables)


def _false_zeros(
    compared: ComparedScans, records: Mapping[str, ScoreRecord], sources: Mapping[str, ReferenceScan], scans_folder: str
) -> tuple[Section, ...]:
    """Section on scans with calcium by the reference and a score of 0, with the largest candidate that was left out."""
    method = compared.methods[0]
    positive = (scan for scan in compared.scans if reach(1, np.array([scan.total]))[0])
    zeros = [scan for scan in positive if not reach(1, np.array([scan.measured[method]]))[0]]
    if not zeros:
        return ()
    rows, pictures = list[tuple[Cell, ...]](), list[Picture]()
    for scan in sorted(zeros, key=lambda scan: -scan.total):
        candidates = records[scan.name].methods[SCORED_METHODS[method][0]].left_out
        largest = max(candidates, key=lambda lesion: lesion.clinical_agatston, default=None)
        score = None if largest is None else largest.clinical_agatston
        map_scores = (scan.measured[m] for m in compared.methods[1:])
        rows.append((scan.name, scan.total, *map_scores, score, ", ".join(scan.warnings) or None))
        if largest is not None and len(pictures) < MAX_PICTURES:
            caption = (
                f"{scan.name}: reference {scan.total:.0f}, found 0. Largest candidate left out: Agatston {score:.0f}."
            )
            if jpeg := _picture(sources[scan.name], largest):
                pictures.append(Picture(jpeg, caption, f"{scans_folder}/{scan.folder}/report.html"))
    columns = ("Scan", "Reference", *(METHODS[m] for m in compared.methods[1:]), "Largest left out", "Warnings")
    title = f"Scored 0 by {METHODS[method]}, but not by the reference"
    table = Table("false_zeros", title, columns, tuple(rows), "Agatston scores.")
    note = f"The slice through the largest candidate that was left out, {PICTURE_MM / 10:g} cm wide."
    gallery = Gallery("false_zeros_pictures", "Largest candidates left out", tuple(pictures), note)
    return (Section("false_zeros", "False zeros", (), (table,), galleries=(gallery,) if pictures else ()),)


def _picture(source: ReferenceScan, lesion: Lesion) -> bytes | None:
    """Draw the slice through a lesion; None if the scan cannot be read any more."""
    try:
        ct = read_ct(source.ct, source.series)
    except (CTError, OSError):
        return None
    right, anterior, superior = lesion.centroid_ras_mm
    i, j, k = ct.image.TransformPhysicalPointToContinuousIndex((-right, -anterior, superior))
    return patch_picture(ct, (k, j, i), (), PICTURE_MM)
