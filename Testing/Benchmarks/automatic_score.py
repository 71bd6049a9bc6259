"""How the automatic score, the map's score and an ideal reader's agree with the truth of digital patients.

Run from the repository's root on what `calcium_sites.py` has measured, or on the folder of `cac evaluate
reproducibility` of a cohort of digital patients:

    PYTHONPATH=CACTraining:CACScoring python Testing/Benchmarks/automatic_score.py OUTPUT.jsonl | STUDY
        [--without CODE]

The truth is a patient's reference score, of a still scan without noise (`phantom/cohort/reference.py`); the ideal
reader knows the place of every lesion and scores it by the clinical rule in the scan as it is. Categories 0, 1-99,
100-399, 400 and more; κ with linear weights. Slope: of the score on the truth, of both logarithms where both are above
1. Of a study also: how often `cac compare` calls an unchanged pair changed, by the intervals of both scans. Intervals
of all figures: bootstrap over patients, 95 %.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from CACScoringLib.core.files import write_text_atomically
from CACScoringLib.core.tables import read_table
from CACScoringLib.scoring.comparison import CHANGED, UNKNOWN, compare, read_result
from CACScoringLib.scoring.uncertainty import CATEGORIES, LIMITS, TOTAL
from CACTrainingLib.phantom.cohort.reference import patient_of, reference_scores
from CACTrainingLib.statistics.agreement import agreement, kappa
from CACTrainingLib.statistics.bootstrap import Bootstrap, estimate, ratio
from CACTrainingLib.statistics.regression import rank_correlation
from CACTrainingLib.studies.records import read_records

METHODS = {"threshold": "automatic", "decomposition": "map", "reader": "ideal reader"}


def scores(rows: Sequence[dict], method: str) -> np.ndarray:
    """Totals, [n]."""
    if method == "reader":
        return np.array([row["reader"] for row in rows], float)
    return np.array([row["methods"][method]["agatston"] for row in rows], float)


def category(values: np.ndarray) -> np.ndarray:
    return np.searchsorted(LIMITS["agatston"], values, side="right")


def report(rows: Sequence[dict]) -> None:
    """Print the measures with their intervals."""
    rows = [row for row in rows if row["reference"] is not None]
    patients = [row["patient"] for row in rows]
    boot = Bootstrap(patients, np.random.default_rng(0))
    weights, count = boot.weights(patients), len(set(patients))
    truth = np.array([sum(row["reference"].values()) for row in rows])

    def line(title: str, values: np.ndarray) -> None:
        print(f"  {title}: {estimate(values, len(rows), count)}")

    shown = ", ".join(
        f"{n} {name}" for name, n in zip(CATEGORIES, np.bincount(category(truth), minlength=4), strict=True)
    )
    print(f"{len(rows)} scans of {count} patients; true categories: {shown}")
    ideal = scores(rows, "reader")
    for method, title in METHODS.items():
        found = scores(rows, method)
        print(title)
        line("κ of categories with the truth", kappa(weights, category(found), category(truth), len(CATEGORIES)))
        if method != "reader":
            line("κ with the ideal reader", kappa(weights, category(found), category(ideal), len(CATEGORIES)))
        line("rank correlation with the truth", rank_correlation(weights, found, truth))
        line("slope on the truth, logarithms", _slope(weights, truth, found))
        if method != "reader":
            line("slope on the ideal reader, logarithms", _slope(weights, ideal, found))
        line("ratio of sums, score to truth", ratio(weights, found, truth))
        _pairs(rows, found, "total")
        for artery in ("LM", "LAD", "LCX", "RCA"):
            own = [row["reader_arteries"] if method == "reader" else row["methods"][method]["arteries"] for row in rows]
            _pairs(rows, np.array([each[artery] for each in own]), artery)
        if method != "reader":
            _coverage(rows, weights, truth, method)


def _slope(weights: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    both = (x > 1) & (y > 1)
    u, v, w = np.log(x[both]), np.log(y[both]), weights[:, both]
    total = np.where(w.sum(1) > 0, w.sum(1), np.nan)
    mean_u, mean_v = (w @ u) / total, (w @ v) / total
    spread = (w * (u - mean_u[:, None]) ** 2).sum(1)
    return (w * (u - mean_u[:, None]) * (v - mean_v[:, None])).sum(1) / np.where(spread > 0, spread, np.nan)


def _pairs(rows: Sequence[dict], found: np.ndarray, title: str) -> None:
    by_patient: dict[int, list[float]] = {}
    for row, value in zip(rows, found, strict=True):
        by_patient.setdefault(row["patient"], []).append(float(value))
    pairs = np.array([pair for pair in by_patient.values() if len(pair) == 2])
    if len(pairs) > 5 and np.ptp(pairs):
        drawn = Bootstrap(range(len(pairs)), np.random.default_rng(0)).weights(range(len(pairs)))
        print(f"  ICC of scan and rescan, {title}: {estimate(agreement(drawn, pairs), len(pairs), len(pairs))}")


def _coverage(rows: Sequence[dict], weights: np.ndarray, truth: np.ndarray, method: str) -> None:
    """How often the interval holds the truth, by category, and how wide it is; how probable the true category was."""
    told = np.array([TOTAL in row["methods"][method]["intervals"] for row in rows])
    print(f"  {len(rows) - told.sum()} scans without an interval: withheld, or nothing is known of errors")
    if not told.any():
        return
    rows, weights, truth = [row for row, own in zip(rows, told, strict=True) if own], weights[:, told], truth[told]
    low, high = np.array([row["methods"][method]["intervals"][TOTAL] for row in rows]).T
    held = ((low <= truth) & (truth <= high)).astype(float)
    width = np.log1p(high) - np.log1p(low)
    for c, name in enumerate(CATEGORIES):
        own = category(truth) == c
        if own.any():
            values = ratio(weights[:, own], held[own], np.ones(own.sum()))
            shown = estimate(values, int(own.sum()), len({rows[n]["patient"] for n in np.flatnonzero(own)}))
            print(f"  coverage where the truth is {name}: {shown}; median width of ln {np.median(width[own]):.2f}")
    if not all(row["methods"][method]["probabilities"] for row in rows):
        return
    chances = np.array([[row["methods"][method]["probabilities"][name] for name in CATEGORIES] for row in rows])
    right = chances.argmax(1) == category(truth)
    print(f"  likeliest category right {right.mean():.2f}, mean probability it was given {chances.max(1).mean():.2f}")


def rows_of(study: Path, without: str | None) -> list[dict]:
    """What `calcium_sites.py` would measure for `report`, of the scans of a study. References are kept in its folder.

    without: patients of whom a scan has this warning are left out."""
    places = {line.text("name"): Path(line.text("ct")).parent for line in read_table(study / "scans.csv").lines}
    kept = study / "references.json"
    references: dict[str, dict | None] = json.loads(kept.read_text()) if kept.exists() else {}
    records = read_records(study / "records.jsonl")
    left_out = {r.patient for r in records if without in (r.acquisition.get("warnings") or ())}
    print(f"{len(left_out)} patients left out")
    rows = []
    for record in records:
        if record.patient in left_out:
            continue
        if record.patient not in references:
            truth = json.loads((places[record.scan] / "truth.json").read_text(encoding="utf-8"))
            patient = patient_of(truth)
            own = None if patient is None else reference_scores(patient)
            references[record.patient] = own and {artery: score.agatston for artery, score in own.items()}
        content = read_result(study / "scans" / record.scan.replace("/", "-"))
        reader = record.values["reader"]
        methods = {name: _found(method) for name, method in content["methods"].items()}
        methods["threshold"]["probabilities"] = content["categories"]["probabilities"]
        rows.append(
            {
                "patient": record.patient,
                "reference": references[record.patient],
                "reader": reader.agatston,
                "reader_arteries": {artery: agatston for artery, (_, agatston) in reader.arteries.items()},
                "methods": methods,
                "content": content,
            }
        )
    write_text_atomically(kept, json.dumps(references))
    return rows


def _found(method: dict) -> dict:
    parts = {TOTAL: method["total"], **method["arteries"]}
    return {
        "agatston": method["total"]["clinical_agatston"],
        "arteries": {key: score["clinical_agatston"] for key, score in method["arteries"].items()},
        "intervals": {key: own for key, score in parts.items() if (own := score["interval_90"]) is not None},
        "probabilities": {},
    }


def report_changes(rows: Sequence[dict]) -> None:
    """Print how often the total of a patient who has not changed is called changed."""
    by_patient: dict[str, list[dict]] = {}
    for row in rows:
        by_patient.setdefault(row["patient"], []).append(row["content"])
    for method in ("threshold", "decomposition"):
        verdicts = []
        for pair in (pair for pair in by_patient.values() if len(pair) == 2):
            found = next(m for m in compare(*pair, None).methods if m.method == method)
            verdicts += [c.verdict for c in found.changes if (c.quantity, c.part) == ("agatston", TOTAL)]
        told = [verdict for verdict in verdicts if verdict != UNKNOWN]
        changed = told.count(CHANGED)
        print(f"{METHODS[method]}: {changed} of {len(told)} unchanged pairs are called changed, by intervals")
        print(f"  ({len(verdicts) - len(told)} pairs without a verdict)")


def main() -> None:
    """Read, and print all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("measured", type=Path, nargs="+")
    parser.add_argument("--without", metavar="CODE", help="leave out patients of a study with this warning")
    options = parser.parse_args()
    files = [path for path in options.measured if not path.is_dir()]
    rows = [json.loads(text) for path in files for text in path.read_text().splitlines()]
    of_studies = [row for path in options.measured if path.is_dir() for row in rows_of(path, options.without)]
    report([*rows, *of_studies])
    if of_studies:
        report_changes(of_studies)


if __name__ == "__main__":
    main()
