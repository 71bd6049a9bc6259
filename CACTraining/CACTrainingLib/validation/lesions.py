"""Sections on single lesions (found, missed, false positive) and on the scans that differ most, with pictures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from ..evaluation.measures import Measure, long_table, mean_value, value_over_truth, value_row
from ..evaluation.parts import METHODS, Cell, Gallery, Picture, Section, Table, count, heading
from ..statistics.patient_folds import CATEGORY_TITLES
from .agreement import ComparedScans, categories
from .comparison import PICTURE_MM, PICTURES, ComparedScan, OutlinedLesion, site_name

SIZES = ((0.0, 10.0, "< 10"), (10.0, 100.0, "10–99"), (100.0, float("inf"), "≥ 100"))
"""Size groups of lesions: lowest and excluded highest Agatston score, and title."""

MAX_PICTURES = 24
"""Most pictures in a gallery, of the highest scores."""
WORST = 15
"""Number of scans that the page lists as differing most; the table beside it has all."""


def sections(compared: ComparedScans, output: Path, scans_folder: str) -> tuple[Section, ...]:
    """Lesions and pictures where the reference has outlines, then the scans that differ most.

    Args:
        compared: All scans.
        output: Folder of the validation, with the pictures.
        scans_folder: Name of the folder of the scans' results, for links.
    """
    parts = []
    if items := [(scan, lesion) for scan in compared.scans for lesion in scan.lesions or ()]:
        text = (
            f"The reference outlines {count(items, 'lesion')} (connected, of one artery, as the clinical rule counts "
            f"them) in {count({scan.name for scan, _ in items}, 'scan')}. One is found when a method counts any of its "
            "voxels. A lesion of a method is wrong when it holds no voxel of the reference's outlines.",
        )
        lesions, counts = _lesion_rows(compared, items), _count_rows(compared)
        tables = (_recall(compared, lesions), _precision(compared, counts))
        parts.append(Section("lesions", "Lesions", text, tables, values=(lesions, counts)))
    if pictures := _galleries(compared, output, scans_folder):
        text = (
            "Green: what the reference outlines; orange: what the method counts. The lesion in question is in the "
            f"middle of its picture, which is {PICTURE_MM / 10:g} cm wide. Per scan and kind the {PICTURES} largest "
            f"are drawn, and of those the {MAX_PICTURES} with the highest Agatston scores are shown here.",
        )
        parts.append(Section("pictures", "What was missed and what was wrongly counted", text, galleries=pictures))
    return (*parts, _worst(compared))


def _lesion_rows(compared: ComparedScans, items: Sequence[tuple[ComparedScan, OutlinedLesion]]) -> pd.DataFrame:
    """Long table of the reference's lesions, true where a method finds one, with the artery that it names."""
    return long_table(
        (
            value_row(scan, method, lesion.found[method], item=n, agatston=lesion.agatston, vessel=lesion.vessel)
            | {"named": lesion.named.get(method)}
            for n, (scan, lesion) in enumerate(items)
            for method in compared.methods
        ),
        ("agatston", "vessel", "named"),
    )


def _recall(compared: ComparedScans, rows_of_lesions: pd.DataFrame) -> Table:
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
    return Table("lesions_found", "Lesions of the reference", columns, tuple(rows))


def _count_rows(compared: ComparedScans) -> pd.DataFrame:
    """Long table of the number of each method's lesions, as truth, and of those that the reference confirms."""
    return long_table(
        (
            value_row(scan, method, n - len(wrong), n, "lesions", wrong=len(wrong), agatston=sum(wrong))
            for scan in compared.scans
            if scan.wrong is not None
            for method, n in scan.counts.items()
            if method in compared.methods
            for wrong in [[lesion.agatston for lesion in scan.wrong if lesion.method == method]]
        ),
        ("wrong", "agatston"),
    )


def _precision(compared: ComparedScans, table: pd.DataFrame) -> Table:
    columns = ("Lesions of the method", *(METHODS[m] for m in compared.methods))
    measures = (
        Measure("Precision: proportion that holds calcium of the reference", value_over_truth, table),
        Measure("Wrong lesions per scan", mean_value, table.assign(value=table.wrong)),
        Measure("Agatston score of wrong lesions per scan", mean_value, table.assign(value=table.agatston)),
    )
    rows = [compared.measure_row(measure.title, measure) for measure in measures]
    places = Counter((lesion.method, site_name(lesion.at)) for scan in compared.scans for lesion in scan.wrong or ())
    rows.append(heading("Wrong lesions by what the reference labels there", columns))
    rows += [(f"  {name}", *(places[m, name] for m in compared.methods)) for name in sorted({n for _, n in places})]
    note = "Scans that the reference gives 0 are among them, also where it has no outlines."
    return Table("lesions_wrong", "Lesions of each method", columns, tuple(rows), note)


def _galleries(compared: ComparedScans, output: Path, scans_folder: str) -> tuple[Gallery, ...]:
    galleries = []
    for method in compared.methods:
        missed = [
            (lesion.agatston, lesion.pictures[method], scan, f"missed, {lesion.vessel} by the reference")
            for scan in compared.scans
            for lesion in scan.lesions or ()
            if method in lesion.pictures
        ]
        wrong = [
            (lesion.agatston, lesion.picture, scan, f"wrongly counted ({site_name(lesion.at)})")
            for scan in compared.scans
            for lesion in scan.wrong or ()
            if lesion.method == method and lesion.picture
        ]
        for name, title, items in (("missed", "Missed", missed), ("wrong", "Wrongly counted", wrong)):
            worst = sorted(items, key=lambda item: item[0], reverse=True)[:MAX_PICTURES]
            pictures = tuple(
                Picture(
                    (output / file).read_bytes(),
                    f"{scan.name}: Agatston {score:.0f}, {kind}. Reference {scan.total:.0f} in all, found "
                    f"{scan.measured[method]:.0f}.",
                    f"{scans_folder}/{scan.folder}/report.html",
                )
                for score, file, scan, kind in worst
                if (output / file).is_file()
            )
            if pictures:
                note = f"{len(pictures)} of {len(items)} that were drawn."
                galleries.append(Gallery(f"{name}_{method}", f"{title} by {METHODS[method]}", pictures, note))
    return tuple(galleries)


def _worst(compared: ComparedScans) -> Section:
    columns = ("Scan", "Reference", *(METHODS[m] for m in compared.methods), "Category", "Warnings")
    rows: list[tuple[float, tuple[Cell, ...]]] = []
    for scan in compared.scans:
        scores = [float(x) for x in (scan.total, *(scan.measured[m] for m in compared.methods))]
        classes = " / ".join(CATEGORY_TITLES[n] for n in categories(np.array(scores)))
        difference = max(abs(score - scores[0]) for score in scores[1:])
        rows.append((difference, (scan.name, *scores, classes, ", ".join(scan.warnings) or None)))
    rows.sort(key=lambda row: -row[0])
    note = "Agatston scores. Category: by the reference, then by each method. The file comparison.csv has all scans."
    title = "Scans that differ most from the reference"
    table = Table("largest_differences", title, columns, tuple(row for _, row in rows[:WORST]), note)
    return Section("scans", "The scans that differ most", (), (table,))
