"""Write the table of two scans of digital patients (docs/results/pairs.csv) from studies.

    python Testing/Benchmarks/pairs_table.py CSV COHORT=OUTPUT [COHORT=OUTPUT ...]

COHORT is a folder of `cac phantom --pairs`, OUTPUT the folder in which `cac evaluate reproducibility` scored it; scans
without a result are scored there. The ideal reader knows every lesion and scores it at 130 HU; the true score is that
of a still scan without noise.
"""

from __future__ import annotations

import argparse
from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from by_scanner import origin, stated, write_rows

from CACScoringLib.core.files import read_json
from CACScoringLib.models.choice import ModelChoice
from CACScoringLib.record.score_record import ScoreRecord, read_result
from CACScoringLib.statistics.agreement import kappa
from CACTrainingLib.evaluation.measures import Measure, mean_value, of_classes, value_over_truth
from CACTrainingLib.phantom import patient_of, reference_scores
from CACTrainingLib.truth import reproducibility
from CACTrainingLib.truth.detection import rates_of
from CACTrainingLib.truth.evaluation import EvaluationSettings, evaluate
from CACTrainingLib.truth.records import AGATSTON, ComparedScan
from CACTrainingLib.truth.sample import VESSELS, Sample, score_table

SEED = 0
COLUMNS = {"automatic": "automatic", "map": "map", "reader": "ideal reader"}
"""Columns of the table by the methods of a study."""
STORED = {"automatic": "threshold", "map": "decomposition"}
"""Methods of a result by those of a study."""
FOUND_FROM = 10.0
"""The reader's score from which a zero is a miss."""


def main() -> None:
    """Write the table that the arguments name."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("csv", type=Path)
    parser.add_argument("studies", nargs="+", metavar="COHORT=OUTPUT")
    arguments = parser.parse_args()
    records: list[ComparedScan] = []
    results: list[ScoreRecord] = []
    data, gated, true_scores = [], set[str](), dict[str, float | None]()
    for study in arguments.studies:
        cohort, output = map(Path, study.split("=", 1))
        models = ModelChoice(device="cpu")
        settings = EvaluationSettings(("reproducibility",), output, cohort, models=models, workers=1, seed=SEED)
        compared = evaluate(settings).records
        records += compared
        results += [read_result(output / "scans" / record.folder) for record in compared]
        drawn = read_json(cohort / "cohort.json")["settings"]
        data.append(f"{len(compared) // 2} patients from {drawn['first_number']}, {drawn['protocol']}")
        for folder in sorted(cohort.glob("patient_*/scan_1")):
            true_scores[folder.parent.name] = _true_score(folder)
        gated |= {record.name for record in compared if drawn["protocol"].startswith("cardiac")}
    about = origin(
        "cac evaluate reproducibility; Testing/Benchmarks/pairs_table.py",
        "; ".join(data) + "; enriched, diverse, surroundings; two scans each",
        SEED,
    )
    empty, rows = dict.fromkeys(COLUMNS.values(), ""), _rows(records, results, gated, true_scores)
    write_rows(arguments.csv, [{"quantity": title, **empty, **cells, **about} for title, cells in rows])


def _rows(
    records: Sequence[ComparedScan],
    results: Sequence[ScoreRecord],
    gated: Collection[str],
    true_scores: Mapping[str, float | None],
) -> Iterator[tuple[str, dict[str, str]]]:
    """Titles and cells of the table's rows. gated: Names of the scans that are gated. true_scores: By patient."""
    sample = Sample(records, np.random.default_rng(SEED))

    def measured(measure: Measure, methods: Sequence[str] = tuple(COLUMNS)) -> dict[str, str]:
        cells = ((method, sample.estimate(measure, method)) for method in methods)
        return {COLUMNS[method]: stated(cell) for method, cell in cells if cell is not None}

    scores = _against_reader(records)
    weighted = of_classes(partial(kappa, classes=len(reproducibility.CLASSES)), reproducibility.category)
    is_gated = scores.scan.isin(gated)
    for title, part in (("", scores), ("… gated", scores[is_gated]), ("… not gated", scores[~is_gated])):
        yield (
            title or "κ of categories with the ideal reader",
            measured(Measure("", weighted, part), ["automatic", "map"]),
        )
    yield "sum of scores over the ideal reader's", measured(Measure("", value_over_truth, scores), ["automatic", "map"])
    empty = scores[scores.truth == 0]
    yield (
        f"score 1 or more where the ideal reader sees none ({empty.scan.nunique()} scans)",
        {COLUMNS[m]: f"{(empty[empty.method == m].value >= 1).sum()}" for m in ("automatic", "map")},
    )
    full = scores[scores.truth >= FOUND_FROM]
    yield (
        f"score 0 where the ideal reader has {FOUND_FROM:.0f} or more ({full.scan.nunique()} scans)",
        {COLUMNS[m]: f"{(full[full.method == m].value < 1).sum()}" for m in ("automatic", "map")},
    )
    for in_both, where in ((False, "either"), (True, "both")):
        measure = reproducibility.relative_difference(sample, in_both)
        pairs = "; ".join(str(len(measure.rows_of(method))) for method in COLUMNS)
        yield f"relative difference of two scans, mass, positive in {where} ({pairs} pairs)", measured(measure)
    for vessel, parts in VESSELS.items():
        measure = reproducibility.relative_difference(sample, True, {vessel: parts})
        pairs = "; ".join(str(len(measure.rows_of(method))) for method in COLUMNS)
        yield f"… {vessel}, positive in both ({pairs} pairs)", measured(measure)
    for quantity in ("mass", AGATSTON):
        name = "score" if quantity == AGATSTON else quantity
        yield (
            f"ICC of two scans, {name} ({len(sample.pairs)} pairs)",
            measured(reproducibility.icc_of_pairs(sample, quantity)),
        )
    yield (
        f"κ of categories of two scans ({len(sample.pairs)} pairs)",
        measured(reproducibility.category_measures(sample)[0]),
    )
    arteries = score_table(records, vessels=VESSELS)
    for vessel, rows in {"all arteries": arteries, **dict(list(arteries.groupby("item")))}.items():
        measure = rates_of(rows)[0]
        count = len(measure.rows_of("map"))
        yield f"sensitivity, visible calcium, {vessel} ({count})", measured(measure)
    read = [record.measured("reader") for record in records]
    yield from _intervals(sample, records, results, "automatic", "ideal reader's", read)
    true = [true_scores[record.name.split("/")[0]] for record in records]
    yield from _intervals(sample, records, results, "map", "true", true)


def _against_reader(records: Sequence[ComparedScan]) -> pd.DataFrame:
    """Scores of automatic methods and map with the ideal reader's as the truth, as of `score_table`."""
    table = score_table(records, AGATSTON)
    reader = table[table.method == "reader"].set_index("scan").value
    return table[table.method.isin(STORED)].assign(truth=lambda rows: rows.scan.map(reader))


def _true_score(folder: Path) -> float | None:
    """Total Agatston score of a still scan without noise of a digital patient; None if it cannot be drawn again."""
    patient = patient_of(read_json(folder / "truth.json"))
    return None if patient is None else sum(score.agatston for score in reference_scores(patient).values())


def _intervals(
    sample: Sample,
    records: Sequence[ComparedScan],
    results: Sequence[ScoreRecord],
    method: str,
    of: str,
    truths: Sequence[float | None],
) -> Iterator[tuple[str, dict[str, str]]]:
    """Rows of the 90 % intervals of a method. of: Title of the scores that they should hold. truths: These."""
    table = score_table(records, AGATSTON)
    table = table[table.method == method].set_index("scan")
    names, holds, ratios = [], [], []
    for record, result, score in zip(records, results, truths, strict=True):
        interval = result.methods[STORED[method]].total.interval_90
        if interval is None or score is None:
            continue
        low, high = interval
        names.append(record.name)
        holds.append(float(low - 0.5 <= score <= high + 0.5))
        if score >= FOUND_FROM:
            ratios.append((1 + high) / (1 + low))
    rows = table.loc[names].reset_index().assign(value=holds)
    coverage = sample.estimate(Measure("", mean_value, rows, proportion=True), method)
    yield (
        f"90 % interval holds the {of} score ({len(names)} of {len(records)} scans)",
        {COLUMNS[method]: stated(coverage)},
    )
    width = f"{np.median(ratios):.1f}" if ratios else ""
    yield f"1 + upper over 1 + lower end, {of} score from 10: median ({len(ratios)} scans)", {COLUMNS[method]: width}


if __name__ == "__main__":
    main()
