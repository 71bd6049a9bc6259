"""Compare models of vessel regression, calibrate one, and score people.

    python Testing/Benchmarks/vessel_figures.py compare CACHE CARD ... --data COHORT ... [--csv CSV]
    python Testing/Benchmarks/vessel_figures.py calibrate CACHE CARD --data COHORT ... --test COHORT ...
    python Testing/Benchmarks/vessel_figures.py people CSV CARD --data SCANS

A COHORT is a folder of `cac phantom` or of vessel_data.py, or a table of such scans; the truth is the score of an
ideal reader, who knows every lesion and scores it at 130 HU in the same scan. Prepared scans are kept in CACHE.

`calibrate` writes on the card of a model, from patients of --data that no network saw: the factor on all scores, the
median ratio of the reader's and the model's totals of the patients who have both; and the limit of certainty
(`fitting.least_certainty`). Then it measures the model once on the patients of --test.

`people` scores the people of `references.people` whose scans lie in SCANS by a model, and writes them into the CSV,
whose rows state the artery with most in the reading.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import SimpleITK as sitk
import torch
from by_scanner import origin, stated, write_rows

from CACScoringLib.anatomy.heart_search import find_heart
from CACScoringLib.core.categories import CATEGORY_TITLES, category_numbers
from CACScoringLib.core.files import read_json
from CACScoringLib.core.labels import ARTERIES, MAIN_ARTERIES
from CACScoringLib.io.reading import read_ct, read_mask
from CACScoringLib.models.cards import find_model, load_model
from CACScoringLib.models.store import update_card
from CACScoringLib.networks.vessels import VesselNet
from CACScoringLib.record.rules import ScoringRules, rules_for_tube_voltage
from CACScoringLib.scoring.lesions import score_labels
from CACScoringLib.statistics.agreement import icc, kappa, rank_correlation
from CACScoringLib.statistics.bootstrap import Bootstrap, mean
from CACScoringLib.whole_scan.estimates import NONE_BELOW
from CACScoringLib.whole_scan.vessels import CERTAINTY, FACTOR, to_agatston, vessel_estimate
from CACTrainingLib.data.scan_table import TableScan, read_cts
from CACTrainingLib.references.people import find_people, people
from CACTrainingLib.whole_scan.vessels.fitting import (
    HALF,
    heart_ml,
    least_certainty,
    prepare_vessels,
)
from CACTrainingLib.whole_scan.vessels.task import Volumes

SEED = 0
READ_FROM, NEAR_FACTOR = 10.0, 1.5
"""The reader's score from which a total is compared with it, and the factor within which it is near."""
COMPARED_ARTERIES = ("RCA", "LCX", "LAD")


@dataclass(frozen=True)
class Measured:
    """Scans [n] as a model scores them, without a factor and a limit.

    Attributes:
        scans: The scans.
        groups: Person of a real scan, or else the cohort, of each.
        read: Scores of ARTERIES by an ideal reader, [n, 4].
        scores, undetermined: Of the model, [n, 4].
        certainty: Of the model, [n].
        heart_ml: Volumes of the hearts, [n].
        calcified: True with any coronary calcium, bool [n].
    """

    scans: tuple[TableScan, ...]
    groups: tuple[str, ...]
    read: np.ndarray
    scores: np.ndarray
    undetermined: np.ndarray
    certainty: np.ndarray
    heart_ml: np.ndarray
    calcified: np.ndarray

    def at(self, rows: np.ndarray) -> Measured:
        """Return some of the scans."""
        lists = {name: tuple(getattr(self, name)[n] for n in rows) for name in ("scans", "groups")}
        arrays = {name: value[rows] for name, value in vars(self).items() if name not in lists}
        return Measured(**lists, **arrays)

    def scaled(self, factor: float) -> Measured:
        return replace(self, scores=factor * self.scores, undetermined=factor * self.undetermined)


def main() -> None:
    """Do what the arguments ask for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    compare = commands.add_parser("compare")
    compare.add_argument("cache", type=Path)
    compare.add_argument("cards", type=Path, nargs="+")
    compare.add_argument("--data", type=Path, nargs="+", required=True)
    compare.add_argument("--csv", type=Path)
    calibrate = commands.add_parser("calibrate")
    calibrate.add_argument("cache", type=Path)
    calibrate.add_argument("card", type=Path)
    calibrate.add_argument("--data", type=Path, nargs="+", required=True)
    calibrate.add_argument("--test", type=Path, nargs="*", default=[])
    of_people = commands.add_parser("people")
    of_people.add_argument("csv", type=Path)
    of_people.add_argument("card", type=Path)
    of_people.add_argument("--data", type=Path, required=True)
    arguments = parser.parse_args()
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    torch.set_num_threads(1)
    if arguments.command == "compare":
        rows = [row for card in arguments.cards for row in compared(card, arguments.data, arguments.cache)]
        for row in rows:
            print(row)
        if arguments.csv:
            write_rows(arguments.csv, rows)
    elif arguments.command == "calibrate":
        write_calibration(arguments.card, arguments.data, arguments.test, arguments.cache)
    else:
        write_people(arguments.csv, arguments.card, arguments.data)


def measured(card: Path, cohorts: Sequence[Path], cache: Path) -> Measured:
    """Score the scans of cohorts by the model of a card."""
    network = cast(VesselNet, load_model(card, "cpu").network)
    scans, groups, files = [], [], {}
    for cohort in cohorts:
        listed = read_cts(cohort)
        prepared, _ = prepare_vessels(listed, cache, network.config, workers=1)
        files |= prepared
        in_cache = [scan for scan in listed if scan.name in prepared]
        scans += in_cache
        groups += [_person(scan) or cohort.stem for scan in in_cache]
    volumes = Volumes(files, [], network.config)
    results: list[tuple[np.ndarray, ...]] = []
    with torch.inference_mode():
        for scan in scans:
            x = torch.from_numpy(volumes[scan.name])[None]
            score = to_agatston(network(x)[0].numpy(), float(network.largest), network.config.output)
            results.append((score, network.undetermined(x)[0].numpy(), network.certainty(x)[0].numpy()))
    scores, undetermined, certainty = (np.array(part, float) for part in zip(*results, strict=True))
    hearts = np.array([heart_ml(files[scan.name]) for scan in scans])
    calcified = np.array([bool(scan.total) for scan in scans])
    read = read_scores(scans, cache)
    return Measured(tuple(scans), tuple(groups), read, scores, undetermined, certainty, hearts, calcified)


def _truth(scan: TableScan) -> dict[str, Any]:
    return cast(dict[str, Any], read_json(scan.ct.parent / "truth.json"))


def _person(scan: TableScan) -> str:
    return scan.patient if _truth(scan).get("background") == "real" else ""


def read_scores(scans: Sequence[TableScan], cache: Path) -> np.ndarray:
    """Return the scores [n, 4] of an ideal reader, who knows every lesion; they are kept in the cache."""
    file = cache / "read.json"
    scores_by_scan: dict[str, list[float]] = read_json(file) if file.exists() else {}
    for scan in scans:
        if str(scan.ct) not in scores_by_scan:
            truth, ct = _truth(scan), read_ct(scan.ct)
            regions = sitk.GetArrayFromImage(read_mask(scan.ct.parent / "regions.nii.gz"))
            header = replace(ct.acquisition, kvp=ct.acquisition.kvp or truth["scanner"]["kvp"])
            scores = score_labels(ct, regions, rules_for_tube_voltage(header, ScoringRules())).arteries
            scores_by_scan[str(scan.ct)] = [scores[artery].agatston for artery in MAIN_ARTERIES]
            file.write_text(json.dumps(scores_by_scan), encoding="utf-8")
    return np.array([scores_by_scan[str(scan.ct)] for scan in scans])


def compared(card: Path, cohorts: Sequence[Path], cache: Path) -> Iterator[dict[str, object]]:
    """Rows of a model: what it scores of each group of scans."""
    calibration = load_model(card, "cpu").card.calibration
    every = measured(card, cohorts, cache).scaled(calibration.get(FACTOR, 1.0))
    limit = calibration.get(CERTAINTY, 0.0)
    for group in ("all", *dict.fromkeys(every.groups)):
        rows = np.array([n for n, name in enumerate(every.groups) if group in ("all", name)])
        yield {"model": card.stem, "group": group, **_row(every.at(rows), limit)}


def _row(part: Measured, limit: float) -> dict[str, object]:
    totals, read = part.scores.sum(1), part.read.sum(1)
    stated_totals = (part.certainty >= limit) | (totals < NONE_BELOW)
    patients = [scan.patient for scan in part.scans]
    bootstrap = Bootstrap([scan.name for scan in part.scans], np.random.default_rng(SEED))
    names = [scan.name for scan in part.scans]
    rank = bootstrap.result(partial(rank_correlation, first=read, second=totals), names).estimate
    large, free = read >= READ_FROM, ~part.calcified
    is_near = stated_totals & (np.abs(np.log((totals + 1e-9) / (read + 1e-9))) <= np.log(NEAR_FACTOR))
    row: dict[str, object] = {
        "scans": len(names),
        "patients": len(set(patients)),
        "rank correlation": stated(rank),
        "undetermined": int((~stated_totals).sum()),
        "within 1.5": f"{int(is_near[large].sum())} of {int(large.sum())}",
        "median ratio": f"{np.median(totals[large] / read[large]):.2f}" if large.any() else "",
        "artery with most": _fullest(part, large & stated_totals & (totals >= 1)),
        "1 and more without calcium": f"{int((stated_totals & (totals >= 1))[free].sum())} of {int(free.sum())}",
        "undetermined without calcium": f"{int((part.undetermined.sum(1) >= 1)[free].sum())} of {int(free.sum())}",
    }
    for artery in COMPARED_ARTERIES:
        n = ARTERIES.index(artery)
        has = part.read[:, n] >= READ_FROM
        true, counted, doubtful = (values[has, n] for values in (part.read, part.scores, part.undetermined))
        shares = [f"{value.sum() / true.sum():.2f}" for value in (counted, doubtful)] if has.any() else ["", ""]
        row |= {f"{artery} counted": shares[0], f"{artery} undetermined": shares[1]}
        row[f"{artery} zero"] = f"{int((counted < 1).sum())} of {int(has.sum())}"
    return row


def _fullest(part: Measured, rows: np.ndarray) -> str:
    """Count the scans whose artery with most calcium is right; LM and LAD are one."""

    def artery(scores: np.ndarray) -> np.ndarray:
        left_arteries = scores[:, 0] + scores[:, 1]
        return np.column_stack([left_arteries, scores[:, 2:]]).argmax(1)

    right = artery(part.scores) == artery(part.read)
    return f"{int(right[rows].sum())} of {int(rows.sum())}"


def write_calibration(path: Path, cohorts: Sequence[Path], test: Sequence[Path], cache: Path) -> None:
    """Fit factor and limit on the cohorts, test the model on others, and write both on its card."""
    part = measured(path, cohorts, cache)
    totals, read = part.scores.sum(1), part.read.sum(1)
    positive = np.flatnonzero((totals >= NONE_BELOW) & (read > 0))
    ratios = read[positive] / totals[positive]
    draws = np.random.default_rng(SEED).integers(len(positive), size=(2000, len(positive)))
    factor, interval = float(np.median(ratios)), np.percentile(np.median(ratios[draws], 1), (2.5, 97.5))
    factor = float(f"{factor:.3g}")
    limit = math.ceil(1e4 * least_certainty(factor * totals, part.certainty, part.calcified, HALF)) / 1e4
    scored, certain = factor * totals >= NONE_BELOW, part.certainty >= limit
    free = ~part.calcified
    of_group: dict[str, list[str]] = {group: [] for group in part.groups}
    for scan, group in zip(part.scans, part.groups, strict=True):
        of_group[group].append(scan.patient)
    numbers = ", ".join(map(min, of_group.values()))
    calibration = {
        "data": f"{len(totals)} digital patients, {int(part.calcified.sum())} with calcium (first patients {numbers}); "
        "scores of an ideal reader at 130 HU. The factor is the median ratio of the "
        f"{len(positive)} totals that both have",
        f"{FACTOR}_95": [round(float(end), 3) for end in interval],
        "undetermined": int((scored & ~certain).sum()),
        "without_calcium": int(free.sum()),
        "without_calcium_called": int((scored & certain & free).sum()),
    }
    validation: dict[str, object] = {"calibration": calibration}
    if test:
        validation["test"] = tested(measured(path, test, cache).scaled(factor), limit, part)
    update_card(path, {FACTOR: factor, CERTAINTY: limit}, validation)
    print(json.dumps({"factor": factor, "limit": limit, **validation}, indent=1))


def tested(part: Measured, limit: float, learned: Measured) -> dict[str, object]:
    """Return a card's test of scaled scans. learned: patients to whom age, sex and heart size are fitted."""
    from sklearn.linear_model import LinearRegression

    totals, read, free = part.scores.sum(1), part.read.sum(1), ~part.calcified
    uncertain = (part.certainty < limit) & (totals >= NONE_BELOW)
    rows = np.flatnonzero(~uncertain)
    names = [part.scans[n].name for n in rows]
    bootstrap = Bootstrap(names, np.random.default_rng(SEED))

    def factors(of: Measured) -> np.ndarray:
        acquisition = np.array([scan.factors[:2] for scan in of.scans])
        return np.column_stack([acquisition, of.heart_ml])

    by_factors = LinearRegression().fit(factors(learned), np.log1p(learned.read.sum(1))).predict(factors(part))
    errors = (((part.scores - part.read) / part.read.max()) ** 2).mean(1)
    classes = [category_numbers(np.round(values[rows])) for values in (read, totals)]

    def figure(statistic: Any, **values: Any) -> dict[str, float | None]:
        return bootstrap.result(partial(statistic, **values), names).estimate.as_json()

    is_near = np.abs(np.log((totals + 1e-9) / (read + 1e-9))) <= np.log(NEAR_FACTOR)
    large = (read >= READ_FROM) & ~uncertain
    return {
        "patients": len({scan.patient for scan in part.scans}),
        "scans": len(totals),
        "undetermined": int(uncertain.sum()),
        "without_calcium": {
            "scans": int(free.sum()),
            "called_coronary": int(((totals >= 1) & ~uncertain)[free].sum()),
            "undetermined": int(uncertain[free].sum()),
        },
        "within_1.5": {"of": int(large.sum()), "totals": int(is_near[large].sum())},
        "with_calcium_below_1": int(((totals < 1) & ~uncertain)[~free].sum()),
        "artery_with_most": _fullest(part, large & (totals >= 1)),
        "data": "other digital patients' CT with known calcium, gated and not gated, "
        "scored by an ideal reader at 130 HU",
        "rank_correlation": figure(rank_correlation, first=read[rows], second=totals[rows]),
        "rank_correlation_age_and_heart_size": figure(rank_correlation, first=read[rows], second=by_factors[rows]),
        "mse_normalised": round(float(mean(np.ones((1, len(rows))), errors[rows])[0]), 6),
        "kappa_categories": figure(kappa, first=classes[0], second=classes[1], classes=len(CATEGORY_TITLES)),
        "icc": {
            artery: figure(icc, first=part.read[rows, n], second=part.scores[rows, n])
            for n, artery in enumerate(ARTERIES)
        },
    }


def write_people(table: Path, card: Path, data: Path) -> None:
    """Score people whose scans lie in a folder, and write totals and arteries into the table of readings."""
    with table.open(encoding="utf-8", newline="") as file:
        rows = {row["person"]: row for row in csv.DictReader(file)}
    found, refused = find_people(data, people(), table.parent / "crops")
    assert not refused, refused
    territories, model = load_model(find_model("territories").path, "cpu"), load_model(card, "cpu")
    calibration = ", ".join(f"{name} {model.card.calibration[name]:g}" for name in (FACTOR, CERTAINTY))
    about = f"{model.card.name} {model.card.sha256[:8]}, {calibration}, territories {territories.card.sha256[:8]}"
    for person, source in found:
        scan = read_ct(source.ct)
        record = vessel_estimate(scan, find_heart(scan, None, territories), model)[0].record
        counted, doubtful = record.agatston or {}, record.undetermined_agatston or {}
        fullest = max(counted, key=lambda artery: counted[artery], default="")
        most = max(doubtful, key=lambda artery: doubtful[artery], default="")
        rows[person.name] |= {
            "score": "undetermined" if record.undetermined else f"{record.total:.1f}",
            "undetermined": f"{sum(doubtful.values()):.0f}, {most} {doubtful[most]:.0f}" if doubtful else "0",
            "artery": fullest if counted and counted[fullest] >= NONE_BELOW else "",
            **origin("Testing/Benchmarks/vessel_figures.py people CSV CARD --data SCANS", about, "none"),
        }
        print({name: rows[person.name][name] for name in ("person", "score", "undetermined", "artery")}, flush=True)
    write_rows(table, list(rows.values()))


if __name__ == "__main__":
    main()
