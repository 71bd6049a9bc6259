"""Is visible coronary calcium found? Scans, arteries, lesions and slices, as van Velzen et al., sections 5.1 and 5.2.

The reference is what shows: a scan, artery or slice is positive when coronary calcium is visible in it.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from ..report import figures as study_figures
from ..report.parts import METHODS, Figure, Section, Table, count, heading, p_cell
from ..statistics.bootstrap import Estimate, estimate, ratio
from ..statistics.roc import area_under_curve
from .records import MG, StudyRecord
from .sample import (
    HIGHER,
    LOWER,
    OWN,
    PAPER,
    VESSELS,
    WITH_AGATSTON,
    Pair,
    Sample,
    compared,
    having,
    patients_of,
    score,
    scores,
)

if TYPE_CHECKING:
    from ..report.parts import Cell

KINDS = {
    "hidden": "Coronary calcium, but in no slice visible",
    "distractor": "Other calcium or metal only",
    "clean": "No calcium",
}
"""Scans without visible coronary calcium, by what is in them."""
SIZES = {MG: (0.0, 1.0, 3.0, 10.0, 30.0, math.inf), "HU·mm³": (0.0, 1e3, 3e3, 1e4, 3e4, math.inf)}

RATES: dict[str, Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]] = {
    "Sensitivity": lambda found, true: (found & true, true),
    "False positives": lambda found, true: (found & ~true, ~true),
    "Accuracy": lambda found, true: (found == true, np.ones(len(true), bool)),
    "F1": lambda found, true: (2.0 * (found & true), 1.0 * found + true),
}
"""Each rate is a sum over a sum: numerator and denominator of each item, from what was found and what is true."""

_PUBLISHED = {"map": (0.83, 0.14, 0.80), "reader": (0.69, None, None), "automatic": (0.67, None, None)}
_PUBLISHED_ARTERIES = {
    "map": {
        "All": ("81 of 102", "34 of 51"),
        "LM and LAD": ("92 %", "84 %"),
        "LCX": ("67 %", "50 %"),
        "RCA": ("57 %", "36 %"),
    },
    "reader": {
        "All": ("70 of 102", "30 of 51"),
        "LM and LAD": ("85 %", "74 %"),
        "LCX": ("58 %", "50 %"),
        "RCA": ("36 %", "29 %"),
    },
    "automatic": {
        "All": ("64 of 102", "26 of 51"),
        "LM and LAD": ("77 %", "68 %"),
        "LCX": ("58 %", "50 %"),
        "RCA": ("32 %", "14 %"),
    },
}
_PUBLISHED_SLICES = {"Accuracy": 0.93, "Sensitivity": 0.78, "False positives": 0.06}


def sections(records: Sequence[StudyRecord], generator: np.random.Generator) -> tuple[Section, ...]:
    """Scans; arteries and lesions; slices. Parts without reference are left out with a sentence.

    Raises MixedUnitsError.
    """
    sample = Sample(records, generator)
    scans = [record for record in sample.scans if record.visible is not None]
    parts = [_scan_section(sample, scans)] if scans else [_nothing(sample)]
    return (*parts, *_artery_section(sample), *_slice_section(sample))


def _nothing(sample: Sample) -> Section:
    text = (
        f"{sample.opening()} For none of them is it known whether coronary calcium is visible, so detection cannot "
        "be evaluated."
    )
    return Section("detection", "Detection per scan", (text,))


def rate(sample: Sample, patients: Sequence[str], found: np.ndarray, true: np.ndarray, name: str) -> Estimate:
    """One of RATES. found, true: bool [items]. patients: whose each item is."""
    top, bottom = RATES[name](found, true)
    if name != "F1":
        return sample.bootstrap.proportion(patients, top, bottom)
    drawn = ratio(sample.bootstrap.weights(patients), top, bottom)
    return estimate(drawn, len(true), len(set(patients)))


def _visible(scans: Sequence[StudyRecord]) -> np.ndarray:
    return np.array([bool(record.visible) for record in scans])


def _scan_section(sample: Sample, scans: Sequence[StudyRecord]) -> Section:
    true = _visible(scans)
    text = [
        sample.opening(),
        f"Coronary calcium is visible in {true.sum()} of {count(scans, 'scan')} whose reference is known. A scan is "
        "found positive when the method's mass is above zero.",
    ]
    unknown = len(sample.scans) - len(scans)
    if unknown:
        text.append(f"For {count(unknown, 'scan')} it is not known whether calcium is visible; they are left out here.")
    tables = [_scan_table(sample, scans)]
    if OWN in sample.methods and sample.comparators():
        tables.append(_difference_table(sample, scans))
        text += _difference_text(sample, scans)
    split = _split_table(sample, scans)
    if split.rows:
        tables.append(split)
    return Section("detection", "Detection per scan", tuple(text), tuple(tables), (_figure(sample, scans),))


def _scan_table(sample: Sample, scans: Sequence[StudyRecord]) -> Table:
    rows = []
    for method in sample.methods:
        own = having(scans, method)
        found, true = scores(own, method) > 0, _visible(own)
        values = {name: rate(sample, patients_of(own), found, true, name) for name in RATES}
        published = _PUBLISHED.get(method, (None, None, None))
        row = [values["Sensitivity"], published[0], values["False positives"], published[1], values["Accuracy"]]
        rows.append((METHODS[method], *row, values["F1"], published[2]))
    columns = (
        "Method",
        "Sensitivity",
        "Published sensitivity",
        "False positives",
        "Published false positives",
        "Accuracy",
        "F1",
        "Published F1",
    )
    note = (
        "False positives: proportion of the scans without visible coronary calcium that score above zero. “130 HU, "
        f"arteries known” is restricted to regions where calcium is visible, so it has none by construction. The "
        f"ceiling also counts calcium that is visible in no slice. Published: {PAPER}, 238 scans of 119 patients. "
        "Others report values per patient, against other references: AI-CAC an accuracy of 0.894 for zero against "
        "non-zero; Abaid 0.84 with a sensitivity of "
        "0.95; Eng 2021 a sensitivity of 0.71–0.94 for scores of at least 100 on non-gated CT."
    )
    return Table("detection_scans", "Scans with visible coronary calcium", columns, tuple(rows), note)


def rate_statistic(scans: Sequence[StudyRecord], name: str) -> Callable[[np.ndarray, str], np.ndarray]:
    """Of weights and a method: one of RATES over these scans."""
    true = _visible(scans)
    return lambda weights, method: ratio(weights, *RATES[name](scores(scans, method) > 0, true))


def _difference_table(sample: Sample, scans: Sequence[StudyRecord]) -> Table:
    columns = ("Compared with", "Scans", "Calcium map", "The other", "Difference", "p")
    rows: list[tuple[Cell, ...]] = []
    for name in RATES:
        rows.append(heading(name, columns))
        for comparator in sample.comparators():
            own = having(scans, OWN, comparator)
            mine, other, change = sample.compare(own, rate_statistic(own, name), comparator)
            rows.append((f"  {METHODS[comparator]}", len(own), mine, other, change.estimate, p_cell(change.p)))
    note = "The calcium map minus the other method on the same scans; above zero is better but for false positives."
    return Table("detection_differences", "Detection: the calcium map against others", columns, tuple(rows), note)


def _difference_text(sample: Sample, scans: Sequence[StudyRecord]) -> list[str]:
    said = []
    for comparator in sample.comparators():
        own = having(scans, OWN, comparator)
        mine, other, change = sample.compare(own, rate_statistic(own, "F1"), comparator)
        said.append(f"{mine:.2f} against {other:.2f} of “{METHODS[comparator]}”, {compared(change, LOWER, HIGHER)}")
    return [f"F1 of the calcium map (n = {len(scans)} scans) was {'; '.join(said)}."]


def _split_table(sample: Sample, scans: Sequence[StudyRecord]) -> Table:
    sorts = {kind: [record for record in scans if record.kind == kind] for kind in KINDS}
    rows = []
    for method in sample.methods if any(sorts.values()) else ():
        row = []
        for kind in KINDS:
            own = having(sorts[kind], method)
            row.append(sample.bootstrap.proportion(patients_of(own), scores(own, method) > 0) if own else None)
        rows.append((METHODS[method], *row))
    note = (
        "Proportion of scans above zero. Only the last two groups are false positives in every sense: in the first "
        "there is coronary calcium, although no slice shows it."
    )
    return Table("false_positives", "Contents of false positive scans", ("Method", *KINDS.values()), tuple(rows), note)


def _figure(sample: Sample, scans: Sequence[StudyRecord]) -> Figure:
    shown = [m for m in sample.methods if m != "noise_free"]
    series = {}
    for method in shown:
        own = having(scans, method)
        found, true = scores(own, method) > 0, _visible(own)
        series[method] = [rate(sample, patients_of(own), found, true, name) for name in RATES]
    panels = [study_figures.Panel(f"{len(scans)} scans", tuple(RATES), series)]
    draw = partial(study_figures.panels_of_values, panels=panels, y_title="Proportion of scans", limits=(0, 1))
    return Figure("detection_rates", "Detection of scans with visible coronary calcium", draw, "", (7, 3.2))


def _artery_section(sample: Sample) -> tuple[Section, ...]:
    seen = [record for record in sample.scans if record.visible_arteries is not None]
    methods = [m for m in WITH_AGATSTON if having(seen, m)]
    tables = []
    if seen and methods:
        tables += [_artery_table(sample, seen, methods), _pair_table(sample, methods)]
    lesions = _lesion_table(sample)
    tables += [lesions] if lesions.rows else []
    if not tables:
        return ()
    text = (
        f"In {count(seen, 'scan')} it is known in which arteries coronary calcium is visible. An artery is found when "
        "the method's mass in it is above zero: calcium that is found but assigned to the wrong artery counts as "
        "missed in one and as a false positive in the other. The left main is counted with the left anterior "
        "descending artery.",
    )
    return (Section("detection_arteries", "Detection per artery and lesion", text if seen else (), tuple(tables)),)


def _shows(record: StudyRecord, arteries: Sequence[str]) -> bool:
    return bool(set(arteries) & set(record.visible_arteries))


def _artery_table(sample: Sample, seen: Sequence[StudyRecord], methods: Sequence[str]) -> Table:
    columns = ("Method", *RATES)
    rows: list[tuple[Cell, ...]] = []
    for method in methods:
        own = having(seen, method)
        parts = {}
        for title, arteries in VESSELS.items():
            found = np.array([score(record, method, arteries=arteries) > 0 for record in own])
            parts[title] = (found, np.array([_shows(record, arteries) for record in own]), patients_of(own))
        everything = tuple(np.concatenate([part[n] for part in parts.values()]) for n in range(2))
        parts = {"All": (*everything, patients_of(own) * len(VESSELS)), **parts}
        rows.append(heading(METHODS[method], columns))
        for title, (found, true, patients) in parts.items():
            rows.append((f"  {title}", *(rate(sample, patients, found, true, name) for name in RATES)))
    note = "Each artery of each scan is one case. False positives: of the arteries without visible calcium."
    return Table("detection_arteries", "Arteries with visible calcium", columns, tuple(rows), note)


def _pair_table(sample: Sample, methods: Sequence[str]) -> Table:
    columns = ("Method", "Single", "Published, single", "Pairs", "Published, pairs")
    seen = [p for p in sample.pairs if all(record.visible_arteries is not None for record in p)]
    rows: list[tuple[Cell, ...]] = []
    for method in methods:
        # A case is an artery of a pair that shows calcium in both scans.
        cases: list[tuple[str, Pair, Sequence[str]]] = [
            (title, pair, arteries)
            for title, arteries in VESSELS.items()
            for pair in having(seen, method)
            if all(_shows(record, arteries) for record in pair)
        ]
        rows.append(heading(METHODS[method], columns))
        for title in ("All", *VESSELS):
            own = [case for case in cases if title in ("All", case[0])]
            hits = np.array([[score(r, method, arteries=a) > 0 for r in pair] for _, pair, a in own]).reshape(-1, 2)
            patients = [pair[0].patient for _, pair, _ in own]
            published = _PUBLISHED_ARTERIES[method][title]
            single = sample.bootstrap.proportion([p for p in patients for _ in range(2)], hits.ravel()) if own else None
            both = sample.bootstrap.proportion(patients, hits.all(1)) if own else None
            rows.append((f"  {title}", single, published[0], both, published[1]))
    note = (
        f"Arteries with visible calcium in both scans of a patient: proportion found in a scan (single), and in "
        f"both scans (pairs). Published: {PAPER}, table 3 (51 artery pairs of 34 patients)."
    )
    return Table("arteries_found", "Arteries found, singly and in both scans", columns, tuple(rows), note)


def _lesion_table(sample: Sample) -> Table:
    rows: list[tuple[Cell, ...]] = []
    lesions = [(r.patient, mass, holds) for r in sample.scans for _, mass, holds in r.map_lesions if holds is not None]
    if lesions:
        for low, high in [(0.0, math.inf), *itertools.pairwise(SIZES[sample.unit])]:
            own = [lesion for lesion in lesions if low <= lesion[1] < high]
            name = "All" if (low, high) == (0.0, math.inf) else f"  {_range(low, high)} {sample.unit}"
            hits = np.array([holds for _, _, holds in own], bool)
            rows.append((name, sample.bootstrap.proportion([p for p, _, _ in own], hits) if own else None))
    note = "Proportion of the calcium map's lesions that hold coronary calcium, by their mass in the map."
    columns = ("Lesions of the map", "Hold coronary calcium")
    return Table("map_lesions", "Lesions of the calcium map that are coronary", columns, tuple(rows), note)


def _range(low: float, high: float) -> str:
    if low == 0:
        return f"< {high:g}"
    return f"≥ {low:g}" if math.isinf(high) else f"{low:g}–{high:g}"


def _slice_section(sample: Sample) -> tuple[Section, ...]:
    scans = [record for record in sample.scans if record.slices]
    if not scans:
        return ()
    patients = [record.patient for record in scans for _ in record.slices]
    true = np.array([shows for record in scans for shows, _ in record.slices], bool)
    p = np.array([p for record in scans for _, p in record.slices])
    found = p >= np.array([record.slice_threshold for record in scans for _ in record.slices])
    names = ("Accuracy", "Sensitivity", "False positives")
    rows = [(name, rate(sample, patients, found, true, name), _PUBLISHED_SLICES[name]) for name in names]
    area = area_under_curve(sample.bootstrap.weights(patients), true, p)
    rows.append(("Area under the ROC curve", estimate(area, len(true), len(set(patients))), None))
    thresholds = sorted({record.slice_threshold for record in scans})
    text = (
        f"{len(true)} slices with heart of {count(scans, 'scan')}, {true.sum()} of them with visible coronary calcium. "
        f"The classifier calls a slice positive from the probability {', '.join(f'{t:.2f}' for t in thresholds)} on, "
        "which was chosen in its training; scoring may include more slices than these.",
    )
    note = f"Published: {PAPER}, 17,450 slices of 238 scans."
    table = Table("slices", "Slices with visible calcium", ("Slices", "Found", "Published"), tuple(rows), note)
    return (Section("detection_slices", "Detection per slice", text, (table,)),)
