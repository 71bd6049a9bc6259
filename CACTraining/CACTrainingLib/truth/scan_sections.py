"""Sections on single lesions and scans, with pictures.

They show what was found, missed and wrongly counted, the scans that differ most, prediction intervals, withheld
categories, groups of scans, and false zeros.
"""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from urllib.parse import quote

import numpy as np
import pandas as pd

from CACScoringLib.core.categories import CATEGORY_TITLES, category_numbers
from CACScoringLib.core.errors import CTError
from CACScoringLib.io.reading import read_ct
from CACScoringLib.io.series_rule import is_soft_kernel
from CACScoringLib.record.score_record import ScoreRecord
from CACScoringLib.record.scores import Lesion
from CACScoringLib.report.pictures import patch_picture

from ..evaluation.measures import (
    COLUMNS,
    ExperimentComparison,
    Measure,
    long_table,
    mean_difference,
    mean_value,
    value_over_truth,
    value_row,
)
from ..evaluation.parts import METHODS, Cell, Gallery, PicturePart, Section, TablePart, count, heading
from ..references.reference import ReferenceScan
from .agreement import TEXTS, Raters, category_kappa, reach
from .comparison import PICTURE_MM, PICTURES, site_name
from .records import ComparedScan, ComparedScans, lesion_table
from .scored_scan import SCORED_METHODS

SIZES = ((0.0, 10.0, "< 10"), (10.0, 100.0, "10–99"), (100.0, float("inf"), "≥ 100"))
"""Size groups of lesions: lowest and excluded highest Agatston score, and title."""

MAX_PICTURES = 24
"""Most pictures in a gallery, of the highest scores."""
WORST = 15
"""Number of scans that the page lists as differing most; the table beside it has all."""


Links = Mapping[str, str]
"""Address of the report by name of the scan, relative to the page."""


def report_links(folders: Mapping[str, Path], output: Path) -> Links:
    """Return the addresses of the reports, without those that no relative address reaches.

    Args:
        folders: Folder of results by name of the scan.
        output: Folder of the page.
    """
    links = {}
    for name, folder in folders.items():
        if folder.absolute().anchor == output.absolute().anchor:  # not on another drive of Windows
            links[name] = quote(Path(os.path.relpath(folder / "report.html", output)).as_posix())
    return links


def lesion_sections(compared: ComparedScans, output: Path, links: Links) -> tuple[Section, ...]:
    """Lesions and pictures where the reference has outlines, then the scans that differ most.

    Args:
        compared: All scans.
        output: Folder of the page, with the pictures.
        links: Addresses of the reports.
    """
    parts = []
    every = lesion_table(compared.scans, compared.vessels)
    every = every[every.method.isin(compared.methods)]
    is_of_reference = every.of_reference.astype(bool)
    lesions, counted = every[is_of_reference], every[~is_of_reference & every.found.astype(bool)]
    wrong = counted[counted.true.eq(False)]
    if len(lesions):
        outlined, counts = _lesion_rows(compared, lesions), _count_rows(compared, counted, wrong)
        numbers = {
            "lesions": count(int(outlined.item.nunique()), "lesion"),
            "scans": count(int(lesions.scan.nunique()), "scan"),
        }
        title, text = TEXTS.texts("lesions", **numbers)
        tables = (_recall(compared, outlined), _precision(compared, counts, wrong))
        parts.append(Section("lesions", title, (text,), tables, values=(outlined, counts)))
    if pictures := _galleries(compared, lesions, wrong, output, links):
        title, text = TEXTS.texts("pictures", cm=PICTURE_MM / 10, each=PICTURES, most=MAX_PICTURES)
        parts.append(Section("pictures", title, (text,), galleries=pictures))
    return (*parts, _worst(compared))


def _lesion_rows(compared: ComparedScans, lesions: pd.DataFrame) -> pd.DataFrame:
    """Long table of the reference's lesions, true where a method finds one, with the vessel that it names."""
    place = {method: n for n, method in enumerate(compared.methods)}
    table = lesions.assign(
        item=lesions.groupby(["scan", "lesion"], sort=False).ngroup(),
        truth=0.0,
        value=lesions.found.astype(bool),
        vessel=lesions.artery.fillna("other"),
        place=lesions.method.map(place),
    )
    return table.sort_values(["item", "place"])[[*COLUMNS, "agatston", "vessel", "named"]].reset_index(drop=True)


def _recall(compared: ComparedScans, rows_of_lesions: pd.DataFrame) -> TablePart:
    columns = ("Lesions of the reference", *(METHODS[m] for m in compared.methods))
    agatston, vessel = rows_of_lesions.agatston, rows_of_lesions.vessel
    groups = {"All": agatston >= 0}
    groups |= {f"Agatston {title}": (low <= agatston) & (agatston < high) for low, high, title in SIZES}
    groups |= {name: vessel == name for name in (*compared.vessels, "other")}
    rows: list[tuple[Cell, ...]] = [heading("Recall: proportion that is found", columns)]
    for title, members in groups.items():
        if members.any():
            rows.append(compared.measure_row(f"  {title}", Measure(title, mean_value, rows_of_lesions[members], True)))
    if compared.vessels:
        hits = rows_of_lesions[(vessel != "other") & rows_of_lesions.value]
        right = Measure("Artery", mean_value, hits.assign(value=hits.named == hits.vessel), True)
        rows.append(compared.measure_row("Artery named as the reference does, of those found", right))
    return TEXTS.table("lesions_found", columns, rows)


def _count_rows(compared: ComparedScans, counted: pd.DataFrame, wrong: pd.DataFrame) -> pd.DataFrame:
    """Long table of the number of each method's lesions, as truth, and of those that the reference confirms."""
    key = ["scan", "method"]
    numbers, wrong_numbers = counted.groupby(key).size(), wrong.groupby(key).size()
    scores = {at: sum(sorted(part.agatston, reverse=True)) for at, part in wrong.groupby(key)}
    rows = []
    for scan in (scan for scan in compared.scans if scan.has_outlines):
        for method in compared.methods:
            at = scan.name, method
            n, errors = int(numbers.get(at, 0)), int(wrong_numbers.get(at, 0))
            row = value_row(scan, method, n - errors, n, "lesions", wrong=errors, agatston=scores.get(at, 0))
            rows.append(row)
    return long_table(rows, ("wrong", "agatston"))


def _precision(compared: ComparedScans, table: pd.DataFrame, wrong: pd.DataFrame) -> TablePart:
    columns = ("Lesions of the method", *(METHODS[m] for m in compared.methods))
    measures = (
        Measure("Precision: proportion that holds calcium of the reference", value_over_truth, table),
        Measure("Wrong lesions per scan", mean_value, table.assign(value=table.wrong)),
        Measure("Agatston score of wrong lesions per scan", mean_value, table.assign(value=table.agatston)),
    )
    rows = [compared.measure_row(measure.title, measure) for measure in measures]
    places = Counter(zip(wrong.method, map(site_name, wrong["at"]), strict=True))
    rows.append(heading("Wrong lesions by what the reference labels there", columns))
    rows += [(f"  {name}", *(places[m, name] for m in compared.methods)) for name in sorted({n for _, n in places})]
    return TEXTS.table("lesions_wrong", columns, rows)


def _galleries(
    compared: ComparedScans, lesions: pd.DataFrame, wrong: pd.DataFrame, output: Path, links: Links
) -> tuple[Gallery, ...]:
    scans = {scan.name: scan for scan in compared.scans}
    lesions = lesions.assign(kind=[f"missed, {key} by the reference" for key in lesions.artery.fillna("other")])
    wrong = wrong.assign(kind=[f"wrongly counted ({site_name(key)})" for key in wrong["at"]])
    galleries = []
    for method in compared.methods:
        for name, title, table in (("missed", "Missed", lesions), ("wrong", "Wrongly counted", wrong)):
            drawn = table[(table.method == method) & table.picture.notna()]
            worst = drawn.sort_values("agatston", ascending=False, kind="stable")[:MAX_PICTURES]
            pictures = tuple(
                PicturePart(
                    (output / picture).read_bytes(),
                    f"{scan.name}: Agatston {score:.0f}, {kind}. Reference {scan.reference_total:.0f} in all, found "
                    f"{scan.measured(method):.0f}.",
                    links.get(scan.name),
                )
                for picture, score, kind, scan in zip(
                    worst.picture, worst.agatston, worst.kind, map(scans.__getitem__, worst.scan), strict=True
                )
                if (output / picture).is_file()
            )
            if pictures:
                note = f"{len(pictures)} of {len(drawn)} that were drawn."
                galleries.append(Gallery(f"{name}_{method}", f"{title} by {METHODS[method]}", pictures, note))
    return tuple(galleries)


def _worst(compared: ComparedScans) -> Section:
    columns = ("Scan", "Reference", *(METHODS[m] for m in compared.methods), "Category", "Warnings")
    rows: list[tuple[float, tuple[Cell, ...]]] = []
    for scan in compared.scans:
        scores = [float(x) for x in (scan.reference_total, *map(scan.measured, compared.methods))]
        classes = " / ".join(CATEGORY_TITLES[n] for n in category_numbers(np.array(scores)))
        difference = max(abs(score - scores[0]) for score in scores[1:])
        rows.append((difference, (scan.name, *scores, classes, ", ".join(scan.facts.warnings) or None)))
    rows.sort(key=lambda row: -row[0])
    table = TEXTS.table("largest_differences", columns, [row for _, row in rows[:WORST]])
    return Section("scans", "The scans that differ most", (), (table,))


THICKNESSES_MM = (1.5, 2.25, 3.25)
"""Limits of the groups of slice thickness."""

KERNELS = {True: "soft", False: "sharp", None: "unknown"}


def group_sections(
    compared: ComparedScans,
    raters: Raters,
    sources: Mapping[str, ReferenceScan],
    records: Mapping[str, ScoreRecord],
    links: Links,
) -> tuple[Section, ...]:
    """Sections on intervals, groups of scans, and scans with a false zero.

    Args:
        compared: The scans.
        raters: The methods, and another program if there is one.
        sources: Scans of the reference by name.
        records: Results of the scans by name.
        links: Addresses of the reports.
    """
    zeros = _false_zeros(compared, records, sources, links)
    return (_intervals(compared, records), _groups(raters, records), *zeros)


def interval_table(
    scores: Mapping[str, Iterable[tuple[ComparedScan, tuple[float, float] | None]]],
) -> pd.DataFrame:
    """Long table of intervals of the total by key: 1 where one holds the reference's; low NaN without one."""
    rows = []
    for key, pairs in scores.items():
        for scan, interval in pairs:
            low, high = interval or (math.nan, math.nan)
            total = scan.reference_total
            rows.append(value_row(scan, key, float(low <= total <= high), total, low=low, high=high))
    return long_table(rows, ("low", "high"))


def held_rows(comparison: ExperimentComparison, table: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame, list[Cell]]]:
    """Iterate over the reference's categories, and all: title, part of an `interval_table`, proportions that hold."""
    place = category_numbers(table.truth.to_numpy()) if len(table) else np.zeros(0, int)
    for title, members in {**{name: place == n for n, name in enumerate(CATEGORY_TITLES)}, "all": place >= 0}.items():
        part = table[members]
        if len(part):
            _, *cells = comparison.measure_row(title, Measure(title, mean_value, part.dropna(subset="low"), True))
            yield title, part, cells


def _intervals(compared: ComparedScans, records: Mapping[str, ScoreRecord]) -> Section:
    methods = {name: record.methods for name, record in records.items()}
    names = {method: SCORED_METHODS[method][0] for method in compared.methods}
    scores = {
        method: [(scan, methods[scan.name][name].total.interval_90) for scan in compared.scans]
        for method, name in names.items()
    }
    withheld = {name: bool(r.categories and r.categories.probabilities_withheld) for name, r in records.items()}
    table = interval_table(scores)
    table = table.assign(withheld=table.scan.map(withheld).astype(float))
    columns = ("Reference", "Scans", "Category withheld", *(f"Held by {METHODS[m]}" for m in compared.methods))
    lines: list[tuple[Cell, ...]] = []
    for title, part, cells in held_rows(compared, table):
        share = Measure(title, mean_value, part.assign(value=part.withheld), True)
        estimate = compared.estimate(share, compared.methods[0])
        lines.append((title, part.scan.nunique(), estimate, *cells))
    part = TEXTS.table("intervals", columns, lines)
    return Section("intervals", part.title, (), (part,), values=(table,))


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
    return Section("groups", "Groups of scans", text, (TEXTS.table("groups", columns, lines),) if lines else ())


def _false_zeros(
    compared: ComparedScans, records: Mapping[str, ScoreRecord], sources: Mapping[str, ReferenceScan], links: Links
) -> tuple[Section, ...]:
    """Section on scans with calcium by the reference and a score of 0, with the largest candidate that was left out."""
    method = compared.methods[0]
    positive = (scan for scan in compared.scans if reach(1, np.array([scan.reference_total]))[0])
    zeros = [scan for scan in positive if not reach(1, np.array([scan.measured(method)]))[0]]
    if not zeros:
        return ()
    rows, pictures = list[tuple[Cell, ...]](), list[PicturePart]()
    for scan in sorted(zeros, key=lambda scan: -scan.reference_total):
        candidates = records[scan.name].methods[SCORED_METHODS[method][0]].left_out
        largest = max(candidates, key=lambda lesion: lesion.clinical_agatston, default=None)
        score = None if largest is None else largest.clinical_agatston
        map_scores = map(scan.measured, compared.methods[1:])
        rows.append((scan.name, scan.reference_total, *map_scores, score, ", ".join(scan.facts.warnings) or None))
        if largest is not None and len(pictures) < MAX_PICTURES:
            caption = (
                f"{scan.name}: reference {scan.reference_total:.0f}, found 0. Largest candidate left out: Agatston "
                f"{score:.0f}."
            )
            if jpeg := _picture(sources[scan.name], largest):
                pictures.append(PicturePart(jpeg, caption, links.get(scan.name)))
    columns = ("Scan", "Reference", *(METHODS[m] for m in compared.methods[1:]), "Largest left out", "Warnings")
    table = TEXTS.table("false_zeros", columns, rows, method=METHODS[method])
    title, note = TEXTS.texts("false_zeros_pictures", cm=PICTURE_MM / 10)
    gallery = Gallery("false_zeros_pictures", title, tuple(pictures), note)
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
