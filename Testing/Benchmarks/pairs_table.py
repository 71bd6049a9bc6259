"""Write the table of two scans of digital patients (docs/results/pairs.csv) from studies.

    python Testing/Benchmarks/pairs_table.py CSV COHORT=OUTPUT [COHORT=OUTPUT ...] [--labels COHORT=OUTPUT ...]

COHORT is a folder of `cac phantom --pairs`, OUTPUT the folder in which `cac evaluate reproducibility` scored it;
--labels names where the same cohorts were scored by a map learned from slice labels (`--model map-labels`). The ideal
reader knows every lesion and scores it at 130 HU; the true score is that of a still scan without noise.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from by_scanner import origin, stated, write_rows

from CACScoringLib.core.files import read_json
from CACScoringLib.models.choice import ModelChoice
from CACScoringLib.record.score_record import ScoreRecord, read_result
from CACScoringLib.statistics.agreement import kappa, rank_correlation
from CACTrainingLib.evaluation.measures import Measure, mean_value, of_classes, value_over_truth
from CACTrainingLib.phantom import patient_of, reference_scores
from CACTrainingLib.truth import reproducibility
from CACTrainingLib.truth.detection import RATES, rates_of
from CACTrainingLib.truth.evaluation import EvaluationSettings, evaluate
from CACTrainingLib.truth.records import AGATSTON, VESSELS, ComparedScan, Sample, score_table

SEED = 0
COLUMNS = {"automatic": "automatic", "map": "map", "reader": "ideal reader"}
"""Columns of the table by the methods of a study."""
LABELS = "map from slice labels"
"""Column of the map learned from slice labels."""
STORED = {"automatic": "threshold", "map": "decomposition"}
"""Methods of a result by those of a study."""
FOUND_FROM = 10.0
"""The reader's score from which a zero is a miss."""


@dataclass(frozen=True)
class Scored:
    """Scored scans of the cohorts, their results by scan, and what the cohorts are.

    Attributes:
        gated: Names of the scans that are gated.
        true_scores: Score of a still scan without noise, by patient; None if it cannot be drawn again.
    """

    records: list[ComparedScan] = field(default_factory=list)
    results: list[ScoreRecord] = field(default_factory=list)
    data: list[str] = field(default_factory=list)
    gated: set[str] = field(default_factory=set)
    true_scores: dict[str, float | None] = field(default_factory=dict)


@dataclass(frozen=True)
class Row:
    """Row of the table. cells: By method. counts: Of the items by method, `unit` says of what; none if not told."""

    title: str
    cells: Mapping[str, str]
    counts: Mapping[str, int] = field(default_factory=dict)
    unit: str = ""

    def with_labels(self, labels: Row) -> Row:
        """Add the map of another study as the method "labels"."""
        assert self.title == labels.title, f"{self.title} is compared with {labels.title}."
        cells = {**self.cells, **({"labels": labels.cells["map"]} if "map" in labels.cells else {})}
        counts = {**self.counts, **({"labels": labels.counts["map"]} if "map" in labels.counts else {})}
        return replace(self, cells=cells, counts=counts)

    @property
    def full_title(self) -> str:
        counts = [str(count) for count in self.counts.values()]
        text = "; ".join(counts if len(set(counts)) > 1 else counts[:1])
        return f"{self.title} ({f'{text} {self.unit}'.strip()})" if text else self.title


def main() -> None:
    """Write the table that the arguments name."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("csv", type=Path)
    parser.add_argument("studies", nargs="+", metavar="COHORT=OUTPUT")
    parser.add_argument("--labels", nargs="+", default=[], metavar="COHORT=OUTPUT")
    arguments = parser.parse_args()
    scored = _scored(arguments.studies)
    rows, columns, command = list(_rows(scored)), dict(COLUMNS), "cac evaluate reproducibility"
    if arguments.labels:
        by_labels = _rows(_scored(arguments.labels, ("map-labels",)))
        rows = [row.with_labels(labels) for row, labels in zip(rows, by_labels, strict=True)]
        columns["labels"], command = LABELS, f"{command} (column {LABELS}: --model map-labels)"
    about = origin(
        f"{command}; Testing/Benchmarks/pairs_table.py",
        "; ".join(scored.data) + "; enriched, diverse, surroundings; two scans each",
        SEED,
    )
    cells = [{title: row.cells.get(method, "") for method, title in columns.items()} for row in rows]
    table = [{"quantity": row.full_title, **cell, **about} for row, cell in zip(rows, cells, strict=True)]
    write_rows(arguments.csv, table)


def _scored(studies: Sequence[str], models: tuple[str, ...] = ()) -> Scored:
    """Read the studies COHORT=OUTPUT; scans without a result are scored.

    models: Names of models instead of the bundled ones of their kind.
    """
    scored = Scored()
    for study in studies:
        cohort, output = map(Path, study.split("=", 1))
        choice = ModelChoice(models, device="cpu")
        settings = EvaluationSettings(("reproducibility",), output, cohort, models=choice, workers=1, seed=SEED)
        compared = evaluate(settings).records
        about = read_json(cohort / "cohort.json")["settings"]
        scored.records.extend(compared)
        scored.results.extend(read_result(output / "scans" / record.folder) for record in compared)
        scored.data.append(f"{len(compared) // 2} patients from {about['first_number']}, {about['protocol']}")
        for folder in sorted(cohort.glob("patient_*/scan_1")):
            scored.true_scores[folder.parent.name] = _true_score(folder)
        if about["protocol"].startswith("cardiac"):
            scored.gated.update(record.name for record in compared)
    return scored


def _rows(scored: Scored) -> Iterator[Row]:
    """Rows of the table."""
    records = scored.records
    sample = Sample(records, np.random.default_rng(SEED))

    def row(
        title: str, measure: Measure, methods: Sequence[str] = tuple(COLUMNS), unit: str = "", counted: bool = False
    ) -> Row:
        cells = ((method, sample.estimate(measure, method)) for method in methods)
        counts = {method: len(measure.rows_of(method)) for method in methods} if counted else {}
        return Row(title, {method: stated(cell) for method, cell in cells if cell is not None}, counts, unit)

    scores = _against_reader(records)
    weighted = of_classes(partial(kappa, classes=len(reproducibility.CLASSES)), reproducibility.category)
    is_gated = scores.scan.isin(scored.gated)
    for title, part in (("", scores), ("… gated", scores[is_gated]), ("… not gated", scores[~is_gated])):
        title = title or "κ of categories with the ideal reader"
        yield row(title, Measure("", weighted, part), ["automatic", "map"])
    measure = Measure("", value_over_truth, scores)
    yield row("sum of scores over the ideal reader's", measure, ["automatic", "map"])
    empty, full = scores[scores.truth == 0], scores[scores.truth >= FOUND_FROM]
    yield _number("score 1 or more where the ideal reader sees none", empty, empty.value >= 1)
    yield _number(f"score 0 where the ideal reader has {FOUND_FROM:.0f} or more", full, full.value < 1)
    masses = score_table(records)
    measure = Measure("", rank_correlation, masses[masses.truth.notna()])
    yield row("rank correlation with the true mass", measure)
    yield row("F1 of scans with visible calcium", rates_of(masses)[RATES.index("F1")], counted=True)
    for in_both, where in ((False, "either"), (True, "both")):
        measure = reproducibility.relative_difference(sample, in_both)
        title = f"relative difference of two scans, mass, positive in {where}"
        yield row(title, measure, unit="pairs", counted=True)
    for vessel, parts in VESSELS.items():
        measure = reproducibility.relative_difference(sample, True, {vessel: parts})
        yield row(f"… {vessel}, positive in both", measure, unit="pairs", counted=True)
    pairs = dict.fromkeys(COLUMNS, len(sample.pairs))
    for quantity in ("mass", AGATSTON):
        name = "score" if quantity == AGATSTON else quantity
        cells = row(f"ICC of two scans, {name}", reproducibility.icc_of_pairs(sample, quantity))
        yield replace(cells, counts=pairs, unit="pairs")
    cells = row("κ of categories of two scans", reproducibility.category_measures(sample)[0])
    yield replace(cells, counts=pairs, unit="pairs")
    arteries = score_table(records, vessels=VESSELS)
    for vessel, part in {"all arteries": arteries, **dict(list(arteries.groupby("item")))}.items():
        yield row(f"sensitivity, visible calcium, {vessel}", rates_of(part)[0], counted=True)
    read = [record.measured("reader") for record in records]
    yield from _intervals(sample, scored, "automatic", "ideal reader's", read)
    true = [scored.true_scores[record.name.split("/")[0]] for record in records]
    yield from _intervals(sample, scored, "map", "true", true)


def _number(title: str, rows: pd.DataFrame, hits: pd.Series[bool]) -> Row:
    """Row that says how many of rows of `_against_reader` are hits."""
    number = dict.fromkeys(STORED, rows.scan.nunique())
    return Row(title, {method: f"{hits[rows.method == method].sum()}" for method in STORED}, number, "scans")


def _against_reader(records: Sequence[ComparedScan]) -> pd.DataFrame:
    """Scores of automatic methods and map with the ideal reader's as the truth, as of `score_table`."""
    table = score_table(records, AGATSTON)
    reader = table[table.method == "reader"].set_index("scan").value
    return table[table.method.isin(STORED)].assign(truth=lambda rows: rows.scan.map(reader))


def _true_score(folder: Path) -> float | None:
    """Total Agatston score of a still scan without noise of a digital patient; None if it cannot be drawn again."""
    patient = patient_of(read_json(folder / "truth.json"))
    return None if patient is None else sum(score.agatston for score in reference_scores(patient).values())


def _intervals(sample: Sample, scored: Scored, method: str, of: str, truths: Sequence[float | None]) -> Iterator[Row]:
    """Rows of the 90 % intervals of a method. of: Title of the scores that they should hold. truths: These."""
    table = score_table(scored.records, AGATSTON)
    table = table[table.method == method].set_index("scan")
    names, holds, ratios = [], [], []
    for record, result, score in zip(scored.records, scored.results, truths, strict=True):
        interval = result.methods[STORED[method]].total.interval_90
        if interval is None or score is None:
            continue
        low, high = interval
        names.append(record.name)
        holds.append(float(low - 0.5 <= score <= high + 0.5))
        if score >= FOUND_FROM:
            ratios.append((1 + high) / (1 + low))
    rows = table.loc[names].reset_index().assign(value=holds)
    coverage = stated(sample.estimate(Measure("", mean_value, rows, proportion=True), method))
    title = f"90 % interval holds the {of} score"
    yield Row(title, {method: coverage}, {method: len(names)}, f"of {len(scored.records)} scans")
    title = f"1 + upper over 1 + lower end, {of} score from {FOUND_FROM:.0f}: median"
    width = f"{np.median(ratios):.1f}" if ratios else ""
    yield Row(title, {method: width}, {method: len(ratios)}, "scans")


if __name__ == "__main__":
    main()
