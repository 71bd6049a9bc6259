"""Detection study: visible coronary calcium in scans, arteries, lesions and slices; and study of the segmented heart.

After van Velzen et al., section 5. A scan, artery or slice is positive if coronary calcium is visible in it.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from functools import partial

import numpy as np
import pandas as pd

from ..evaluation import figures as study_figures
from ..evaluation.measures import Measure, long_table, mean_value, rates, value_row
from ..evaluation.parts import METHODS, Cell, Figure, Section, TablePart, count, heading
from ..statistics.roc import area_under_curve
from .records import MG, StudyRecord
from .sample import PAPER, VESSELS, WITH_AGATSTON, Sample, score_table

KINDS = {
    "hidden": "Coronary calcium, but in no slice visible",
    "distractor": "Other calcium or metal only",
    "clean": "No calcium",
}
"""Titles of the kinds of scans without visible coronary calcium."""
SIZES = {MG: (0.0, 1.0, 3.0, 10.0, 30.0, math.inf), "HU·mm³": (0.0, 1e3, 3e3, 1e4, 3e4, math.inf)}

RATES = ("Sensitivity", "False positives", "Accuracy", "F1")

PUBLISHED = {
    "Sensitivity": {"map": 0.83, "reader": 0.69, "automatic": 0.67},
    "False positives": {"map": 0.14},
    "F1": {"map": 0.80},
}
_PUBLISHED_SLICES = {"Accuracy": 0.93, "Sensitivity": 0.78, "False positives": 0.06}


def sections(records: Sequence[StudyRecord], generator: np.random.Generator) -> tuple[Section, ...]:
    """Sections on scans, on arteries and lesions, and on slices; those without a reference are left out.

    Raises CTError.
    """
    sample = Sample(records, generator)
    scans = [record for record in sample.scans if record.visible is not None]
    if not scans:
        text = f"{sample.opening()} In none of them is it known whether calcium is visible: detection is not evaluated."
        return (Section("detection", _TITLE, (text,)), *_slice_section(sample))
    return (_scan_section(sample, scans), *_artery_section(sample), *_slice_section(sample))


_TITLE = "Detection per scan"


def rates_of(rows: pd.DataFrame) -> list[Measure]:
    """RATES of rows of a `score_table` with visible coronary calcium, among those whose visibility is known."""
    rows = rows[rows.visible.notna()]
    return rates(RATES, rows.assign(truth=rows.visible, value=rows.value > 0))


def _scan_section(sample: Sample, scans: Sequence[StudyRecord]) -> Section:
    rows = score_table(scans)
    measures = rates_of(rows)
    visible = sum(bool(record.visible) for record in scans)
    text = [
        sample.opening(),
        f"Coronary calcium is visible in {visible} of {count(scans, 'scan')} whose reference is known. A scan is "
        "found positive when the method's mass is above zero.",
    ]
    unknown = len(sample.scans) - len(scans)
    if unknown:
        text.append(f"For {count(unknown, 'scan')} it is not known whether calcium is visible; they are left out here.")
    note = (
        "False positives: proportion of the scans without visible coronary calcium that score above zero. “130 HU, "
        "arteries known” is restricted to regions where calcium is visible, so it has none by construction. The "
        f"ceiling also counts calcium that is visible in no slice. Published: {PAPER}, 238 scans of 119 patients."
    )
    tables = [
        sample.value_table("detection_scans", "Scans with visible coronary calcium", measures, note, PUBLISHED),
        sample.difference_table("detection_differences", "Detection: the calcium map against others", measures),
    ]
    rows = rows.assign(value=rows.value > 0)
    causes = [
        Measure(title, mean_value, rows[rows.kind == kind], proportion=True)
        for kind, title in KINDS.items()
        if kind in set(rows.kind)
    ]
    if causes:
        note = "Proportion of scans that score above zero, by what is in them. In the first there is coronary calcium."
        tables.append(sample.value_table("false_positives", "Contents of false positive scans", causes, note))
    series = {m: [sample.estimate(measure, m) for measure in measures] for m in sample.titles if m != "noise_free"}
    panels = [study_figures.Panel(f"{len(scans)} scans", tuple(measure.title for measure in measures), series)]
    draw = partial(study_figures.panels_of_values, panels=panels, y_title="Proportion of scans", limits=(0, 1))
    figure = Figure("detection_rates", "Detection of scans with visible coronary calcium", draw, "", (7, 3.2))
    return Section("detection", _TITLE, tuple(text), tuple(tables), (figure,))


def _artery_section(sample: Sample) -> tuple[Section, ...]:
    localised = [record for record in sample.scans if record.visible_arteries is not None]
    tables = [_artery_table(sample, localised)] if localised else []
    lesions = [
        value_row(record, "map", holds, item=n, mass=mass)
        for record in sample.scans
        for n, (_, mass, holds) in enumerate(record.map_lesions)
        if holds is not None
    ]
    lesion_table = long_table(lesions, ("mass",))
    tables += [_lesion_table(sample, lesion_table)] if lesions else []
    text: tuple[str, ...] = (
        f"In {count(localised, 'scan')} it is known in which arteries coronary calcium is visible. Each artery of each "
        "scan is one case; it is found when the method's mass in it is above zero. Calcium that is found but assigned "
        "to the wrong artery counts as missed in one and as a false positive in the other. The left main is counted "
        "with the left anterior descending artery.",
    )
    title = "Detection per artery and lesion"
    text = text if localised else ()
    return (Section("detection_arteries", title, text, tuple(tables), values=(lesion_table,)),) if tables else ()


def _artery_table(sample: Sample, records: Sequence[StudyRecord]) -> TablePart:
    arteries = score_table(records, vessels=VESSELS)
    groups = {"All": arteries, **{vessel: arteries[arteries.item == vessel] for vessel in VESSELS}}
    columns, rows = ("Method", *RATES), list[tuple[Cell, ...]]()
    for method in (m for m in WITH_AGATSTON if m in set(arteries.method)):
        rows.append(heading(METHODS[method], columns))
        rows += [
            (f"  {title}", *(sample.estimate(rate, method) for rate in rates_of(group)))
            for title, group in groups.items()
        ]
    return TablePart("detection_arteries", "Arteries with visible calcium", columns, tuple(rows))


def _lesion_table(sample: Sample, lesions: pd.DataFrame) -> TablePart:
    rows = []
    for low, high in [(0.0, math.inf), *itertools.pairwise(SIZES[sample.unit])]:
        part = lesions[(low <= lesions.mass) & (lesions.mass < high)]
        border = f"< {high:g}" if low == 0 else f"≥ {low:g}" if math.isinf(high) else f"{low:g}–{high:g}"
        name = "All" if (low, high) == (0.0, math.inf) else f"  {border} {sample.unit}"
        rows.append(sample.method_row(name, [Measure(name, mean_value, part, proportion=True)], "map"))
    note = "Proportion of the calcium map's lesions that hold coronary calcium, by their mass in the map."
    columns = ("Lesions of the map", "Hold coronary calcium")
    return TablePart("map_lesions", "Lesions of the calcium map that are coronary", columns, tuple(rows), note)


def _slice_section(sample: Sample) -> tuple[Section, ...]:
    slices = [
        value_row(r, "slices", p, shows, n, positive=p >= r.slice_threshold)
        for r in sample.scans
        for n, (shows, p) in enumerate(r.slices)
    ]
    if not slices:
        return ()
    table_of_slices = long_table(slices, ("positive",))
    measures = rates(RATES[:3], table_of_slices.assign(value=table_of_slices.positive))
    measures.append(Measure("Area under the ROC curve", area_under_curve, table_of_slices))
    rows = [(m.title, sample.estimate(m, "slices"), _PUBLISHED_SLICES.get(m.title)) for m in measures]
    thresholds = sorted({record.slice_threshold for record in sample.scans if record.slices})
    text = (
        f"{len(slices)} slices with heart, {table_of_slices.truth.sum()} of them with visible coronary calcium. "
        f"The classifier calls a slice positive from the probability {', '.join(f'{t:.2f}' for t in thresholds)} on, "
        "which was chosen in its training; scoring may include more slices than these.",
    )
    note = f"Published: {PAPER}, 17,450 slices of 238 scans."
    table = TablePart("slices", "Slices with visible calcium", ("Slices", "Found", "Published"), tuple(rows), note)
    return (Section("detection_slices", "Detection per slice", text, (table,), values=(table_of_slices,)),)


_MEASURES = {
    "Dice": ("dice", "0.95 (0.94–0.96)"),
    "Hausdorff distance, mm": ("hausdorff_mm", "15 (11–21)"),
    "Average surface distance, mm": ("surface_mm", "1.6 (1.2–2.2)"),
}
MIN_DICE = 0.8
"""Dice below which a heart is listed by name for review."""
_MAX_NAMED = 10


def heart_sections(records: Sequence[StudyRecord], generator: np.random.Generator) -> tuple[Section, ...]:
    """Section on the segmented heart. Raises CTError."""
    sample = Sample(records, generator)
    hearts = [(record, record.heart) for record in sample.scans if record.heart is not None]
    if not hearts:
        reason = f"{sample.opening()} For none of them is the true outline of the heart known: it is not evaluated."
        return (Section("heart", "The heart's outline", (reason,)),)
    patients = {record.patient for record, _ in hearts}
    values = long_table(
        value_row(record, "heart", heart[name], item=name) for name, _ in _MEASURES.values() for record, heart in hearts
    )
    rows = []
    for title, (name, published) in _MEASURES.items():
        table = values[values.item == name]
        low, high = map(float, np.percentile(table.value, (25, 75)))
        worst = float(table.value.min() if name == "dice" else table.value.max())
        rows.append((title, sample.estimate(Measure(title, _median, table), "heart"), low, high, worst, published))
    poor = sorted((heart["dice"], record.name) for record, heart in hearts if heart["dice"] < MIN_DICE)
    names = ", ".join(f"{name} ({dice:.2f})" for dice, name in poor[:_MAX_NAMED])
    text = (
        sample.opening(),
        f"For {count(hearts, 'scan')} of {count(patients, 'patient')}, the heart is known and was found by the "
        f"network; {len(poor)} have a Dice below {MIN_DICE}{': ' * bool(poor)}{names}.",
    )
    note = f"Published: {PAPER}, median (quartiles) of 79 scans."
    columns = ("Measure", "Median", "Lower quartile", "Upper quartile", "Worst", "Published")
    tables = (TablePart("heart", "Heart found against reference heart", columns, tuple(rows), note),)
    return (Section("heart", "The heart's outline", text, tables, values=(values,)),)


def _median(weights: np.ndarray, _: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Median of the values, a `Statistic`."""
    resamples = (np.repeat(values, counts) for counts in weights.astype(int))
    return np.array([np.median(resample) if len(resample) else np.nan for resample in resamples])
