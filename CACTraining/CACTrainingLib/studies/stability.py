"""Stability of scores under changes of a scan that do not matter, such as air cut off, on any scans without labels.

Each scan is scored as it is and after each change. What does not matter must not change a score, so every difference is
an error whatever the truth is. Slices averaged to twice their thickness are scored too, and reported apart.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import SimpleITK as sitk

from CACScoringLib.cohort.cohort import scans_of
from CACScoringLib.core.ct import AIR_HU, CTError, CTScan
from CACScoringLib.core.grid import Grid, bounding_box
from CACScoringLib.core.progress import Progress
from CACScoringLib.core.slices import BODY_HU
from CACScoringLib.core.tables import write_table
from CACScoringLib.core.voxels import voxels_of
from CACScoringLib.io.reading import read_ct
from CACScoringLib.models.choice import ModelChoice, Networks
from CACScoringLib.pipeline import score_scan
from CACScoringLib.results import ScoreResult
from CACScoringLib.scans.source import ScanSource
from CACScoringLib.scoring.scores import class_number, score_lesions

from ..evaluation.jobs import JobSettings, StudyError, job_key, kept_jobs, make_folder
from ..evaluation.page import facts_of, write_study
from ..evaluation.parts import Cell, Section, Table, count
from .scoring import forget, models_key, records_of, scoring_models, with_networks

SCORES = "scores.csv"
"""In the output folder: the scores of each scan after each change."""

AS_IT_IS, AVERAGED = "as it is", "slices averaged by two"

MAX_COLUMNS = 20
"""Columns, or rows, of air that are cut off or added."""

NOISE_HU = 3.0
"""Standard deviation of the noise that is added."""

SAME_LESION_MM = 5.0
"""Distance of two lesions' centres up to which they are the same lesion."""

THICKEST_MM = 3.0
"""Greatest distance of slices that are averaged."""

Row = dict[str, Any]


@dataclass(frozen=True)
class StabilitySettings:
    """Settings of the study.

    Attributes:
        data: Folder of scans, or a table of `cac cohort`.
        output: Folder for page, tables and answers.
        models: Models in place of the bundled ones: names, or paths of cards.
        workers: Processes.
        device: Device of the networks.
        seed: Seed of the noise.
    """

    data: Path
    output: Path
    models: tuple[str, ...] = ()
    workers: int = 1
    device: str = "auto"
    seed: int = 0


def changes(scan: CTScan, heart: sitk.Image, seed: int) -> Iterator[tuple[str, sitk.Image]]:
    """Iterate over the changes of a scan that do not matter, each with its name; those it has no room for are left out.

    Args:
        scan: The scan.
        heart: Its heart, 0 outside, on its grid.
        seed: Seed of the noise.
    """
    image = scan.image
    _, rows, columns = bounding_box(scan.hu > BODY_HU)
    slices = bounding_box(voxels_of(heart) > 0)[0]
    width, height, depth = image.GetSize()
    for name, room, sides in (
        ("air cut off, right", columns.start, ([1, 0, 0], [0, 0, 0])),
        ("air cut off, left", width - columns.stop, ([0, 0, 0], [1, 0, 0])),
        ("air cut off, front", rows.start, ([0, 1, 0], [0, 0, 0])),
        ("air cut off, back", height - rows.stop, ([0, 0, 0], [0, 1, 0])),
    ):
        if room > 0:
            number = min(room, MAX_COLUMNS)
            yield name, sitk.Crop(image, *([number * axis for axis in side] for side in sides))
    border = [MAX_COLUMNS, MAX_COLUMNS, 0]
    yield "air added", sitk.ConstantPad(image, border, border, AIR_HU)
    if slices.start > 1:
        yield "lowest slice cut off", image[:, :, 1:]
    if slices.stop < depth - 1:
        yield "highest slice cut off", image[:, :, : depth - 1]
    hu = scan.hu.astype(np.float32)
    for name, offsets in (
        ("2 HU more", 2.0),
        ("2 HU less", -2.0),
        ("noise of 3 HU", np.random.default_rng(seed).normal(0.0, NOISE_HU, hu.shape)),
    ):
        yield name, Grid.of(image).image(np.maximum(np.rint(hu + offsets), AIR_HU).astype(np.int16))
    shifted = sitk.Image(image)
    shifted.SetOrigin(image.TransformContinuousIndexToPhysicalPoint((0.5, 0.5, 0.0)))
    yield "half a voxel moved", shifted


def averaged(scan: CTScan) -> CTScan | None:
    """Return the scan with each two slices averaged, an odd last one left out; None if they are thick already."""
    spacing_mm = scan.slice_spacing_mm
    if spacing_mm > THICKEST_MM:
        return None
    image = sitk.BinShrink(sitk.Cast(scan.image, sitk.sitkFloat32), [1, 1, 2])
    thickness_mm = (scan.acquisition.slice_thickness_mm or spacing_mm) + spacing_mm
    acquisition = replace(scan.acquisition, slice_thickness_mm=thickness_mm)
    return replace(scan, image=sitk.Cast(sitk.Round(image), sitk.sitkInt16), acquisition=acquisition)


def evaluate_stability(settings: StabilitySettings, progress: Progress | None = None) -> Path:
    """Make the study; returns its page. Raises CTError, OutputError."""
    progress, started = progress or Progress(), time.perf_counter()
    progress.begin(["scans", "page"])
    models = scoring_models(ModelChoice(settings.models))
    make_folder(settings.output)
    with progress.step("scans"):
        scans, warnings = scans_of(settings.data, settings.output, settings.workers, progress)
        for warning in warnings:
            progress.warning(warning)
        jobs = {
            job_key(scan.key, settings.seed, models_key(models), files=[scan.ct]): (scan, settings.seed)
            for scan in scans
        }
        work = JobSettings(settings.workers, settings.device, progress)
        prepare = partial(with_networks, _scores, dict(models), settings.device)
        results, failed = kept_jobs(jobs, settings.output / "answers.jsonl", prepare, work)
    if not results:
        reason = next(iter(failed.values()), f"there is none in {settings.data}")
        raise StudyError(f"No scan could be scored: {reason}. Give a folder of CTs, or a table of cac cohort.")
    with progress.step("page"):
        names = Counter(scan.name for scan in scans)
        rows = [
            {"scan": scan.name if names[scan.name] == 1 else scan.key, **row}
            for key, (scan, _) in jobs.items()
            if key in results
            for row in results[key]["scores"]
        ]
        columns = ("scan", "change", "automatic", "map", "refused")
        write_table(settings.output / SCORES, columns, ([row.get(name) for name in columns] for row in rows))
        facts = facts_of(records_of(models), settings.seed, time.perf_counter() - started)
        page = write_study(settings.output, "Stability", [_section(pd.DataFrame(rows), failed)], facts)
    return page


def _scores(networks: Networks, job: tuple[ScanSource, int]) -> dict[str, Any]:
    """Rows of a scan as it is, and after each change."""
    listed, seed = job
    if listed.fault:
        raise CTError(listed.fault)
    scan = read_ct(listed.ct, listed.series)

    def row(name: str, changed: CTScan) -> Row:
        forget(networks)
        try:
            return {"change": name, **_facts(score_scan(changed, networks=networks))}
        except CTError as error:
            return {"change": name, "refused": str(error)}

    forget(networks)
    result = score_scan(scan, networks=networks)
    rows = [{"change": AS_IT_IS, **_facts(result)}]
    rows += [row(name, replace(scan, image=image)) for name, image in changes(scan, result.heart.mask, seed)]
    if (thick := averaged(scan)) is not None:
        rows.append(row(AVERAGED, thick))
    return {"scores": rows}


def _facts(result: ScoreResult) -> Row:
    """Scores of a scan, and its lesions: artery, centre in mm (RAS), and Agatston score; the largest first."""
    threshold, spacing_mm = result.methods["threshold"], result.scan.image.GetSpacing()
    lesions = []
    for lesion in threshold.lesions.lesions:
        agatston = score_lesions([lesion], spacing_mm, threshold.rules).agatston
        lesions.append([lesion.artery.key, *(round(value, 2) for value in (*lesion.centroid_ras_mm, agatston))])
    return {
        "refused": None,
        "automatic": round(threshold.total.agatston, 2),
        "map": round(result.methods["decomposition"].total.clinical_agatston, 2),
        "lesions": sorted(lesions, key=lambda lesion: -lesion[-1]),
    }


def _section(scores: pd.DataFrame, failed: Mapping[str, str]) -> Section:
    is_first = ~scores.duplicated("scan")
    first = scores[is_first].set_index("scan")[["automatic", "map"]].add_suffix("_first")
    scores = scores.join(first, "scan")
    changed = scores[~is_first]
    averaged = changed[(changed.change == AVERAGED) & changed.refused.isna()]
    text = [
        f"{count(len(first), 'scan')}, each as it is and after changes that do not matter: air cut off (up to "
        f"{MAX_COLUMNS} columns or rows on each side) and added, the lowest and the highest slice cut off outside the "
        f"heart, 2 HU more and less, noise of {NOISE_HU:g} HU, and the grid moved by half a voxel."
    ]
    if failed:
        text.append(f"{count(len(failed), 'scan')} failed: {'; '.join(sorted(set(failed.values()))[:3])}")
    tables = [_scan_table(scores), _change_table(changed[changed.change != AVERAGED])]
    if not averaged.empty:
        tables.append(_thickness_table(averaged))
    about = scores[["scan", "change", "refused"]].assign(patient=scores.scan, item="total")
    values = (
        about.assign(method=method, truth=scores[f"{method}_first"], value=scores[method])
        for method in ("automatic", "map")
    )
    return Section("stability", "Stability", tuple(text), tuple(tables), values=tuple(values))


def _scan_table(scores: pd.DataFrame) -> Table:
    columns = (
        "Scan",
        "Automatic",
        "Lowest",
        "Highest",
        "Range / mean",
        "Lesions",
        "Come and go",
        "Other class",
        "Map",
        "Range / mean, map",
    )
    lines: list[tuple[Cell, ...]] = []
    scored = scores[(scores.change != AVERAGED) & scores.refused.isna()]
    for name, part in scored.groupby("scan", sort=False):
        base, lesions = part.iloc[0], part.lesions.tolist()
        classes = part.automatic.map(class_number)
        reclassified = f"{(classes != classes.iloc[0]).sum()} of {len(part) - 1}"
        moved = sum(count_unmatched(lesions[0], changed) for changed in lesions[1:])
        range_of = (float(part.automatic.min()), float(part.automatic.max()), relative_range(part.automatic))
        score, of_map = float(base.automatic), float(base["map"])
        lines.append(
            (name, score, *range_of, len(lesions[0]), moved, reclassified, of_map, relative_range(part["map"]))
        )
    note = (
        f"Come and go: lesions without one in the other scan within {SAME_LESION_MM:g} mm, added over all changes. "
        "Other class: changes after which the score is of another risk class."
    )
    return Table("stability_scans", "Scores of each scan over all changes", columns, tuple(lines), note)


def _change_table(changed: pd.DataFrame) -> Table:
    columns = (
        "Change",
        "Scans",
        "Largest difference / mean",
        "Other class",
        "Largest difference / mean, map",
        "Refused",
    )
    lines: list[tuple[Cell, ...]] = []
    for change, part in changed.groupby("change", sort=False):
        scored = part[part.refused.isna()]
        if scored.empty:
            continue
        automatic, of_map = (scored[[f"{name}_first", name]].to_numpy(float) for name in ("automatic", "map"))
        reclassified = sum(class_number(before) != class_number(after) for before, after in automatic)
        largest, largest_of_map = (max(map(relative_range, pairs)) for pairs in (automatic, of_map))
        lines.append((str(change), len(scored), largest, reclassified, largest_of_map, len(part) - len(scored)))
    return Table("stability_changes", "Effect of each change", columns, tuple(lines))


def _thickness_table(averaged: pd.DataFrame) -> Table:
    """Scores of slices averaged to twice their thickness."""
    names = ["scan", "automatic_first", "automatic", "map_first", "map"]
    lines = tuple(averaged[names].itertuples(index=False, name=None))
    columns = ("Scan", "Automatic", "Automatic, averaged", "Map", "Map, averaged")
    note = "Thicker slices dilute calcium, so the score at 130 HU falls; that of the map should not."
    return Table("stability_thickness", "Slices averaged to twice their thickness", columns, lines, note)


def relative_range(scores: Sequence[float] | np.ndarray | pd.Series) -> float:
    """Return the range of scores over their mean; 0 if all are 0."""
    return round(float(np.ptp(scores) / np.mean(scores)), 3) if np.any(scores) else 0.0


def count_unmatched(before: Sequence[Sequence[float]], after: Sequence[Sequence[float]]) -> int:
    """Count lesions of either scan without one of the other within SAME_LESION_MM. Each is artery, x, y, z, score."""
    if not before or not after:
        return len(before) + len(after)
    first, second = (np.array([lesion[1:4] for lesion in lesions], float) for lesions in (before, after))
    is_near = np.linalg.norm(first[:, None] - second, axis=2) <= SAME_LESION_MM
    return int((~is_near.any(1)).sum() + (~is_near.any(0)).sum())
