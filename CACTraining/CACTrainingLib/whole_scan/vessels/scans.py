"""The scans of the study of vessel regression: prepared, with what else is known of them, and who is looked at."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from CACScoringLib.core.progress import Progress

from ...data.scan_table import TableScan
from ...experiments.results import SCORE_COLUMNS, score_counts
from ...report.parts import Section, Table, count
from ..prepared import prepare
from ..scan_table import ARTERIES
from .configurations import Configuration, VesselBudget
from .results import Scans
from .study_runs import Data, SaliencyPatient, config_of, field_of, input_regions
from .truth import REGIONS as CALCIUM
from .truth import TRUTH

OTHER = "other "
"""Before the names of --noncoronary-controls, so that no two scans have one name."""

SALIENCY_PATIENTS, SALIENCY_LEAST_AGATSTON = 12, 100.0
"""At most of how many held-out patients saliency is looked at; least score of such."""

REGIONS = "vessel_regions"


@dataclass(frozen=True)
class Known:
    """scans, noncoronary_controls: those that could be prepared. inputs: their files by field and name. failed: why
    others could not be, by name. digital: whether all are digital patients.
    """

    scans: Scans
    noncoronary_controls: Scans | None
    inputs: Mapping[str, Mapping[str, Path]]
    saliency_patients: tuple[SaliencyPatient, ...]
    failed: Mapping[str, str]
    digital: bool


def read_scans(
    table: Sequence[TableScan],
    noncoronary_controls: Sequence[TableScan],
    test: Sequence[str],
    budget: VesselBudget,
    cache: Path,
    workers: int | None,
    progress: Progress,
) -> Known:
    """Prepare all scans for all kinds of networks; done before, it is not done again. test: names of those held out.

    Raises CTError where none can be prepared.
    """
    from .fitting import heart_ml, prepare_vessels

    noncoronary_controls = [replace(scan, name=OTHER + scan.name) for scan in noncoronary_controls]
    fields = {
        field_of(config): config for config in (config_of(Configuration(kind), budget.preset) for kind in budget.kinds)
    }
    inputs: dict[str, dict[str, Path]] = {}
    failed: dict[str, str] = {}
    for name, config in fields.items():
        inputs[name] = {}
        for part in filter(None, (table, noncoronary_controls)):
            found = prepare_vessels(part, cache, config, workers, progress)
            inputs[name] |= found.files
            failed |= found.failed
    there = set.intersection(*(set(files) for files in inputs.values()))
    first = next(iter(inputs.values()))
    volumes = {name: heart_ml(first[name]) for name in there}
    known = [scan for scan in table if scan.name in there]
    shown = [
        scan
        for scan in known
        if scan.name in set(test) and scan.total >= SALIENCY_LEAST_AGATSTON and (scan.ct.parent / CALCIUM).is_file()
    ][:SALIENCY_PATIENTS]
    regions: dict[str, dict[str, Path]] = {}
    for name, config in fields.items() if shown else ():
        work = partial(input_regions, config=config)
        regions[name] = prepare(shown, cache, REGIONS, work, name, workers, progress).files
    saliency_patients = tuple(
        SaliencyPatient(
            scan.name, {name: files[scan.name] for name, files in regions.items()}, scan.ct.parent / CALCIUM
        )
        for scan in shown
        if all(scan.name in files for files in regions.values())
    )
    scans = scans_of(known, volumes)
    other = scans_of([scan for scan in noncoronary_controls if scan.name in there], volumes)
    digital = all((scan.ct.parent / TRUTH).is_file() for scan in (*table, *noncoronary_controls))
    return Known(scans, other if other.names else None, inputs, saliency_patients, failed, digital)


def scans_of(table: Sequence[TableScan], volumes_ml: Mapping[str, float]) -> Scans:
    """What the study knows of scans. volumes_ml: of their hearts, by name."""
    factors = [(*scan.factors[:2], volumes_ml[scan.name]) for scan in table]
    scores = [[scan.scores.get(artery, 0.0) for artery in ARTERIES] for scan in table]
    return Scans(
        tuple(scan.name for scan in table),
        tuple(scan.patient for scan in table),
        np.array(scores, float).reshape(-1, len(ARTERIES)),
        np.array(factors, float).reshape(-1, 3),
        tuple(_elsewhere(scan.ct.parent / TRUTH) for scan in table),
    )


def _elsewhere(truth: Path) -> tuple[str, ...] | None:
    """What calcium and metal that is not coronary a digital patient has; None of others."""
    try:
        found = json.loads(truth.read_text(encoding="utf-8"))["distractors"]
        return tuple(sorted({str(one["kind"]) for one in found}))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def data_section(known: Known, data: Data, with_contrast: int, failed: Sequence[Table]) -> Section:
    """Who learned, who was held out, who was left out. failed: tables of trainings that failed."""
    scans = known.scans
    learned = np.array([name for outside, inside in data.folds[:1] for name in (*outside, *inside)])
    parts = [("For training, cross-validated", scans.rows(learned)), ("Held out", scans.rows(data.test))]
    rows = []
    for title, own in parts:
        totals = scans.agatston[own].sum(1)
        rows.append((*score_counts(title, [scans.patients[n] for n in own], totals), float(np.median(totals))))
    if known.noncoronary_controls is not None:
        names, patients = known.noncoronary_controls.names, set(known.noncoronary_controls.patients)
        rows.append(
            ("Calcium elsewhere only (--noncoronary-controls)", len(patients), len(names), len(names), 0, 0, 0, 0.0)
        )
    columns = ("Scans", *SCORE_COLUMNS, "Median score")
    note = "By the true total. No held-out patient is used for training."
    tables = [Table("scans", "Scans by their score", columns, tuple(rows), note)]
    text = [
        f"{len(data.folds)} folds of the patients who were not held out. Held-out patients were used for no choice."
    ]
    if known.digital:
        text.append(
            "No real CT whose scores are known was available: nothing here was measured on one. The patients are "
            "simulated, and selected so that much calcium is common; the score of an artery is its true mass on the "
            "Agatston scale."
        )
    if with_contrast:
        text.append(f"{count(with_contrast, 'scan')} with a contrast agent were left out.")
    if known.failed:
        rows = tuple(sorted(known.failed.items()))
        tables.append(Table("left_out", "Scans that could not be read", ("Scan", "Why"), rows))
    return Section("data", "The scans", tuple(text), (*tables, *failed))
