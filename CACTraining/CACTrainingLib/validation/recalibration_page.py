"""The page's section on a calibration: agreement and intervals before and after, cross-fitted, and what was fitted."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from CACScoringLib.scoring.risk import whole_score

from ..report.parts import METHODS, Section, Table, count, p_cell
from ..statistics.bootstrap import Bootstrap, Found, mean, paired_difference, ratio
from ..statistics.regression import linear_fit
from ..training.evidence import FOLDS
from .agreement import CATEGORIES, LEAST, Compared, Statistic, category, category_kappa, f1_at, icc
from .comparison import ComparedScan
from .recalibration import (
    KINDS,
    LEAST_CANDIDATE_PATIENTS,
    LEAST_CANDIDATES,
    LEAST_OF_CLASS,
    LEAST_OF_EACH,
    LEAST_PATIENTS,
    CrossFitted,
    Recalibration,
)

if TYPE_CHECKING:
    from ..report.parts import Cell

NAME, TITLE = "calibration", "Calibration on these scans"

Interval = Sequence[float] | None
"""Lowest and highest; None where it is withheld or unknown."""


def refused_section(reason: str) -> Section:
    """Why nothing was calibrated."""
    return Section(NAME, TITLE, (f"Nothing was calibrated or stored. {reason}",))


def section(found: Recalibration, bootstrap: Bootstrap, name: str, base: str) -> Section:
    """Of a calibration that is stored under a name. base: name of the model before."""
    kinds = Compared(found.scans, bootstrap, "", {})
    weights = "Weights and limit of the evidence" if found.refitted else "The limit of the evidence"
    changed = sum(not np.isclose(before, after) for before, after in zip(*_measured(found), strict=True))
    text = (
        f"“Before” is {base}, as the other sections have it. “After” is cross-fitted: the patients were split into "
        f"{FOLDS} folds, and each scan was evaluated by what the patients of the other folds taught, so that its own "
        "reference has no part in its score and interval. What is stored was fitted to all "
        f"{count(found.scans, 'scan')} of {count(found.patients, 'patient')}, and was not evaluated on others.",
        f"{weights}, errors of scores and the range of scans were fitted; [[calibration_parts]] tells what was not, "
        f"and why. Of {count(found.scans, 'score')}, {changed} differ from before.",
        f"It is stored as the model {name}. Score with it by “cac score --model {name}” or “cac cohort --model "
        f"{name}”. Without that, {base} scores as before; “cac models rollback {name}” takes {name} away.",
    )
    return Section(NAME, TITLE, text, (_agreement(kinds, found), _intervals(found), _parts(found)))


def achieved(found: Recalibration) -> dict[str, object]:
    """Figures for the model's card, cross-fitted: before and after; and how many intervals hold the reference."""
    scans = Compared(found.scans, Bootstrap([s.patient for s in found.scans], np.random.default_rng(0), 0), "", {})
    figures: dict[str, object] = {"scans": len(found.scans), "patients": found.patients}
    for title, measured in zip(("before", "after"), _measured(found), strict=True):
        values = {key: float(made(scans.weights(), scans.totals, measured)[0]) for key, (_, made) in _MEASURES.items()}
        figures[title] = {key: round(value, 4) for key, value in values.items() if np.isfinite(value)}
    figures["coverage_of_intervals"] = {
        kind: {c: list(_held(found, method, n, after=True)[:2]) for n, c in enumerate(CATEGORIES)}
        for method, kind in KINDS.items()
    }
    return figures


def _slope(weights: np.ndarray, reference: np.ndarray, measured: np.ndarray) -> np.ndarray:
    return linear_fit(weights, reference, measured)[0]


def _mean_difference(weights: np.ndarray, reference: np.ndarray, measured: np.ndarray) -> np.ndarray:
    return mean(weights, measured - reference)


def _log_difference(weights: np.ndarray, reference: np.ndarray, measured: np.ndarray) -> np.ndarray:
    return mean(weights, np.abs(np.log1p(measured) - np.log1p(reference)))


def _rate(positive: bool, weights: np.ndarray, reference: np.ndarray, measured: np.ndarray) -> np.ndarray:
    found, true = (np.array([(whole_score(x) >= 1) == positive for x in scores]) for scores in (measured, reference))
    return ratio(weights, 1.0 * (found & true), 1.0 * true)


_MEASURES: dict[str, tuple[str, Statistic]] = {
    "icc": ("ICC of totals", icc),
    "slope": ("Slope", _slope),
    "mean_difference": ("Mean difference", _mean_difference),
    "difference_of_ln_agatston": ("Mean difference of ln(1 + score)", _log_difference),
    "kappa": ("κ of categories", category_kappa),
    "sensitivity": ("Sensitivity at ≥ 1", partial(_rate, True)),
    "specificity": ("Specificity at ≥ 1", partial(_rate, False)),
    **{f"f1_{least}": (f"F1 at ≥ {least}", partial(f1_at, least)) for least in LEAST},
}


def _pairs(found: Recalibration) -> Iterator[tuple[CrossFitted, ComparedScan]]:
    return zip(found.cross_fitted, found.scans, strict=True)


def _measured(found: Recalibration) -> tuple[np.ndarray, np.ndarray]:
    """Automatic clinical scores before and after."""
    return (
        np.array([scan.measured["automatic"] for scan in found.scans]),
        np.array([own.automatic for own in found.cross_fitted]),
    )


def _agreement(compared: Compared, found: Recalibration) -> Table:
    rows: list[tuple[Cell, ...]] = []
    for title, statistic in _MEASURES.values():
        before, after = (compared.found(statistic, measured) for measured in _measured(found))
        rows.append(_row(title, before, after))
    both = [(own.probabilities, scan.candidates.probabilities, scan) for own, scan in _pairs(found)]
    told = [(a, b, scan) for a, b, scan in both if a and b]
    if told:
        true = [category(scan.total) for _, _, scan in told]
        weights = compared.weights([scan for _, _, scan in told])
        patients = len({scan.patient for _, _, scan in told})
        values = [[list(pair[n].values())[c] for pair, c in zip(told, true, strict=True)] for n in (1, 0)]
        estimates = (Found(mean(weights, np.array(own)), len(told), patients) for own in values)
        rows.append(_row("Mean probability of the true category", *estimates))
    note = (
        f"{METHODS['automatic']} against the reference, on the same scans. Differences are after minus before; slope 1 "
        "and differences of 0 are best. The calcium map's own scores are not changed by a calibration."
    )
    columns = ("Measure", "Before", "After, cross-fitted", "Difference", "p")
    return Table("calibration_agreement", "Agreement before and after", columns, tuple(rows), note)


def _row(title: str, before: Found, after: Found) -> tuple[Cell, ...]:
    change = paired_difference(after, before)
    return title, before.estimate, after.estimate, change.estimate, p_cell(change.p)


def _interval(found: Recalibration, n: int, method: str, after: bool) -> Interval:
    if after:
        return found.cross_fitted[n].intervals[method]
    return found.scans[n].candidates.intervals.get(method)


def _held(found: Recalibration, method: str, of: int | None, after: bool) -> tuple[int, int, int]:
    """How many intervals hold the reference, how many there are, and how many scans have none. of: only scans whose
    reference is of this category; None for all."""
    held = told = none = 0
    for n, scan in enumerate(found.scans):
        if of is not None and category(scan.total) != of:
            continue
        interval = _interval(found, n, method, after)
        if interval is None:
            none += 1
            continue
        told += 1
        held += interval[0] <= scan.total <= interval[1]
    return held, told, none


def _width(found: Recalibration, method: str, after: bool) -> float | None:
    own = [_interval(found, n, method, after) for n in range(len(found.scans))]
    ratios = [(1 + interval[1]) / (1 + interval[0]) for interval in own if interval is not None]
    return float(np.median(ratios)) if ratios else None


def _intervals(found: Recalibration) -> Table:
    shown = [(method, after) for method in KINDS for after in (False, True)]
    columns = tuple(f"{METHODS[method]}, {'after' if after else 'before'}" for method, after in shown)
    rows: list[tuple[Cell, ...]] = []
    for of, title in [*enumerate(CATEGORIES), (None, "all")]:
        scans = sum(of is None or category(scan.total) == of for scan in found.scans)
        rows.append((title, scans, *(_told(*_held(found, *which[:1], of, which[1])) for which in shown)))
    widths = (_width(found, *which) for which in shown)
    rows.append(("median of (1 + highest) / (1 + lowest)", None, *(w if w is None else round(w, 2) for w in widths)))
    note = (
        "How many 90 % intervals of totals hold the reference's score, of how many; by its category. Intervals before "
        "are for the score that a still scan without noise would give, those after for the score that the reference's "
        "readers give. Intervals are withheld where a scan is unlike those of the calibration. After is cross-fitted."
    )
    return Table(
        "calibration_intervals", "Intervals before and after", ("Reference", "Scans", *columns), tuple(rows), note
    )


def _told(held: int, told: int, none: int) -> str:
    counted = f"{held} of {told}" if told else "–"
    return f"{counted} ({none} none)" if none else counted


def _parts(found: Recalibration) -> Table:
    scans = found.scans
    known = [scan.candidates.coronary for scan in scans if scan.candidates.coronary is not None]
    coronary, every = sum(map(sum, known)), sum(map(len, known))
    weights = (
        ("Weights of candidates' evidence", "yes", f"{coronary} coronary and {every - coronary} other candidates", "")
        if found.refitted
        else ("Weights of candidates' evidence", "no", "", found.why_not)
    )
    all_of = f"{count(scans, 'scan')} of {count(found.patients, 'patient')}"
    few = [name for n, name in enumerate(CATEGORIES) if _of_category(scans, n) < LEAST_OF_CLASS]
    borrowed = f"Categories of fewer than {LEAST_OF_CLASS} scans ({', '.join(few)}) also keep the errors of before."
    rows = (
        weights,
        ("Limit from which a candidate counts", "yes", all_of, ""),
        ("Errors of totals (intervals)", "yes", all_of, borrowed if few else ""),
        ("Probabilities of categories", *_probabilities(found, all_of)),
        (
            "Errors of arteries",
            *(
                ("yes", count(found.arteries, "patient"), "")
                if found.arteries
                else ("no", "", f"They need LM, LAD, LCX and RCA of {LEAST_PATIENTS} patients; no intervals are given.")
            ),
        ),
        ("Errors of mass", "no", "", "A reference holds no mass; no intervals are given."),
        ("Errors of reviewed scores", "no", "", "The reference is a reader's itself; no intervals are given."),
        ("Range of known scans", "yes", all_of, "Other scans get wider intervals, or none."),
        ("Evidence of the map's lesions", "no", "", "Results do not keep what it left out; it stays as it was."),
        ("Networks", "no", "", "A calibration trains nothing."),
    )
    note = (
        f"Weights need {LEAST_CANDIDATES} candidates that are coronary calcium and as many others, of "
        f"{LEAST_CANDIDATE_PATIENTS} patients each; a limit of categories {LEAST_OF_EACH} patients on either side; "
        f"anything {LEAST_PATIENTS} patients."
    )
    return Table("calibration_parts", "What was fitted", ("Part", "Fitted", "On", "Note"), rows, note)


def _of_category(scans: Sequence[ComparedScan], place: int) -> int:
    return sum(category(scan.total) == place for scan in scans)


def _probabilities(found: Recalibration, all_of: str) -> tuple[str, str, str]:
    if not found.from_base:
        return "yes", all_of, ""
    limits = " and ".join(f"{limit:g}" for limit in found.from_base)
    return "in part", all_of, f"From {limits} on as before: too few patients lie on one side."
