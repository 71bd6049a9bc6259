"""Which answer to trust when: CAC's own scores and whole-scan estimates on the same patients, whose truth is known.

    PYTHONPATH=Testing/support .venv/bin/python Testing/Benchmarks/whole_scan_estimates.py RESULTS TABLE

RESULTS: folder of `cac cohort … --whole-scan`. TABLE: the scans' true scores, as `cac train vessels --data` takes
them, such as a digital cohort's folder. Printed are, each with its 95 % interval by a bootstrap of patients, how well
each answer ranks patients, tells any calcium from none, and finds the risk class; and who is right where two agree and
where they differ.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from CACScoringLib.scoring.risk import class_number
from CACScoringLib.whole_scan.estimates import NONE_BELOW
from CACTrainingLib.data.scan_table import TableScan
from CACTrainingLib.statistics.agreement import kappa
from CACTrainingLib.statistics.bootstrap import Bootstrap, estimate
from CACTrainingLib.statistics.regression import rank_correlation
from CACTrainingLib.statistics.roc import area_under_curve
from CACTrainingLib.whole_scan.scan_table import read_scan_table

CLASSES = 5
SCORES = {"threshold": "Clinical rule, not reviewed", "decomposition": "Calcium map", "vessels": "Vessel regression"}
RADIOMICS = "Radiomics"


def read(results: Path, truth: Mapping[Path, TableScan]) -> tuple[list[TableScan], dict[str, np.ndarray]]:
    """Scans that were scored, and what is said of each: scores by SCORES' titles; of RADIOMICS the probability; and by
    "calls " and a title whether there is any calcium."""
    scans, said = [], []
    with (results / "cohort.csv").open(encoding="utf-8", newline="") as stream:
        rows = [row for row in csv.DictReader(stream) if row["state"] == "done"]
    for row in rows:
        content = json.loads((results / row["folder"] / "scores.json").read_text(encoding="utf-8"))
        scans.append(truth[Path(row["ct"]).resolve()])
        methods, estimates = content["methods"], content["second_opinions"]
        scores = {
            "threshold": methods["threshold"]["total"]["agatston"],
            "decomposition": methods["decomposition"]["scaled_agatston"],
            "vessels": estimates["vessels"]["total"],
        }
        one = {SCORES[name]: score if score >= NONE_BELOW else 0.0 for name, score in scores.items()}
        one |= {f"calls {title}": score > 0 for title, score in one.items()}
        one |= {
            RADIOMICS: estimates["radiomics"]["probability"],
            f"calls {RADIOMICS}": estimates["radiomics"]["calcium"],
        }
        said.append(one)
    return scans, {name: np.array([one[name] for one in said]) for name in said[0]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path)
    parser.add_argument("table", type=Path)
    options = parser.parse_args()
    truth = {scan.ct.resolve(): scan for scan in read_scan_table(options.table)}
    scans, said = read(options.results, truth)
    patients = [scan.patient for scan in scans]
    total = np.array([scan.total for scan in scans])
    classes = {title: np.array([class_number(score) for score in said[title]]) for title in SCORES.values()}
    wanted = np.array([class_number(score) for score in total])
    resamples = Bootstrap(patients, np.random.default_rng(0))
    weights = resamples.weights(patients)

    def told(values: np.ndarray) -> str:
        return str(estimate(values, len(scans), len(set(patients))))

    print(f"{len(scans)} scans of {len(set(patients))} patients, {int((total > 0).sum())} with coronary calcium")
    for title in (*SCORES.values(), RADIOMICS):
        calls = said[f"calls {title}"]
        print(f"\n{title}")
        print(f"  rank correlation with the true score  {told(rank_correlation(weights, total, said[title]))}")
        print(f"  any calcium: area under the curve     {told(area_under_curve(weights, total > 0, said[title]))}")
        print(f"  any calcium: sensitivity              {resamples.proportion(patients, calls, total > 0)}")
        print(f"  any calcium: specificity              {resamples.proportion(patients, ~calls, total == 0)}")
        if title in classes:
            print(f"  risk class: weighted kappa            {told(kappa(weights, wanted, classes[title], CLASSES))}")
            print(f"  risk class: share right               {resamples.proportion(patients, classes[title] == wanted)}")
    first, second = SCORES["decomposition"], SCORES["vessels"]
    same = classes[first] == classes[second]
    print("\nRisk class: who is right")
    both = resamples.proportion(patients, classes[first] == wanted, same)
    print(f"  both, where they agree ({int(same.sum())})  {both}")
    for title in (first, second):
        right = classes[title] == wanted
        print(f"  {title}, where they differ ({int((~same).sum())})  {resamples.proportion(patients, right, ~same)}")
    print("\nAny calcium: who is right")
    for one, other in itertools.combinations((first, second, RADIOMICS), 2):
        calls = [said[f"calls {title}"] for title in (one, other)]
        same = calls[0] == calls[1]
        right = [call == (total > 0) for call in calls]
        print(f"  {one} and {other} agree ({int(same.sum())})  {resamples.proportion(patients, right[0], same)}")
        print(f"    where they differ ({int((~same).sum())}), {one}  {resamples.proportion(patients, right[0], ~same)}")


if __name__ == "__main__":
    main()
