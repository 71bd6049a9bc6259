"""Study of the segmented heart: overlap and surface distances, as van Velzen et al. report them in section 5."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..evaluation.measures import Measure, long_table, value_row
from ..evaluation.parts import Section, Table, count
from .records import StudyRecord
from .sample import PAPER, Sample

_MEASURES = {
    "Dice": ("dice", "0.95 (0.94–0.96)"),
    "Hausdorff distance, mm": ("hausdorff_mm", "15 (11–21)"),
    "Average surface distance, mm": ("surface_mm", "1.6 (1.2–2.2)"),
}
MIN_DICE = 0.8
"""Dice below which a heart is listed by name for review."""
_MAX_NAMED = 10


def sections(records: Sequence[StudyRecord], generator: np.random.Generator) -> tuple[Section, ...]:
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
    tables = (Table("heart", "Heart found against reference heart", columns, tuple(rows), note),)
    return (Section("heart", "The heart's outline", text, tables, values=(values,)),)


def _median(weights: np.ndarray, _: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Median of the values, a `Statistic`."""
    resamples = (np.repeat(values, counts) for counts in weights.astype(int))
    return np.array([np.median(resample) if len(resample) else np.nan for resample in resamples])
