"""Write how well features of calcium and epicardial fat repeat in a second scan, and how near the truth they are.

    python Testing/Benchmarks/features.py FEATURES COURSES COHORT=OUTPUT [COHORT=OUTPUT ...]

COHORT is a folder of `cac phantom --pairs`, OUTPUT the folder in which `cac evaluate reproducibility` scored it;
nothing is scored here. FEATURES (docs/results/features.csv) has a row for each feature of a patient, by each score:
agreement of two scans, and of the first scan with the truth where it is known. A feature that needs calcium is compared
where both have it. Its ICC is good from the lowest Agatston score from which its lower limit is GOOD_ICC (Koo and Li
2016, doi:10.1016/j.jcm.2016.02.012). COURSES (docs/results/features-courses.csv) compares distances from the ostium
along the territories with those along the true centre lines.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import SimpleITK as sitk
from by_scanner import origin, stated, write_rows

from CACScoringLib.anatomy.courses import artery_courses
from CACScoringLib.cohort.folder import TABLE
from CACScoringLib.core.decoding import restore
from CACScoringLib.core.files import read_json
from CACScoringLib.core.labels import Artery
from CACScoringLib.core.tables import read_table
from CACScoringLib.record.findings import PATIENT_FEATURES
from CACScoringLib.record.score_record import ScoreRecord, read_result
from CACScoringLib.scoring.features import covered_length, extent_score
from CACScoringLib.statistics.agreement import Statistic, icc
from CACScoringLib.statistics.bootstrap import Bootstrap, Estimate, mean
from CACTrainingLib.evaluation.measures import (
    agreement_rate,
    long_table,
    mean_absolute_difference,
    mean_difference,
    value_row,
)
from CACTrainingLib.phantom import Patient, ScanPose, patient_of, posed_frame
from CACTrainingLib.references.reference import ReferenceScan
from CACTrainingLib.references.registry import read_study

SEED = 0
KINDS = {True: "gated", False: "not gated"}
METHODS = {"threshold": "automatic", "decomposition": "map"}
"""Titles of a result's methods."""
SCORES = {"agatston": "clinical_agatston", "volume_mm3": "volume_mm3", "mass_mg": "mass_mg", "lesions": "lesions"}
"""Fields of the scores that the features stand beside, by name."""
FAT = {"epicardial_fat_cm3": "volume_cm3", "epicardial_fat_mean_hu": "mean_hu"}
"""Fields of epicardial fat, which belongs to no method, by name; they stand with the automatic score."""
NAMES = (*SCORES, *PATIENT_FEATURES, *FAT)

GOOD_ICC = 0.75
LEVELS = (0.0, 1.0, 10.0, 100.0)
"""Lowest mean Agatston score of the pairs, by the method itself."""
FEWEST = 10
"""Fewest pairs whose ICC is judged, and fewest with another value than 0 of which measures are stated."""
DETECTABLE_FACTOR = 1.96 * math.sqrt(2)
"""Smallest detectable change over the within-patient standard deviation."""
COURSE_STEP = 4
"""Every so many points of a true centre line are compared, 0.5 mm each."""


def main() -> None:
    """Write the tables that the arguments name."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("features", type=Path)
    parser.add_argument("courses", type=Path)
    parser.add_argument("studies", nargs="+", metavar="COHORT=OUTPUT")
    arguments = parser.parse_args()
    data, networks = [], set()
    pairs, truths, courses = [], [], []
    for study in arguments.studies:
        cohort, output = map(Path, study.split("=", 1))
        about = read_json(cohort / "cohort.json")["settings"]
        kind = KINDS[about["protocol"].startswith("cardiac")]
        scored = _scored(cohort, output / "scans")
        drawn_as = [name for name in ("enriched", "diverse", "surroundings") if about[name]]
        start, heights = f"{len(scored)} patients from {about['first_number']}", f"z_range_mm {about['z_range_mm']}"
        data.append(", ".join([start, about["protocol"], *drawn_as, heights]))
        for patient in scored:
            (scan, folder), (_, second_folder) = patient
            first, second = read_result(folder), read_result(second_folder)
            networks |= {_networks(first), _networks(second)}
            pairs.extend(_pair_rows(kind, scan, first, second))
            drawn = patient_of(truth := scan.read_truth())
            truths.extend(_truth_rows(kind, scan, first, _true_values(truth, drawn)))
            for scanned, place in patient if drawn is not None else ():
                courses.extend(_course_rows(kind, scanned, place, drawn))
    if len(networks) != 1:
        names = "; ".join(sorted(networks)) or "none"
        parser.error(f"All pairs must be scored by the same networks, not by: {names}. Score them again.")
    about = origin(
        "cac evaluate reproducibility; Testing/Benchmarks/features.py",
        "; ".join([*data, "two scans each", *networks]),
        SEED,
    )
    feature_rows = _feature_rows(long_table(pairs, ("kind", "agatston")), long_table(truths, ("kind",)))
    write_rows(arguments.features, [{**row, **about} for row in feature_rows])
    write_rows(arguments.courses, [{**row, **about} for row in _artery_rows(long_table(courses, ("kind",)))])


def _scored(cohort: Path, results: Path) -> list[list[tuple[ReferenceScan, Path]]]:
    """Return both scans of each patient with the folders of their results; patients with one result are left out."""
    lines = [
        line for line in read_table(results / TABLE, ("ct", "state", "folder")).lines if line.text("state") == "done"
    ]
    folders = {Path(line.text("ct")).resolve(): results / line.text("folder") for line in lines}
    by_patient: dict[str, list[tuple[ReferenceScan, Path]]] = {}
    for scan in sorted(read_study(cohort).scans, key=lambda scan: (scan.patient, scan.number)):
        if scan.ct.resolve() in folders:
            by_patient.setdefault(scan.patient, []).append((scan, folders[scan.ct.resolve()]))
    return [scans for scans in by_patient.values() if len(scans) == 2]


def _networks(record: ScoreRecord) -> str:
    return ", ".join(f"{model.name} {model.sha256[:8]}" for model in record.models)


def _values(record: ScoreRecord, key: str) -> dict[str, float]:
    """Return the values of NAMES that a method of a result has."""
    method = record.methods[key]
    values: dict[str, float | None] = {name: getattr(method.total, field) for name, field in SCORES.items()}
    values |= {} if method.features is None else method.features.patient
    if key == "threshold" and record.epicardial_fat is not None:
        values |= {name: getattr(record.epicardial_fat, field) for name, field in FAT.items()}
    return {name: float(value) for name, value in values.items() if value is not None}


def _pair_rows(kind: str, scan: ReferenceScan, first: ScoreRecord, second: ScoreRecord) -> Iterator[dict[str, Any]]:
    """Rows of a long table by method and feature: the first scan's value as truth, the second's as value."""
    for key in METHODS:
        before, after = _values(first, key), _values(second, key)
        agatston = (before["agatston"] + after["agatston"]) / 2
        for name in (name for name in NAMES if name in before and name in after):
            yield value_row(scan, name, after[name], before[name], item=key, kind=kind, agatston=agatston)


def _truth_rows(
    kind: str, scan: ReferenceScan, record: ScoreRecord, truths: Mapping[str, float]
) -> Iterator[dict[str, Any]]:
    for key in METHODS:
        values = _values(record, key)
        for name in truths.keys() & values.keys():
            yield value_row(scan, name, values[name], float(truths[name]), item=key, kind=kind)


def _true_values(truth: Mapping[str, Any], patient: Patient | None) -> dict[str, float]:
    """Return those of NAMES that are known of a digital scan.

    Every plaque counts and makes its artery diseased, however small, so that missed plaques show; shares are of the
    true mass.

    Args:
        truth: Content of `truth.json`.
        patient: The patient; None if it cannot be drawn again, without the proximal share.
    """
    plaques, mass_mg, fat = truth["lesions"], truth["mass_mg_by_artery"], truth["epicardial_fat"]
    is_diseased = {artery: mass > 0 for artery, mass in mass_mg.items()}
    total_mg = sum(mass_mg.values())
    values = {"mass_mg": total_mg, "lesions": len(plaques), "left_main": is_diseased["LM"]}
    values["diseased_arteries"] = sum(is_diseased.values())
    if patient is not None:
        values["extent_score"] = _true_extent(plaques, patient)
    if fat is not None:  # a scan that cuts the pericardium has none
        values |= {name: fat[field] for name, field in FAT.items()}
    if plaques:
        values["diffusivity"] = 1 - max(mass_mg.values()) / total_mg
        values["largest_lesion_mm3"] = max(plaque["volume_mm3"] for plaque in plaques)
    if plaques and patient is not None:
        proximal = (plaque["mass_mg"] for plaque in plaques if _is_proximal(plaque, patient))
        values["proximal_share"] = sum(proximal) / total_mg
    return values


def _true_extent(plaques: Sequence[Mapping[str, Any]], patient: Patient) -> int | None:
    """Return the score by extent of all plaques, side branches from their origin on."""
    spans: dict[str, list[tuple[float, float]]] = {}
    length_mm = {vessel.name: vessel.length_mm for vessel in patient.tree.vessels}
    for plaque in plaques:
        middle_mm = _along_artery_mm(plaque, patient)
        ends = (middle_mm - plaque["length_mm"] / 2, middle_mm + plaque["length_mm"] / 2)
        artery = plaque["artery"]
        spans.setdefault(artery, []).append(tuple(float(np.clip(end, 0, length_mm[artery])) for end in ends))
    return extent_score([covered_length(part) / length_mm[artery] for artery, part in spans.items()])


def _is_proximal(plaque: Mapping[str, Any], patient: Patient) -> bool:
    """Return True if a plaque's middle is in the proximal third of its artery, side branches from their origin on."""
    artery = next(vessel for vessel in patient.tree.vessels if vessel.name == plaque["artery"])
    return artery.name == "LM" or _along_artery_mm(plaque, patient) < artery.length_mm / 3


def _along_artery_mm(plaque: Mapping[str, Any], patient: Patient) -> float:
    """Return the distance of a plaque's middle from the beginning of its artery; of a branch's, through its origin."""
    vessels = {vessel.name: vessel for vessel in patient.tree.vessels}
    artery, vessel = vessels[plaque["artery"]], vessels[plaque["vessel"]]
    nearest = np.linalg.norm(artery.path_mm - vessel.path_mm[0], axis=1).argmin()
    return float(artery.length_mm * nearest / (len(artery.path_mm) - 1) + plaque["middle_mm"])


def _feature_rows(pairs: pd.DataFrame, truths: pd.DataFrame) -> Iterator[dict[str, object]]:
    """Rows of the table of features."""
    for kind in KINDS.values():
        of_kind, true_of_kind = pairs[pairs.kind == kind], truths[truths.kind == kind]
        bootstrap = Bootstrap(of_kind.patient, np.random.default_rng(SEED))
        for (key, title), name in ((method, name) for method in METHODS.items() for name in NAMES):
            rows = of_kind[(of_kind["item"] == key) & (of_kind.method == name)]
            true = true_of_kind[(true_of_kind["item"] == key) & (true_of_kind.method == name)]
            if rows.empty:
                continue
            yield {
                "scans": kind,
                "score": title,
                "feature": name,
                "pairs": len(rows),
                "not 0": _not_zero(rows),
                "ICC": _cell(bootstrap, icc, rows, 2),
                "within-patient CV": _cell(bootstrap, _variation, rows, 2),
                "smallest detectable change": _cell(bootstrap, _detectable_change, rows),
                "ICC good from Agatston": _good_from(bootstrap, rows),
                "patients with truth": len(true) or "",
                "bias": _cell(bootstrap, mean_difference, true),
                "ICC with the truth": _cell(bootstrap, icc, true, 2),
            }


def _not_zero(rows: pd.DataFrame) -> int:
    """Number of rows in which either value is not 0."""
    return int(((rows.value != 0) | (rows.truth != 0)).sum())


def _cell(bootstrap: Bootstrap, statistic: Statistic, rows: pd.DataFrame, decimals: int | None = None) -> str:
    """Estimate as text; empty of too few rows or without a value. decimals: None for three digits in all."""
    if _not_zero(rows) < FEWEST:
        return ""
    estimate = _estimate(bootstrap, statistic, rows)
    if math.isnan(estimate.value):
        return ""
    if decimals is None:
        size = max(abs(number) for number in (estimate.value, estimate.low, estimate.high) if not math.isnan(number))
        decimals = min(3, max(0, 2 - math.floor(math.log10(size)))) if size else 0
    return stated(estimate, decimals)


def _estimate(bootstrap: Bootstrap, statistic: Statistic, rows: pd.DataFrame) -> Estimate:
    truth, value = rows.truth.to_numpy(float), rows.value.to_numpy(float)
    return bootstrap.result(lambda weights: statistic(weights, truth, value), rows.patient.tolist()).estimate


def _good_from(bootstrap: Bootstrap, rows: pd.DataFrame) -> str:
    """Lowest of LEVELS from which the ICC is good, with the number of pairs."""
    if _not_zero(rows) < FEWEST:
        return "too few pairs"
    for level in LEVELS:
        part = rows[rows.agatston >= level]
        if _not_zero(part) >= FEWEST and _estimate(bootstrap, icc, part).low >= GOOD_ICC:
            return f"{level:g} ({len(part)} pairs)"
    return "not shown"


def _within_patient_sd(weights: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    return np.sqrt(mean(weights, (second - first) ** 2 / 2))


def _variation(weights: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Within-patient standard deviation over the mean, a `Statistic`; NaN for negative values."""
    middle = mean(weights, (first + second) / 2)
    spread = _within_patient_sd(weights, first, second)
    return np.divide(spread, middle, out=np.full(len(weights), np.nan), where=middle > 0)


def _detectable_change(weights: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Smallest detectable change, a `Statistic`."""
    return DETECTABLE_FACTOR * _within_patient_sd(weights, first, second)


def _course_rows(kind: str, scan: ReferenceScan, folder: Path, patient: Patient) -> Iterator[dict[str, Any]]:
    """Rows by artery and place on its true centre line: distance from the ostium, and whether in the proximal third.

    The true distance is the truth, the one measured in the scan's territories the value. Heart motion is left out.
    """
    if not (file := folder / "territories.nii.gz").exists():
        return
    image, pose = sitk.ReadImage(str(file)), restore(scan.read_truth()["pose"], ScanPose)
    spacing_mm = image.GetSpacing()
    frame, courses = posed_frame(patient.body, pose), artery_courses(sitk.GetArrayFromImage(image), spacing_mm)
    vessels = {vessel.name: vessel for vessel in patient.tree.vessels}
    for artery, course in courses.items():
        if (vessel := vessels.get(artery.key)) is None:
            continue
        before_mm = vessels["LM"].length_mm if artery in (Artery.LAD, Artery.LCX) and "LM" in vessels else 0.0
        places = frame.to_lps(vessel.path_mm)[::COURSE_STEP] + pose.table_shift_mm
        indices = [image.TransformPhysicalPointToContinuousIndex(place) for place in places.tolist()]
        measured_mm = course.at((np.array(indices) * spacing_mm)[:, ::-1])
        shares = np.linspace(0, 1, len(vessel.path_mm))[::COURSE_STEP]
        thirds = (measured_mm - course.first_mm) / (course.last_mm - course.first_mm) < 1 / 3
        for share, mm, is_proximal in zip(shares, measured_mm, thirds, strict=True):
            if not math.isnan(mm):
                true_mm = before_mm + share * vessel.length_mm
                yield value_row(scan, artery.key, mm, true_mm, item="distance", kind=kind)
                yield value_row(scan, artery.key, is_proximal, share < 1 / 3, item="third", kind=kind)


def _artery_rows(places: pd.DataFrame) -> Iterator[dict[str, object]]:
    """Rows of the table of courses."""
    for kind, part in places.groupby("kind"):
        bootstrap = Bootstrap(part.patient, np.random.default_rng(SEED))
        for artery, rows in part.groupby("method", sort=False):
            distances, thirds = (rows[rows["item"] == item] for item in ("distance", "third"))
            yield {
                "scans": kind,
                "artery": artery,
                "patients": rows.patient.nunique(),
                "mean absolute error, mm": _cell(bootstrap, mean_absolute_difference, distances, 1),
                "bias, mm": _cell(bootstrap, mean_difference, distances, 1),
                "in the right third": "" if artery == "LM" else _cell(bootstrap, agreement_rate, thirds, 2),
            }


if __name__ == "__main__":
    main()
