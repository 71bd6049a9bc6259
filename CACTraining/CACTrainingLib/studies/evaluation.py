"""A study of scan pairs from one command: scores them, keeps what is known of each, and writes the results.

What takes long is kept in the output folder: `scans` (as `cac cohort` writes them) and `records.jsonl`, so that a study
that was interrupted goes on, and remaking its page scores nothing again.
"""

from __future__ import annotations

import datetime
import hashlib
import json
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from CACScoringLib.cohort.folder import TABLE
from CACScoringLib.cohort.workers import sensible_count
from CACScoringLib.core.output import LAST_FILE
from CACScoringLib.core.progress import Progress
from CACScoringLib.core.tables import TableError, read_table
from CACScoringLib.run import ModelChoice, chosen_models

from ..experiments.errors import StudyError
from ..experiments.jobs import JobSettings, kept_jobs
from ..experiments.scored import make_folder, scored_folders
from ..project.project import is_project
from ..report.page import write_study
from ..report.parts import Section, Table, candidates_counted
from ..statistics.bootstrap import RESAMPLES
from . import ablation_study, detection, goals, reproducibility
from . import acquisition as acquisition_study
from . import heart as heart_study
from .ablation import AblationSettings
from .acquisition import AcquisitionSettings
from .project_scans import DEFAULT_USE, project_notes
from .records import StudyRecord, from_json, models_of
from .scans import find_study_scans, lone_patients, write_scan_table
from .study_scan import StudyScan
from .truth import recorder, refused

RECORDS, SCAN_TABLE = "records.jsonl", "scans.csv"
"""In the output folder, beside SCANS: what is known of each scan, and which scans there are."""

RECORDS_VERSION = 2
"""Of how records are made; others are made anew."""

ON_RECORDS = {
    "reproducibility": reproducibility.sections,
    "detection": detection.sections,
    "heart": heart_study.sections,
}
STUDIES = (*ON_RECORDS, "ablation", "acquisition")


@dataclass(frozen=True)
class EvaluationSettings:
    """studies: of STUDIES. data: cohort, table of pairs or project (`studies.scans`); "acquisition" alone needs none.

    use, annotator: of a project, which scans and whose annotations (`studies.project_scans`).
    results: folder of `cac cohort` with the scans' results, instead of scoring them. pairs: only the first ones.
    workers: processes at work, None for as many as fit. overwrite: score anew, whatever was there.
    seed: of the bootstrap.
    """

    studies: tuple[str, ...]
    output: Path
    data: Path | None = None
    results: Path | None = None
    pairs: int | None = None
    models: ModelChoice = field(default_factory=ModelChoice)
    workers: int | None = None
    overwrite: bool = False
    seed: int = 0
    ablation: AblationSettings = field(default_factory=AblationSettings)
    acquisition: AcquisitionSettings = field(default_factory=AcquisitionSettings)
    use: str | None = None
    annotator: str | None = None


@dataclass(frozen=True)
class Evaluation:
    """page: `study.html`. records: of all scans."""

    page: Path
    records: tuple[StudyRecord, ...]


def evaluate(settings: EvaluationSettings, progress: Progress | None = None) -> Evaluation:
    """Make the studies.

    Raises StudyError when there is nothing to study, OutputError when the output cannot be used, and other CTErrors of
    models. A scan that cannot be scored or compared is said in the page and stops nothing.
    """
    progress = progress or Progress()
    started = time.perf_counter()
    on_scans = [study for study in settings.studies if study != "acquisition"]
    if on_scans and settings.data is None:
        raise StudyError(
            f"The study of {on_scans[0]} needs scan pairs. Give a cohort, or a table of pairs, with --data."
        )
    work = JobSettings(settings.workers or sensible_count(), settings.models.device, progress)
    progress.begin([*(("scans", "records") if on_scans else ()), *settings.studies, "page"])
    make_folder(settings.output)
    scans, records, sections = _scans_and_records(settings, work) if on_scans else ([], [], [])
    for study in settings.studies:
        with progress.step(study):
            sections += _sections(study, settings, scans, records, work)
    with progress.step("page"):
        digital = all(scan.truth is not None for scan in scans)
        facts = _facts(settings, records, work.workers, time.perf_counter() - started)
        page = write_study(settings.output, _title(settings.studies), sections, facts, digital)
    return Evaluation(page, tuple(records))


def _scans_and_records(
    settings: EvaluationSettings, work: JobSettings
) -> tuple[list[StudyScan], list[StudyRecord], list[Section]]:
    """What there is to study, and the sections that open the page."""
    scans, warnings = find_study_scans(settings.data, settings.pairs, settings.use, settings.annotator)
    with work.progress.step("scans"):
        folders = _results(scans, settings, work)
    with work.progress.step("records"):
        records = _records(scans, folders, settings.output / RECORDS, work)
    notes = project_notes(settings.data, settings.use or DEFAULT_USE, scans) if is_project(settings.data) else []
    opening = [_data_section(scans, records, notes, warnings)]
    if {"reproducibility", "detection"} <= set(settings.studies):
        opening = [*goals.sections(records, np.random.default_rng(settings.seed)), *opening]
    return scans, records, opening


def _sections(
    study: str,
    settings: EvaluationSettings,
    scans: Sequence[StudyScan],
    records: Sequence[StudyRecord],
    work: JobSettings,
) -> tuple[Section, ...]:
    generator = np.random.default_rng(settings.seed)
    if study in ON_RECORDS:
        return ON_RECORDS[study](records, generator)
    models = chosen_models(settings.models).networks
    if not models:
        raise StudyError(f"The study of {study} needs the networks, which are not installed (cac models list).")
    place = settings.output / study
    if study == "ablation":
        return ablation_study.sections(scans, records, place, settings.ablation, models, work, generator)
    return acquisition_study.sections(place, settings.acquisition, models, work)


def _results(scans: Sequence[StudyScan], settings: EvaluationSettings, work: JobSettings) -> list[Path | str]:
    """Of each scan the folder of its results, or why it has none."""
    if settings.results is not None:
        return _found_results(scans, settings.results)
    table = settings.output / SCAN_TABLE
    write_scan_table(scans, table)
    how = (settings.models, settings.workers, settings.overwrite, work.progress)
    return scored_folders(table, settings.output, *how)


def _found_results(scans: Sequence[StudyScan], folder: Path) -> list[Path | str]:
    """Results of an earlier `cac cohort`, found by the scans' CT."""
    try:
        lines = read_table(folder / TABLE, ("ct", "state", "reason", "folder")).lines
    except TableError as error:
        raise StudyError(f"{folder} is not a results folder of cac cohort ({error}). Leave --results out.") from error
    places = [(Path(line.text("ct")).resolve(), line) for line in lines]
    found: list[Path | str] = []
    for scan in scans:
        own = [line for place, line in places if place == scan.ct.resolve()]
        if len(own) != 1:
            found.append(f"{folder} holds {len(own)} results of {scan.ct}; there should be one.")
        elif own[0].text("state") != "done":
            found.append(own[0].text("reason") or f"It is not scored in {folder}.")
        else:
            found.append(folder / own[0].text("folder"))
    return found


def _records(
    scans: Sequence[StudyScan], folders: Sequence[Path | str], file: Path, work: JobSettings
) -> list[StudyRecord]:
    """The record of each scan; those that are kept are made anew only where the scan's results or truth changed."""
    keys = [_key(scan, place) for scan, place in zip(scans, folders, strict=True)]
    jobs = {key: (scan, place) for key, scan, place in zip(keys, scans, folders, strict=True) if key}
    done, failed = kept_jobs(jobs, file, recorder, work)
    records = []
    for key, scan, place in zip(keys, scans, folders, strict=True):
        if key in done:
            records.append(from_json(done[key]))
        else:
            records.append(refused(scan, failed[key] if key else str(place)))
    return records


def _key(scan: StudyScan, folder: Path | str) -> str | None:
    if isinstance(folder, str):
        return None
    said = [scan.labels, scan.labelled_whole] if scan.labels is not None else []
    files = [folder / LAST_FILE, scan.heart, scan.lesions, scan.truth and scan.truth / "truth.json"]
    stamps = [(str(path), path.stat().st_mtime_ns) for path in files if path is not None and path.exists()]
    content = json.dumps([RECORDS_VERSION, scan.number, scan.patient, stamps, *said])
    digest = hashlib.sha256(content.encode()).hexdigest()
    return f"{scan.name} {digest[:16]}"


_KINDS = {
    "visible": "Coronary calcium shows in some slice",
    "hidden": "Coronary calcium that no slice shows",
    "distractor": "Calcium or metal, but none in the coronary arteries",
    "clean": "No calcium",
    None: "No coronary calcium annotated, or nothing known",
}


def _data_section(
    scans: Sequence[StudyScan], records: Sequence[StudyRecord], notes: Sequence[str], warnings: Sequence[str]
) -> Section:
    scored = [record for record in records if record.refused is None]
    patients = {scan.patient for scan in scans}
    lone = lone_patients(scans)
    text = [
        f"{len(scans)} scans of {len(patients)} patients; {len(scored)} scans could be scored and compared, and "
        f"{len(records) - len(scored)} could not.",
        *candidates_counted(sum(r.acquisition.get("candidate_evidence") is None for r in scored), len(scored)),
        *notes,
    ]
    if lone:
        text.append(
            f"For {len(lone)} patients there is only one scan: {_some(lone)}. These are included in analyses of "
            "single scans, not of pairs."
        )
    if warnings:
        more = f" {len(warnings) - 5} more are not named." if len(warnings) > 5 else ""
        text.append(f"Left out or questionable ({len(warnings)}): {' '.join(warnings[:5])}{more}")
    kinds = Counter(record.kind for record in scored)
    rows = [(title, kinds[kind]) for kind, title in _KINDS.items() if kinds[kind]]
    tables = [Table("scans", "Calcium in the scans", ("Scans", "Number"), tuple(rows))]
    refusals = [(record.scan, record.refused) for record in records if record.refused is not None]
    if refusals:
        tables.append(Table("refused_scans", "Scans that are left out", ("Scan", "Why"), tuple(refusals)))
    reasons = Counter(warning for record in scored for warning in record.warnings)
    if reasons:
        rows = tuple(reasons.most_common())
        tables.append(
            Table("doubtful_scans", "Parts of included scans that could not be read", ("What", "Scans"), rows)
        )
    return Section("data", "The scans", tuple(text), tuple(tables))


def _some(names: Sequence[str], most: int = 10) -> str:
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more} more" if more > 0 else "")


def _title(studies: Sequence[str]) -> str:
    return "Scan–rescan study of coronary calcium" + (f": {studies[0]}" if len(studies) == 1 else "")


def _facts(
    settings: EvaluationSettings, records: Sequence[StudyRecord], workers: int, seconds: float
) -> dict[str, str]:
    facts = {"Date": datetime.date.today().isoformat()}
    if settings.data is not None:
        facts["Data"] = f"{settings.data}, {len(records)} scans"
    named = sorted({f"{m['network']}: {m['name']}, SHA-256 {m['sha256'][:16]}" for r in records for m in models_of(r)})
    if named:
        facts["Models"] = "; ".join(named)
    own = [float(record.acquisition["seconds"]) for record in records if "seconds" in record.acquisition]
    if own:
        facts["Scoring"] = f"{np.median(own):.1f} s a scan (median) on one core"
    facts["Bootstrap"] = f"seed {settings.seed}, {RESAMPLES} resamples of patients"
    facts["This run"] = f"{seconds:.0f} s with {workers} processes, not counting what earlier runs had stored"
    return facts
