"""Study of how far features of calcium and epicardial fat repeat in a second scan, and agree with the truth.

A feature that needs calcium is compared in pairs where both scans have it. It may be used from the lowest Agatston
score from which its ICC is good: its lower limit reaches GOOD_ICC (Koo and Li 2016, doi:10.1016/j.jcm.2016.02.012).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import SimpleITK as sitk

from CACScoringLib.anatomy.courses import artery_courses
from CACScoringLib.core.decoding import restore
from CACScoringLib.core.labels import Artery
from CACScoringLib.record.features import PATIENT_FEATURES
from CACScoringLib.record.reading import read_result
from CACScoringLib.record.score_record import ScoreRecord
from CACScoringLib.results import METHOD_TITLES

from ..evaluation.measures import (
    Comparison,
    Measure,
    agreement_rate,
    long_table,
    mean_absolute_difference,
    mean_difference,
    value_row,
)
from ..evaluation.parts import Cell, Section, Table
from ..phantom import CoronaryTree, Patient, ScanPose, patient_of, posed_frame
from ..statistics.agreement import icc
from ..statistics.bootstrap import mean
from .scans import StudyScan

LEVELS = (1.0, 10.0, 100.0)
"""Lowest mean Agatston score of the pairs, by the method itself."""
GOOD_ICC = 0.75
DETECTABLE_FACTOR = 1.96 * math.sqrt(2)
"""Smallest detectable change over the within-patient standard deviation."""

SCORES = ("agatston", "volume_mm3", "pseudo_mass_hu_mm3", "lesions")
"""Scores that the features are listed with."""
FAT = {"epicardial_fat_cm3": "volume_cm3", "epicardial_fat_mean_hu": "mean_hu"}
"""Fields of epicardial fat, which belongs to no method, by name; they are listed with the clinical rule."""

_COURSE_STEP = 4
"""Every so many points of a true centre line are compared, 0.5 mm each."""

_TITLE = "Repeatability of the features of calcium and of epicardial fat"


def sections(
    scans: Sequence[StudyScan], folders: Sequence[Path | str], generator: np.random.Generator
) -> tuple[Section, ...]:
    """Return the section on features.

    Args:
        scans: Scans of the study.
        folders: Folder of each scan's results, or the reason why it has none.
        generator: Source of the bootstrap's draws.
    """
    scored = [(scan, place) for scan, place in zip(scans, folders, strict=True) if isinstance(place, Path)]
    results = {(scan.patient, scan.number): (scan, read_result(place)) for scan, place in scored}
    pairs = [
        (scan, first, results[scan.patient, 2][1])
        for scan, first in results.values()
        if scan.number == 1 and (scan.patient, 2) in results
    ]
    values = long_table((row for pair in pairs for row in _rows(*pair)), ("method_key", "agatston"))
    text = (
        f"{len(pairs)} pairs of scans. Intervals are 95 % percentile intervals of resamples of patients. A feature may "
        f"be used from the lowest Agatston score from which the lower limit of its ICC is {GOOD_ICC} or more. No "
        "outcomes are known here, so nothing is said about risk.",
    )
    tables = [
        table
        for key in METHOD_TITLES
        if len(part := values[values.method_key == key])
        for table in _tables(key, part, generator)
    ]
    course_rows, truth_rows = [], []
    for scan, place in scored:
        if scan.truth is None:
            continue
        patient = patient_of(truth := scan.read_truth())
        course_rows += [] if patient is None else _course_rows(scan, place, truth, patient)
        if scan.number == 1:
            features = true_features(truth, None if patient is None else patient.tree)
            truth_rows += _truth_rows(scan, results[scan.patient, 1][1], features)
    truths, courses = long_table(truth_rows, ("method_key",)), long_table(course_rows)
    tables += [_course_table(courses, generator)] if len(courses) else []
    tables += [_truth_table(key, part, generator) for key, part in truths.groupby("method_key", sort=False)]
    return (Section("features", _TITLE, text, tuple(tables), values=(values, truths, courses)),)


def _rows(scan: StudyScan, first: ScoreRecord, second: ScoreRecord) -> list[dict[str, object]]:
    """Return a row per method and feature: the first scan's value as truth, the second's as value."""
    rows = []
    for key in first.methods.keys() & second.methods.keys():
        scores, other_scores = _values(first, key), _values(second, key)
        agatston = (first.methods[key].total.clinical_agatston + second.methods[key].total.clinical_agatston) / 2
        for name in (*SCORES, *PATIENT_FEATURES, *FAT):
            before, after = scores.get(name), other_scores.get(name)
            if before is not None and after is not None:
                about = {"method_key": key, "agatston": agatston}
                rows.append(value_row(scan, name, float(after), float(before), item=key, **about))
    return rows


def _values(record: ScoreRecord, key: str) -> Mapping[str, float | None]:
    method = record.methods[key]
    features = {} if method.features is None else method.features.patient
    scores = {name: getattr(method.total, name) for name in SCORES}
    listed = FAT if key == "threshold" and record.epicardial_fat else {}
    fat = {name: getattr(record.epicardial_fat, field) for name, field in listed.items()}
    return {**scores, "agatston": method.total.clinical_agatston, **features, **fat}


def true_features(truth: Mapping[str, Any], tree: CoronaryTree | None) -> dict[str, float]:
    """Return those features of a digital scan's plaques that are known; shares are of the true mass.

    Every plaque counts and makes its artery diseased, however small, so that missed plaques show.

    Args:
        truth: Content of `truth.json`.
        tree: The patient's arteries; None if unknown, without the proximal share.
    """
    plaques, mass_mg = truth["lesions"], truth["mass_mg_by_artery"]
    is_diseased = {artery: mass > 0 for artery, mass in mass_mg.items()}
    features = {"lesions": len(plaques), "diseased_arteries": sum(is_diseased.values()), "left_main": is_diseased["LM"]}
    if plaques:
        total_mg = sum(mass_mg.values())
        features["diffusivity"] = 1 - max(mass_mg.values()) / total_mg
        features["largest_lesion_mm3"] = max(plaque["volume_mm3"] for plaque in plaques)
        if tree is not None:
            proximal_mg = sum(plaque["mass_mg"] for plaque in plaques if _is_proximal(plaque, tree))
            features["proximal_share"] = proximal_mg / total_mg
    return features


def _is_proximal(plaque: Mapping[str, Any], tree: CoronaryTree) -> bool:
    """Return True if a plaque's middle is in the proximal third of its artery, side branches from their origin on."""
    vessels = {vessel.name: vessel for vessel in tree.vessels}
    artery, vessel = vessels[plaque["artery"]], vessels[plaque["vessel"]]
    origin = np.linalg.norm(artery.path_mm - vessel.path_mm[0], axis=1).argmin()
    origin_mm = artery.length_mm * origin / (len(artery.path_mm) - 1)
    return artery.name == "LM" or bool(origin_mm + plaque["middle_mm"] < artery.length_mm / 3)


def _truth_rows(scan: StudyScan, record: ScoreRecord, features: Mapping[str, float]) -> list[dict[str, object]]:
    return [
        value_row(scan, name, float(value), float(true_value), item=key, method_key=key)
        for key in record.methods
        for name, true_value in features.items()
        if (value := _values(record, key).get(name)) is not None
    ]


def _truth_table(key: str, values: pd.DataFrame, generator: np.random.Generator) -> Table:
    comparison = Comparison(values.patient.unique(), {name: name for name in values.method.unique()}, generator)
    measures = [
        Measure("ICC", icc, values),
        Measure("Bias", mean_difference, values),
        Measure("Mean absolute error", mean_absolute_difference, values),
    ]
    note = (
        "First scans of digital patients. The truth counts every plaque, touching ones singly, and takes shares of the "
        "mass. A feature that needs calcium is compared where scan and truth have some."
    )
    return comparison.value_table(f"features_truth_{key}", f"{METHOD_TITLES[key]}: features and truth", measures, note)


def _tables(key: str, values: pd.DataFrame, generator: np.random.Generator) -> list[Table]:
    names = [name for name in (*SCORES, *PATIENT_FEATURES, *FAT) if (values.method == name).any()]
    comparison = Comparison(values.patient.unique(), {name: name for name in names}, generator)
    measures = [
        Measure("ICC", icc, values),
        Measure("Within-patient coefficient of variation", _variation, values),
        Measure("Smallest detectable change", _detectable_change, values),
    ]
    note = "Within-patient standard deviation over the mean; 1.96 √2 times that standard deviation."
    title = f"{METHOD_TITLES[key]}: features of two scans of a patient"
    tables = [comparison.value_table(f"features_{key}", title, measures, note)]
    by_level = [Measure(f"ICC from Agatston {n:g}", icc, values[values.agatston >= n]) for n in LEVELS]
    rows = [_level_row(comparison, name, by_level) for name in names]
    columns = ("Feature", *(measure.title for measure in by_level), "May be used from Agatston")
    title = f"{METHOD_TITLES[key]}: features by score"
    return [*tables, Table(f"features_by_score_{key}", title, columns, tuple(rows))]


def _level_row(comparison: Comparison, name: str, by_level: Sequence[Measure]) -> tuple[Cell, ...]:
    estimates = [comparison.estimate(m, name) if len(m.rows_of(name)) else None for m in by_level]
    good = [n for n, e in zip(LEVELS, estimates, strict=True) if e is not None and e.low >= GOOD_ICC]
    return (name, *estimates, f"{good[0]:g}" if good else "not shown")


def _course_rows(scan: StudyScan, folder: Path, truth: Mapping[str, Any], patient: Patient) -> list[dict[str, object]]:
    """Return a row per artery and place on its true centre line: distances from the ostium, and share of its length.

    The true distance is the truth, the one measured in the scan's territories the value. Heart motion is left out.
    """
    territories = folder / "territories.nii.gz"
    if not territories.exists():
        return []
    image, pose = sitk.ReadImage(str(territories)), restore(truth["pose"], ScanPose)
    frame, courses = posed_frame(patient.body, pose), artery_courses(image)
    vessels = {vessel.name: vessel for vessel in patient.tree.vessels}
    rows = []
    for artery, course in courses.items():
        if (vessel := vessels.get(artery.key)) is None:
            continue
        before_mm = vessels["LM"].length_mm if artery in (Artery.LAD, Artery.LCX) and "LM" in vessels else 0.0
        places = frame.to_lps(vessel.path_mm)[::_COURSE_STEP] + pose.table_shift_mm
        indices = [image.TransformPhysicalPointToContinuousIndex(place) for place in places.tolist()]
        measured_mm = course.at((np.array(indices) * image.GetSpacing())[:, ::-1])
        shares = np.linspace(0, 1, len(vessel.path_mm))[::_COURSE_STEP]
        measured_shares = (measured_mm - course.first_mm) / (course.last_mm - course.first_mm)
        for share, mm, measured_share in zip(shares, measured_mm, measured_shares, strict=True):
            if math.isnan(mm):
                continue
            true_mm = before_mm + share * vessel.length_mm
            rows.append(value_row(scan, artery.key, mm, true_mm, item="distance"))
            rows.append(value_row(scan, artery.key, measured_share < 1 / 3, share < 1 / 3, item="third"))
    return rows


def _course_table(values: pd.DataFrame, generator: np.random.Generator) -> Table:
    comparison = Comparison(values.patient.unique(), {key: key for key in values.method.unique()}, generator)
    distances, thirds = (values[values["item"] == item] for item in ("distance", "third"))
    measures = [
        Measure("Mean absolute error, mm", mean_absolute_difference, distances),
        Measure("Bias, mm", mean_difference, distances),
        Measure("In the right third", agreement_rate, thirds, methods=("LAD", "LCX", "RCA")),
    ]
    note = "Places every 2 mm of the true centre lines of digital patients; n counts places."
    return comparison.value_table("features_courses", "Distance from the ostium along the artery", measures, note)


def _within_patient_sd(weights: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    return np.sqrt(mean(weights, (second - first) ** 2 / 2))


def _variation(weights: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return the within-patient standard deviation over the mean, a `Statistic`."""
    middle = mean(weights, (first + second) / 2)
    spread = _within_patient_sd(weights, first, second)
    return np.divide(spread, middle, out=np.full(len(weights), np.nan), where=middle > 0)


def _detectable_change(weights: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return the smallest detectable change, a `Statistic`."""
    return DETECTABLE_FACTOR * _within_patient_sd(weights, first, second)
