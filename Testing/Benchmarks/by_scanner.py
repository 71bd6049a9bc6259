"""Write how right the automatic score is by scanner and by artery, and the error that a constant has on the same data.

    python Testing/Benchmarks/by_scanner.py MEASURED FOLDER ... [--scanners CSV] [--arteries CSV] [--constant CSV]

MEASURED is the file of measured scans that `cac calibrate` keeps in its cache, and FOLDER the digital patients that it
was given; scans that cut the heart, whose score is unknown, are left out. Scores are of a calibration that was fitted
to other patients (`calibration.fit_lesions`), beside the ideal reader's of the same scan. Digital scanners have no
maker's name: they differ in kernel, tube voltage, slices and gating. No network was trained on these patients, but on
others of the same kinds of scanners: this is not what leaving one scanner out of a training would show.

A constant is the mean score of each artery over the other patients; errors are in shares of the largest score of one
artery, as Kecoglu's.
"""

from __future__ import annotations

import argparse
import csv
import datetime
import json
import re
import subprocess
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from CACScoringLib.core.categories import category_numbers
from CACScoringLib.core.labels import ARTERIES
from CACScoringLib.statistics.agreement import kappa
from CACScoringLib.statistics.bootstrap import Bootstrap, Estimate, mean
from CACTrainingLib.truth.calibration import fit_lesions
from CACTrainingLib.truth.measured_scans import MeasuredScan, _read

SEED = 0
CLASSES = 4
"""Classes of scores: 0; 1 to 99; 100 to 399; 400 and more."""


def main() -> None:
    """Write the tables that the options name."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("measured", type=Path)
    parser.add_argument("folders", type=Path, nargs="+")
    parser.add_argument("--scanners", type=Path)
    parser.add_argument("--arteries", type=Path)
    parser.add_argument("--constant", type=Path)
    arguments = parser.parse_args()
    lines = arguments.measured.read_text(encoding="utf-8").splitlines()
    measured = (_read(json.loads(line)["result"]) for line in lines if line.strip())
    scans = sorted((scan for scan in measured if scan.reference_agatston is not None), key=lambda scan: scan.patient)
    cohorts = (json.loads((folder / "cohort.json").read_text())["settings"] for folder in arguments.folders)
    patients = "; ".join(f"from {cohort['first_number']}, {cohort['protocol']}" for cohort in cohorts)
    about = origin("Testing/Benchmarks/by_scanner.py MEASURED FOLDER ...", f"patients {patients}", SEED)
    _, _, dense = fit_lesions(scans)
    if arguments.scanners:
        rows = _scanner_rows(scans, dense, _scanners(arguments.folders))
        write_rows(arguments.scanners, [{**row, **about} for row in rows])
    if arguments.arteries:
        write_rows(arguments.arteries, [{**row, **about} for row in _artery_rows(dense)])
    if arguments.constant:
        write_rows(arguments.constant, [{**_constant_row(scans), **about}])


def _scanners(folders: Sequence[Path]) -> dict[str, dict[str, Any]]:
    """Return the scanner of each patient by the patient's number."""
    truths = [json.loads(file.read_text()) for folder in folders for file in folder.glob("patient_*/scan_1/truth.json")]
    return {str(truth["patient"]): truth["scanner"] for truth in truths}


def _groups(scan: MeasuredScan, scanner: dict[str, Any]) -> list[str]:
    """Return the groups of a scan: one of each property of its scanner."""
    thickness = float(scanner["slice_thickness_mm"])
    slices = "to 2 mm" if thickness <= 2 else "above 2 to 3 mm" if thickness <= 3 else "above 3 mm"
    gating = "gated" if scan.is_gated else "not gated"
    return ["all", f"kernel {scanner['kernel']['name']}", f"{scanner['kvp']:.0f} kVp", f"slices {slices}", gating]


def _scanner_rows(
    scans: Sequence[MeasuredScan], dense: pd.DataFrame, scanners: dict[str, dict[str, Any]]
) -> Iterator[dict[str, object]]:
    """Return a row of each group: totals of the automatic score against the ideal reader's.

    dense: Lesions of the scans as of `fit_lesions`.
    """
    counted = dense[dense.counts].groupby("scan").agatston.sum().reindex(range(len(scans)), fill_value=0.0).to_numpy()
    read = np.array([sum(scan.reader_agatston.values()) for scan in scans])
    groups: dict[str, list[int]] = {}
    for n, scan in enumerate(scans):
        for group in _groups(scan, scanners[scan.patient]):
            groups.setdefault(group, []).append(n)
    for group, members in sorted(groups.items(), key=lambda item: (item[0] != "all", item[0])):
        truth, score = read[members], np.where(counted[members] < 1, 0, counted[members])
        truth_class, score_class = category_numbers(truth), category_numbers(score)
        patients, is_zero = [scans[n].patient for n in members], truth == 0
        bootstrap = Bootstrap(patients, np.random.default_rng(SEED))
        is_right = np.abs(score - truth) <= np.maximum(10, 0.2 * truth)
        agreement = partial(kappa, first=truth_class, second=score_class, classes=CLASSES)
        yield {
            "scanner": group,
            "patients": len(members),
            "with calcium": int((~is_zero).sum()),
            "score right": stated(bootstrap.proportion(patients, is_right).estimate),
            "same class": stated(bootstrap.proportion(patients, truth_class == score_class).estimate),
            "kappa": stated(bootstrap.result(agreement, patients).estimate),
            "above zero without calcium": f"{int(score[is_zero].astype(bool).sum())} of {int(is_zero.sum())}",
            "zero with calcium": f"{int((score[~is_zero] == 0).sum())} of {int((~is_zero).sum())}",
        }


def _artery_rows(dense: pd.DataFrame) -> Iterator[dict[str, object]]:
    """Return a row of each artery: lesions that are called its calcium, and may count, by truth and verdict."""
    for artery in ARTERIES:
        called = dense[dense.artery == artery]
        groups = {
            "true, counted": called.coronary & called.counts,
            "true, not counted": called.coronary & ~called.counts,
            "false, counted": ~called.coronary & called.counts,
        }
        row: dict[str, object] = {"artery": artery}
        for name, part in groups.items():
            lesions = called[part]
            row[name] = len(lesions)
            row[f"{name}, patients"] = lesions.patient.nunique()
            row[f"{name}, Agatston"] = round(float(lesions.agatston.sum()))
            row[f"{name}, largest"] = round(float(lesions.agatston.max())) if len(lesions) else 0
        yield row


def _constant_row(scans: Sequence[MeasuredScan]) -> dict[str, object]:
    """Return the error of a constant: patients, those with calcium, error in thousandths with its interval."""
    scores = np.array([list(scan.reader_agatston.values()) for scan in scans])
    mean_of_others = (scores.sum(0) - scores) / (len(scores) - 1)
    errors = 1000 * (((scores - mean_of_others) / scores.max()) ** 2).mean(1)
    patients = [scan.patient for scan in scans]
    error = Bootstrap(patients, np.random.default_rng(SEED)).result(partial(mean, values=errors), patients).estimate
    return {
        "what": "mean score of each artery over the other patients",
        "patients": len(scores),
        "with calcium": int(scores.any(1).sum()),
        "largest score of one artery": round(float(scores.max())),
        "error, thousandths": stated(error, 1),
    }


def stated(estimate: Estimate, decimals: int = 2) -> str:
    """Return an estimate with its 95 % interval, as ".82 [.75, .90]"."""
    value, low, high = (f"{number:.{decimals}f}" for number in (estimate.value, estimate.low, estimate.high))
    text = value if low == "nan" else f"{value} [{low}, {high}]"
    return re.sub(r"\b0\.", ".", text)


def origin(command: str, settings: str, seed: int | str) -> dict[str, object]:
    """Return the columns that say how a row of a table was made, with today's date and the commit checked out."""
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True).stdout
    date = datetime.date.today().isoformat()
    return {"command": command, "settings": settings, "seed": seed, "date": date, "commit": commit.strip()}


def write_rows(file: Path, rows: Sequence[dict[str, object]]) -> None:
    """Write rows as CSV, with the columns of the first."""
    with file.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    main()
