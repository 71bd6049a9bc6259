"""Do two scans put a patient into the same risk category? Classes by the Agatston score, as in van Velzen's table 5."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from CACScoringLib.scoring.risk import ROUNDING, whole_score

from ..report.parts import METHODS, Section, Table, heading, p_cell
from ..statistics.agreement import kappa, kappa_estimate
from ..statistics.bootstrap import Difference, Estimate, Found, paired_difference
from .sample import AGATSTON, HIGHER, LOWER, OWN, PAPER, WITH_AGATSTON, Pair, Sample, compared, having, pair_scores

if TYPE_CHECKING:
    from ..report.parts import Cell

CLASSES = ("0–10", "11–100", "101–400", "> 400")
_HIGHEST = (10, 100, 400)

_PUBLISHED = {
    "map": ("0.82 / 0.84", "0.92 / 0.90", "0.77", "0.79"),
    "reader": ("0.63 / –", "0.92 / –", None, None),
    "automatic": ("0.64 / 0.81", "0.95 / 0.92", "0.67", "0.68"),
}


def sections(sample: Sample) -> tuple[Section, ...]:
    """One section; none without pairs or without Agatston scores."""
    methods = tuple(m for m in WITH_AGATSTON if having(sample.pairs, m))
    if not methods:
        return ()
    tables = [_agreement_table(sample, methods)]
    text = [
        f"Four classes by the Agatston score: {', '.join(CLASSES)}. {ROUNDING} Scores of the calcium map are scaled to "
        "the range of the 130 HU scores by the factor that is stored with the model, which was found on other patients."
    ]
    if OWN in methods and len(methods) > 1:
        comparators = [m for m in methods if m != OWN]
        changes = {comparator: _change(sample, comparator) for comparator in comparators}
        columns = ("Compared with", "Pairs", "Difference of κ", "p")
        rows = [(METHODS[r], len(having(sample.pairs, OWN, r)), c.estimate, p_cell(c.p)) for r, c in changes.items()]
        note = "κ of the calcium map minus that of the other method, on the same pairs; above zero is better."
        tables.append(Table("kappa_differences", "κ of the calcium map against others", columns, tuple(rows), note))
        said = [f"with “{METHODS[r]}”: {compared(c, LOWER, HIGHER)}" for r, c in changes.items()]
        text.append(
            f"κ of the calcium map, over the pairs that [[kappa_differences]] counts, compared {'; '.join(said)}."
        )
    tables += [_cross_table(sample, method) for method in methods]
    return (Section("categories", "Risk categories", tuple(text), tuple(tables)),)


def category(agatston: float) -> int:
    """Place of a score's class in CLASSES."""
    return sum(whole_score(agatston) > highest for highest in _HIGHEST)


def _categories(pairs: Sequence[Pair], method: str) -> np.ndarray:
    """Int [n, 2]."""
    values = pair_scores(pairs, method, AGATSTON)
    return np.array([category(x) for x in values.ravel()], int).reshape(-1, 2)


def category_kappa(pairs: Sequence[Pair], method: str) -> Estimate:
    """Linearly weighted κ of the two scans' categories."""
    return kappa_estimate(*_categories(pairs, method).T, len(CLASSES))


def _agreement_table(sample: Sample, methods: Sequence[str]) -> Table:
    columns = ("Method", "κ", "Published κ", "Same category", "Published, same")
    rows: list[tuple[Cell, ...]] = []
    shown = [p for p in having(sample.pairs, "automatic") if all(r.values["automatic"].mass > 0 for r in p)]
    for n, (title, pairs) in enumerate(
        (("All pairs", sample.pairs), ("Pairs in which “130 HU, automatic” is above zero in both scans", shown))
    ):
        rows.append(heading(title, columns))
        for method in methods:
            own = having(pairs, method)
            classes = _categories(own, method)
            found = category_kappa(own, method)
            same = sample.bootstrap.proportion([p[0].patient for p in own], classes[:, 0] == classes[:, 1])
            published = _PUBLISHED[method][2 * n : 2 * n + 2]
            rows.append((f"  {METHODS[method]}", found, published[0], same, published[1]))
    note = (
        "Cohen's κ with linear weights between the classes of a patient's two scans, with its asymptotic interval. "
        f"Where most patients have no calcium, κ depends on few of them. Published: {PAPER}, table 5, 119 / 1543 "
        "patients; there the map's scores were scaled by the mean scores of the test data itself. κ of 0.90–0.91 "
        "(Lessmann 2018, de Vos 2019) is of an automatic method against a reader on one scan, not of two scans."
    )
    return Table("categories", "Agreement of risk categories", columns, tuple(rows), note)


def _change(sample: Sample, comparator: str) -> Difference:
    pairs = having(sample.pairs, OWN, comparator)
    weights = sample.weights(pairs)
    own, other = (kappa(weights, *_categories(pairs, method).T, len(CLASSES)) for method in (OWN, comparator))
    return paired_difference(*(Found(values, len(pairs), len(pairs)) for values in (own, other)))


def _cross_table(sample: Sample, method: str) -> Table:
    classes = _categories(having(sample.pairs, method), method)
    counts = np.zeros((len(CLASSES), len(CLASSES)), int)
    np.add.at(counts, tuple(classes.T), 1)
    rows = tuple((f"First scan {name}", *map(int, row)) for name, row in zip(CLASSES, counts, strict=True))
    columns = ("Pairs", *(f"Second scan {name}" for name in CLASSES))
    return Table(f"categories_{method}", f"Categories by {METHODS[method]}", columns, rows, "Numbers of patients.")
