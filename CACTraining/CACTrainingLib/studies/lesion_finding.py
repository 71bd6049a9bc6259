"""What is the smallest plaque that a method finds? By mass, density, length and motion, where the truth is known."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from ..report import figures as study_figures
from ..report.parts import METHODS, Figure, Section, Table, count, heading
from ..statistics.bootstrap import Estimate, estimate
from ..statistics.regression import half_found
from .records import StudyRecord, TrueLesion
from .sample import VESSELS, WITH_MASS, Sample

if TYPE_CHECKING:
    from ..report.parts import Cell

Item = tuple[StudyRecord, TrueLesion]


def _mass(lesion: TrueLesion) -> float:
    return lesion.mass_mg


SORTS: dict[str, tuple[Callable[[TrueLesion], float | None], tuple[float, ...]]] = {
    "Mass, mg": (_mass, (0, 1, 3, 10, 30, math.inf)),
    "Density, mg/cm³": (lambda lesion: lesion.density_mg_cm3, (0, 300, 500, 800, math.inf)),
    "Length, mm": (lambda lesion: lesion.length_mm, (0, 2, 4, 8, math.inf)),
    "Speed, mm/s": (lambda lesion: lesion.speed_mm_s, (0, 20, 40, 60, math.inf)),
}
"""How plaques are sorted, and the borders of each group (from the lower one on, below the upper one)."""


def sections(sample: Sample) -> tuple[Section, ...]:
    """One section; none where no plaque is known."""
    items = [(r, lesion) for r in sample.scans if r.truth is not None for lesion in r.truth.lesions]
    methods = [m for m in WITH_MASS if any(m in lesion.found for _, lesion in items)]
    if not items or not methods:
        return ()
    groups = _groups(items)
    text = [
        f"{count(items, 'plaque')} in {count({r.scan for r, _ in items}, 'scan')} of "
        f"{count({r.patient for r, _ in items}, 'patient')}, each counted in each scan that holds it. A plaque is "
        "found when the method counts any of its calcium where the scan shows it; so the ceiling finds all. The "
        "regions of “130 HU, arteries known” are those where calcium shows, so it misses what no slice shows.",
        _smallest_text(sample, items, methods),
    ]
    tables = (_found_table(sample, groups, methods), _half_table(sample, groups, methods))
    figures = (_figure(sample, groups, methods),)
    return (Section("lesions_found", "The smallest lesion each method finds", tuple(text), tables, figures),)


def _groups(items: Sequence[Item]) -> dict[str, dict[str, list[Item]]]:
    """Plaques by how they are sorted, and by group."""
    sorted_by: dict[str, dict[str, list[Item]]] = {}
    for title, (value, borders) in SORTS.items():
        known = [(item, value(item[1])) for item in items if value(item[1]) is not None]
        sorted_by[title] = {
            _range(low, high): [item for item, x in known if low <= x < high]
            for low, high in itertools.pairwise(borders)
        }
    sorted_by["Artery"] = {
        title: [item for item in items if item[1].artery in arteries] for title, arteries in VESSELS.items()
    }
    return {title: {name: part for name, part in parts.items() if part} for title, parts in sorted_by.items()}


def _range(low: float, high: float) -> str:
    if low == 0:
        return f"< {high:g}"
    return f"≥ {low:g}" if math.isinf(high) else f"{low:g}–{high:g}"


def _having(items: Sequence[Item], method: str) -> list[Item]:
    return [item for item in items if method in item[1].found]


def _proportion(sample: Sample, items: Sequence[Item], method: str) -> Estimate:
    own = _having(items, method)
    hits = np.array([lesion.found[method] > 0 for _, lesion in own], bool)
    return sample.bootstrap.proportion([record.patient for record, _ in own], hits)


def _half(sample: Sample, items: Sequence[Item], method: str) -> Estimate:
    """Mass of plaques of which half are found, mg."""
    own = _having(items, method)
    patients = [record.patient for record, _ in own]
    masses = np.array([lesion.mass_mg for _, lesion in own])
    hits = np.array([lesion.found[method] > 0 for _, lesion in own], bool)
    return estimate(half_found(sample.bootstrap.weights(patients), masses, hits), len(own), len(set(patients)))


def _found_table(sample: Sample, groups: dict[str, dict[str, list[Item]]], methods: Sequence[str]) -> Table:
    columns = ("Plaques", *(METHODS[m] for m in methods))
    rows: list[tuple[Cell, ...]] = []
    for title, parts in groups.items():
        rows.append(heading(title, columns))
        rows += [(f"  {name}", *(_proportion(sample, items, m) for m in methods)) for name, items in parts.items()]
    note = (
        "Proportion of plaques found. Speed: mean speed of the plaque while it was scanned, from heartbeat and "
        "breathing. "
        "The groups differ in other respects as well: the right coronary artery moves most, dense plaques weigh more."
    )
    return Table("plaques_found", "Proportion of true plaques found", columns, tuple(rows), note)


def _half_table(sample: Sample, groups: dict[str, dict[str, list[Item]]], methods: Sequence[str]) -> Table:
    shown = [m for m in methods if m != "noise_free"]
    columns = ("Plaques", *(METHODS[m] for m in shown))
    everything = list(itertools.chain(*groups["Mass, mg"].values()))
    rows: list[tuple[Cell, ...]] = [("All", *(_half(sample, everything, m) for m in shown))]
    for title in ("Density, mg/cm³", "Speed, mm/s", "Artery"):
        if groups[title]:
            rows.append(heading(title, columns))
            rows += [(f"  {name}", *(_half(sample, part, m) for m in shown)) for name, part in groups[title].items()]
    note = (
        "Mass in mg of a plaque that is found in half of the scans, by logistic regression on the logarithm of mass; "
        "lower is better. Not defined where it lies outside the masses that occur."
    )
    return Table("smallest_plaque", "Mass at which half of the plaques are found", columns, tuple(rows), note)


def _smallest_text(sample: Sample, items: Sequence[Item], methods: Sequence[str]) -> str:
    said = []
    for method in (m for m in methods if m != "noise_free"):
        half, proportion = _half(sample, items, method), _proportion(sample, items, method)
        mass = (
            f"half of those of {half.value:.1f} mg" if math.isfinite(half.value) else "no mass at which half were found"
        )
        said.append(f"“{METHODS[method]}” found {proportion.value:.0%} of all {proportion.n}, {mass}")
    return f"{'; '.join(said)}."


def _figure(sample: Sample, groups: dict[str, dict[str, list[Item]]], methods: Sequence[str]) -> Figure:
    shown = [m for m in methods if m != "noise_free"]
    panels = [
        study_figures.Panel(
            title, tuple(parts), {m: [_proportion(sample, items, m) for items in parts.values()] for m in shown}
        )
        for title, parts in groups.items()
        if parts
    ]
    draw = partial(study_figures.panels_of_values, panels=panels, y_title="Share found", limits=(0, 1), connected=True)
    note = "Each panel groups the same plaques by another property."
    return Figure(
        "plaques_found_by",
        "Proportion of true plaques found by mass, density, length, motion and artery",
        draw,
        note,
        (7, 5),
    )
