"""How well is the heart found? Overlap and surface distances, as van Velzen et al. report them in section 5."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..report.parts import Section, Table, count
from ..statistics.bootstrap import estimate, quantile
from .records import StudyRecord
from .sample import PAPER, Sample, patients_of

_MEASURES = {
    "Dice": ("dice", "0.95 (0.94–0.96)"),
    "Hausdorff distance, mm": ("hausdorff_mm", "15 (11–21)"),
    "Average surface distance, mm": ("surface_mm", "1.6 (1.2–2.2)"),
}
LEAST_DICE = 0.8
"""Hearts below this are named: a score from such a heart deserves a look."""
_MOST_NAMED = 10


def sections(records: Sequence[StudyRecord], generator: np.random.Generator) -> tuple[Section, ...]:
    """One section; it says so where no heart is known. Raises MixedUnitsError."""
    sample = Sample(records, generator)
    scans = [record for record in sample.scans if record.heart is not None]
    if not scans:
        text = (
            f"{sample.opening()} For none of them is the true outline of the heart known, so the outline cannot be "
            "evaluated."
        )
        return (Section("heart", "The heart's outline", (text,)),)
    patients = patients_of(scans)
    weights = sample.weights(scans)
    rows = []
    for title, (name, published) in _MEASURES.items():
        values = np.array([getattr(record.heart, name) for record in scans])
        median = estimate(quantile(weights, values, 0.5), len(scans), len(set(patients)))
        low, high = np.percentile(values, (25, 75))
        worst = values.min() if name == "dice" else values.max()
        rows.append((title, median, float(low), float(high), float(worst), published))
    text = [
        sample.opening(),
        f"For {count(scans, 'scan')} of {count(set(patients), 'patient')}, the heart is known and was found by the "
        "network.",
        _poor(scans),
    ]
    note = (
        f"Published: {PAPER}, median (quartiles) of 79 scans. Its surface distance is called asymmetric without a "
        "direction; here it is the mean over both surfaces."
    )
    columns = ("Measure", "Median", "Lower quartile", "Upper quartile", "Worst", "Published")
    table = Table("heart", "Heart found against reference heart", columns, tuple(rows), note)
    return (Section("heart", "The heart's outline", tuple(text), (table,)),)


def _poor(scans: Sequence[StudyRecord]) -> str:
    poor = sorted((record for record in scans if record.heart.dice < LEAST_DICE), key=lambda record: record.heart.dice)
    if not poor:
        return f"Every one of the {len(scans)} has a Dice of at least {LEAST_DICE}."
    named = ", ".join(f"{record.scan} ({record.heart.dice:.2f})" for record in poor[:_MOST_NAMED])
    more = "" if len(poor) <= _MOST_NAMED else f" and {len(poor) - _MOST_NAMED} more"
    return f"{len(poor)} of {len(scans)} have a Dice below {LEAST_DICE}: {named}{more}."
