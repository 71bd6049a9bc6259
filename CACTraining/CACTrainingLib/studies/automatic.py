"""Study of automatic scores against the truth of digital patients, and of their intervals.

The truth is a patient's reference score, of a still scan without noise (`cohort.reference_scores`). The ideal reader,
"130 HU, arteries known", scores the scan as it is by the clinical rule and knows the place of every lesion.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TypedDict

import numpy as np
import pandas as pd
import SimpleITK as sitk

from CACScoringLib.core.files import LAST_FILE
from CACScoringLib.core.labels import MAIN_ARTERIES
from CACScoringLib.io.reading import read_mask
from CACScoringLib.record.reading import read_result
from CACScoringLib.scoring.uncertainty import CATEGORIES, LIMITS

from ..evaluation.jobs import JobSettings, job_key, kept_jobs
from ..evaluation.measures import Measure, long_table, mean_value, of_classes, value_over_truth, value_row
from ..evaluation.parts import METHODS, Cell, Section, Table, heading
from ..phantom import patient_of, reference_scores
from ..statistics.agreement import icc, kappa
from ..statistics.bootstrap import quantile
from ..statistics.regression import rank_correlation
from .records import StudyRecord
from .sample import AGATSTON, WITH_AGATSTON, Sample, score_table
from .scans import StudyScan

CORONARY_MG_CM3 = 10.0
"""Least density that coronary calcium adds to a voxel in which it is counted, mg/cm³."""
INTERVALS = {"automatic": "threshold", "map": "decomposition"}
"""Methods with intervals, and their keys in `scores.json`."""
NOWHERE = "elsewhere or not counted"

_TITLE = "Automatic scores against the truth of digital patients"


class ScanFacts(TypedDict):
    """Measurements of a scan.

    Attributes:
        reference: Reference score of its patient.
        mass_mg: Mass of calcium by true artery (MAIN_ARTERIES) and counted artery, the last for NOWHERE.
        intervals: Prediction interval of the total by method.
    """

    reference: float
    mass_mg: list[list[float]]
    intervals: dict[str, tuple[float, float] | None]


def sections(
    scans: Sequence[StudyScan],
    folders: Sequence[Path | str],
    records: Sequence[StudyRecord],
    folder: Path,
    work: JobSettings,
    generator: np.random.Generator,
) -> tuple[Section, ...]:
    """Agreement with truth and ideal reader, coverage of intervals, and assignment of calcium to arteries.

    Args:
        scans: Scans of the study.
        folders: Folder of each scan's results, or the reason why it has none.
        records: Record of each scan.
        folder: Folder that keeps the figures of each patient.
        work: Workers and progress.
        generator: Source of the bootstrap's draws.
    """
    patients: dict[str, list[tuple[StudyScan, Path]]] = {}
    for scan, place, record in zip(scans, folders, records, strict=True):
        if record.truth is not None and record.refused is None:
            patients.setdefault(record.patient, []).append((scan, Path(place)))
    jobs = {}
    for name, files_of_patient in patients.items():
        files = [path for scan, place in files_of_patient for path in (scan.truth_file(), place / LAST_FILE)]
        jobs[job_key(name, files=files)] = files_of_patient
    results, failed = kept_jobs(jobs, folder / "references.jsonl", lambda: _measured, work)
    facts_of = {scan: facts for result in results.values() for scan, facts in result.items()}
    sample = Sample([record for record in records if record.name in facts_of], generator)
    text = [sample.opening(), "Categories are those of the Agatston score: " + ", ".join(CATEGORIES) + "."]
    if failed:
        text.append(f"{len(failed)} patients are left out: {'; '.join(sorted(set(failed.values()))[:3])}")
    if not sample.scans:
        return (Section("automatic", _TITLE, (*text, "No scan has a digital patient's truth.")),)
    scores, intervals, sites = (
        _score_rows(sample, facts_of),
        _interval_rows(sample, facts_of),
        _site_rows(sample, facts_of),
    )
    tables = (_agreement_table(sample, scores), _interval_table(sample, intervals), _site_table(sample, sites))
    return (Section("automatic", _TITLE, tuple(text), tables, values=(scores, intervals, sites)),)


def _measured(files: list[tuple[StudyScan, Path]]) -> dict[str, ScanFacts]:
    """Measure a patient's scans: reference score, intervals, and mg of calcium by true artery and counted label."""
    patient = patient_of(files[0][0].read_truth())
    if patient is None:
        raise ValueError("the digital patient cannot be drawn again")
    reference = sum(score.agatston for score in reference_scores(patient).values())
    return {scan.name: _facts(scan, folder, reference) for scan, folder in files}


def _facts(scan: StudyScan, folder: Path, reference: float) -> ScanFacts:
    methods = read_result(folder).methods
    files = (scan.truth_file("calcium_map.nii.gz"), scan.truth_file("arteries.nii.gz"), folder / "lesions.nii.gz")
    images = [read_mask(file) for file in files]
    voxel_ml = float(np.prod(images[0].GetSpacing())) / 1000
    calcium, arteries, labels = map(sitk.GetArrayFromImage, images)
    labels = methods["threshold"].counted_labels(labels)
    mass = []
    for artery in MAIN_ARTERIES:
        place = (calcium >= CORONARY_MG_CM3) & (arteries == artery)
        parts = [place & (labels == label) for label in MAIN_ARTERIES]
        parts.append(place & ~np.isin(labels, MAIN_ARTERIES))
        mass.append([float(calcium[part].sum()) * voxel_ml for part in parts])
    intervals = {m: methods[name].total.interval_90 for m, name in INTERVALS.items() if name in methods}
    return {"reference": reference, "mass_mg": mass, "intervals": intervals}


def _category(agatston: np.ndarray) -> np.ndarray:
    return np.searchsorted(LIMITS["agatston"], agatston, side="right")


def _score_rows(sample: Sample, references: dict[str, ScanFacts]) -> pd.DataFrame:
    """Agatston scores, with the patient's reference score as truth, of scans that the ideal reader scored."""
    rows = score_table([record for record in sample.scans if "reader" in record.values], AGATSTON)
    return rows.assign(truth=[references[scan]["reference"] for scan in rows.scan])


def _agreement_table(sample: Sample, with_truth: pd.DataFrame) -> Table:
    readers = with_truth[with_truth.method == "reader"].set_index("scan").value
    with_reader = with_truth.assign(truth=readers[with_truth.scan].to_numpy())
    categories = of_classes(partial(kappa, classes=len(CATEGORIES)), _category)
    measures = (
        Measure("κ with the truth", categories, with_truth, methods=WITH_AGATSTON),
        Measure("κ with the ideal reader", categories, with_reader, methods=tuple(INTERVALS)),
        Measure("ICC with the truth", icc, with_truth, methods=WITH_AGATSTON),
        Measure("Rank correlation with the truth", rank_correlation, with_truth, methods=WITH_AGATSTON),
        Measure("Sum of scores / sum of truths", value_over_truth, with_truth, methods=WITH_AGATSTON),
    )
    note = "κ of the categories with linear weights. The ideal reader is “130 HU, arteries known”."
    return sample.value_table("automatic_agreement", "Agreement of Agatston scores", measures, note)


def _interval_table(sample: Sample, intervals: pd.DataFrame) -> Table:
    columns = ("Category", "Scans with an interval", "Intervals that hold the score", "Width, ln(1 + score)")
    rows: list[tuple[Cell, ...]] = []
    for method in INTERVALS:
        rows.append(heading(METHODS[method], columns))
        table = intervals[intervals.method == method]
        for place, name in enumerate(CATEGORIES):
            group = table[_category(table.truth) == place]
            with_interval = group.dropna(subset="low")
            covered = with_interval.assign(value=with_interval.truth.between(with_interval.low, with_interval.high))
            width = with_interval.assign(value=np.log1p(with_interval.high) - np.log1p(with_interval.low))
            measures = (
                Measure("Covered", mean_value, covered, proportion=True),
                Measure("Median width", lambda weights, _, values: quantile(weights, values, 0.5), width),
            )
            cells = sample.method_row(f"{len(with_interval)} of {len(group)}", measures, method)
            rows.append((f"  {name}", *cells))
    note = (
        "90 % prediction intervals, of automatic scores for the score of the ideal reader, of scores of the map for "
        "the true score. They are withheld where a scan is out of distribution. Width: median."
    )
    return Table("automatic_intervals", "Prediction intervals of the total", columns, tuple(rows), note)


def _interval_rows(sample: Sample, references: dict[str, ScanFacts]) -> pd.DataFrame:
    """Ends of each scan's intervals, NaN if withheld, and the score that they should hold as truth."""
    rows = []
    for method in INTERVALS:
        for record in sample.scans:
            facts = references[record.name]
            low, high = facts["intervals"].get(method) or (math.nan, math.nan)
            truth = record.values["reader"].agatston if method == "automatic" else facts["reference"]
            rows.append(
                value_row(record, method, record.values[method].agatston, truth, "interval", low=low, high=high)
            )
    return long_table(rows, ("low", "high"))


_COUNTED_FOR = (*(artery.key for artery in MAIN_ARTERIES), NOWHERE)
"""Conditions of `_site_rows`: mass in mg by the artery for which it counts."""


def _site_rows(sample: Sample, references: dict[str, ScanFacts]) -> pd.DataFrame:
    """Mass in mg of each true artery, as truth, and as value what of it counts for the same artery."""
    rows = []
    for record in sample.scans:
        for place, masses in enumerate(references[record.name]["mass_mg"]):
            counted = dict(zip(_COUNTED_FOR, masses, strict=True))
            rows.append(value_row(record, "automatic", masses[place], sum(masses), _COUNTED_FOR[place], **counted))
    return long_table(rows, _COUNTED_FOR)


def _site_table(sample: Sample, sites: pd.DataFrame) -> Table:
    columns = ("True artery", "True mass, mg", *_COUNTED_FOR, "In its own artery")
    rows: list[tuple[Cell, ...]] = []
    for key in _COUNTED_FOR[:-1]:
        part = sites[sites.item == key]
        share, total = Measure(key, value_over_truth, part), part[[*_COUNTED_FOR]].to_numpy(float).sum(0)
        proportions = total / total.sum() if total.sum() else np.full(len(total), np.nan)
        rows.append((key, float(total.sum()), *map(float, proportions), sample.estimate(share, "automatic")))
    note = (
        f"Coronary calcium where it adds at least {CORONARY_MG_CM3:g} mg/cm³, by its true artery, and the artery for "
        f"which “{METHODS['automatic']}” counts the voxel, as proportions of the mass. Voxels below 130 HU and "
        "candidates that are left out are not counted."
    )
    return Table("automatic_sites", "Calcium mass by true and assigned artery", columns, tuple(rows), note)
