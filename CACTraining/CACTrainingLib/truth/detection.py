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

from CACScoringLib.statistics.roc import area_under_curve

from ..evaluation.figures import panels_of_values
from ..evaluation.measures import COLUMNS, Measure, long_table, mean_value, rates, value_row
from ..evaluation.parts import METHODS, PUBLISHED, Cell, Section, TablePart, count, heading
from .records import HEART_MEASURES, MG, TEXTS, VESSELS, WITH_AGATSTON, ComparedScan, Sample, lesion_table, score_table

KINDS = {
    "hidden": "Coronary calcium, but in no slice visible",
    "distractor": "Other calcium or metal only",
    "clean": "No calcium",
}
"""Titles of the kinds of scans without visible coronary calcium."""
SIZES = {MG: (0.0, 1.0, 3.0, 10.0, 30.0, math.inf), "HU·mm³": (0.0, 1e3, 3e3, 1e4, 3e4, math.inf)}

RATES = ("Sensitivity", "False positives", "Accuracy", "F1")


def sections(records: Sequence[ComparedScan], generator: np.random.Generator) -> tuple[Section, ...]:
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


def _scan_section(sample: Sample, scans: Sequence[ComparedScan]) -> Section:
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
    tables = [
        sample.value_table(TEXTS, "detection_scans", measures),
        sample.difference_table(TEXTS, "detection_differences", measures),
    ]
    rows = rows.assign(value=rows.value > 0)
    causes = [
        Measure(title, mean_value, rows[rows.kind == kind], proportion=True)
        for kind, title in KINDS.items()
        if kind in set(rows.kind)
    ]
    if causes:
        tables.append(sample.value_table(TEXTS, "false_positives", causes))
    series = {m: [sample.estimate(measure, m) for measure in measures] for m in sample.titles if m != "noise_free"}
    titles, panels = [measure.title for measure in measures], {f"{len(scans)} scans": series}
    draw = partial(panels_of_values, groups=titles, panels=panels, y_title="Proportion of scans", limits=(0, 1))
    figure = TEXTS.figure("detection_rates", draw, (7, 3.2))
    return Section("detection", _TITLE, tuple(text), tuple(tables), (figure,))


def _artery_section(sample: Sample) -> tuple[Section, ...]:
    localised = [record for record in sample.scans if record.visible_arteries is not None]
    tables = [_artery_table(sample, localised)] if localised else []
    lesions = _map_lesions(sample)
    tables += [_lesion_table(sample, lesions)] if len(lesions) else []
    title, text = TEXTS.texts("arteries_and_lesions", scans=count(localised, "scan"))
    texts = (text,) if localised else ()
    return (Section("detection_arteries", title, texts, tuple(tables), values=(lesions,)),) if tables else ()


def _map_lesions(sample: Sample) -> pd.DataFrame:
    """Long table of the map's lesions in digital patients, 1 where there is coronary calcium."""
    lesions = lesion_table(scan for scan in sample.scans if scan.truth_mg is not None)
    lesions = lesions[(lesions.method == "map") & ~lesions.of_reference.astype(bool) & lesions.found.astype(bool)]
    return lesions.assign(item=lesions.lesion, truth=0.0, value=lesions.true)[[*COLUMNS, "mass"]]


def _artery_table(sample: Sample, records: Sequence[ComparedScan]) -> TablePart:
    arteries = score_table(records, vessels=VESSELS)
    groups = {"All": arteries, **{vessel: arteries[arteries.item == vessel] for vessel in VESSELS}}
    published = TEXTS.parts["detection_arteries"].published
    columns, rows = ("Method", *RATES, f"{PUBLISHED}: {RATES[0]}"), list[tuple[Cell, ...]]()
    for method in (m for m in WITH_AGATSTON if m in set(arteries.method)):
        rows.append(heading(METHODS[method], columns))
        rows += [
            (f"  {title}", *(sample.estimate(rate, method) for rate in rates_of(group)), published[title].get(method))
            for title, group in groups.items()
        ]
    return TEXTS.table("detection_arteries", columns, rows)


def _lesion_table(sample: Sample, lesions: pd.DataFrame) -> TablePart:
    rows = []
    for low, high in [(0.0, math.inf), *itertools.pairwise(SIZES[sample.unit])]:
        part = lesions[(low <= lesions.mass) & (lesions.mass < high)]
        border = f"< {high:g}" if low == 0 else f"≥ {low:g}" if math.isinf(high) else f"{low:g}–{high:g}"
        name = "All" if (low, high) == (0.0, math.inf) else f"  {border} {sample.unit}"
        rows.append(sample.method_row(name, [Measure(name, mean_value, part, proportion=True)], "map"))
    return TEXTS.table("map_lesions", ("Lesions of the map", "Hold coronary calcium"), rows)


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
    published = TEXTS.parts["slices"].published
    rows = [(m.title, sample.estimate(m, "slices"), published.get(m.title, {}).get("slices")) for m in measures]
    thresholds = sorted({record.slice_threshold for record in sample.scans if record.slices})
    text = (
        f"{len(slices)} slices with heart, {table_of_slices.truth.sum()} of them with visible coronary calcium. "
        f"The classifier calls a slice positive from the probability {', '.join(f'{t:.2f}' for t in thresholds)} on, "
        "which was chosen in its training; scoring may include more slices than these.",
    )
    table = TEXTS.table("slices", ("Slices", "Found", "Published"), rows)
    return (Section("detection_slices", "Detection per slice", text, (table,), values=(table_of_slices,)),)


MIN_DICE = 0.8
"""Dice below which a heart is listed by name for review."""
_MAX_NAMED = 10


def heart_sections(records: Sequence[ComparedScan], generator: np.random.Generator) -> tuple[Section, ...]:
    """Section on the segmented heart. Raises CTError."""
    sample = Sample(records, generator)
    hearts = [(record, record.heart) for record in sample.scans if record.heart is not None]
    if not hearts:
        reason = f"{sample.opening()} For none of them is the true outline of the heart known: it is not evaluated."
        return (Section("heart", "The heart's outline", (reason,)),)
    patients = {record.patient for record, _ in hearts}
    values = long_table(
        value_row(record, "heart", heart[name], item=name) for name in HEART_MEASURES for record, heart in hearts
    )
    rows = []
    for name, (title, published) in zip(HEART_MEASURES, TEXTS.parts["heart"].published.items(), strict=True):
        table = values[values.item == name]
        low, high = map(float, np.percentile(table.value, (25, 75)))
        worst = float(table.value.min() if name == "dice" else table.value.max())
        median = sample.estimate(Measure(title, _median, table), "heart")
        rows.append((title, median, low, high, worst, *published.values()))
    poor = sorted((heart["dice"], record.name) for record, heart in hearts if heart["dice"] < MIN_DICE)
    names = ", ".join(f"{name} ({dice:.2f})" for dice, name in poor[:_MAX_NAMED])
    text = (
        sample.opening(),
        f"For {count(hearts, 'scan')} of {count(patients, 'patient')}, the heart is known and was found by the "
        f"network; {len(poor)} have a Dice below {MIN_DICE}{': ' * bool(poor)}{names}.",
    )
    columns = ("Measure", "Median", "Lower quartile", "Upper quartile", "Worst", "Published")
    return (Section("heart", "The heart's outline", text, (TEXTS.table("heart", columns, rows),), values=(values,)),)


def _median(weights: np.ndarray, _: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Median of the values, a `Statistic`."""
    resamples = (np.repeat(values, counts) for counts in weights.astype(int))
    return np.array([np.median(resample) if len(resample) else np.nan for resample in resamples])
