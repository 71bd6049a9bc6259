"""Validation from one command: read a reference, score its scans, compare, and write the page of agreement.

The output folder keeps `scans` (as `cac cohort` writes them) and `compared.jsonl`, so that an interrupted run resumes.
"""

from __future__ import annotations

import datetime
import platform
import re
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from CACScoringLib.cohort.workers import sensible_count
from CACScoringLib.core.categories import CATEGORY_TITLES, category_numbers
from CACScoringLib.core.errors import CTError, TooFewError
from CACScoringLib.core.files import file_sha256
from CACScoringLib.core.progress import Progress
from CACScoringLib.core.tables import write_table
from CACScoringLib.core.text import abbreviated_list
from CACScoringLib.core.version import VERSION, core_count, processor_name
from CACScoringLib.models.cards import ModelCard, StoredModel
from CACScoringLib.models.choice import ModelChoice, chosen_models
from CACScoringLib.record.score_record import ScoreRecord, read_result
from CACScoringLib.scoring.uncertainty import TOTAL, ScoreCalibration

from ..evaluation.jobs import SCANS, JobSettings, make_folder, scored_folders
from ..evaluation.page import cell_text, facts_of, write_study
from ..evaluation.parts import METHODS, Cell, Section, TablePart, candidates_counted, count
from ..references.reference import Reference
from ..references.registry import read_reference
from . import agreement, before_after, recalibration, scan_sections
from .agreement import TEXTS, ComparedScans
from .comparison import RECORDS, compare_all
from .records import ComparedScan
from .scored_scan import SCORED_METHODS
from .settings import ValidationSettings

PAGE = "validation.html"
COMPARISON = "comparison.csv"
"""File in the output folder with the table of all scores."""

SEED = 0
"""Seed of the bootstrap."""


@dataclass(frozen=True)
class Validation:
    """Result of a validation.

    Attributes:
        page: Path of `validation.html`.
        scans: Compared scans.
        refused: Other scans, each with the reason.
        calibrated: Calibrated model that was stored, if any.
        verdicts: Sentences on the comparison with an earlier validation.
    """

    page: Path
    scans: tuple[ComparedScan, ...]
    refused: tuple[tuple[str, str], ...]
    calibrated: StoredModel | None = None
    verdicts: tuple[str, ...] = ()


def validate(settings: ValidationSettings, progress: Progress | None = None) -> Validation:
    """Score the scans of a reference and compare them with it.

    The page lists scans that cannot be read, scored or compared; they stop nothing.

    Raises:
        BadReferenceError: The reference cannot be used; nothing was written.
        TableError: The table of the reference cannot be read; nothing was written.
        OutputError: The output cannot be used.
        TooFewError: The scans do not suffice to calibrate; if detected after the comparison, the page is written.
        CTError: No scan could be compared, also with the earlier validation, or the model cannot be calibrated.
    """
    progress = progress or Progress()
    started = time.perf_counter()
    progress.begin(["reference", "scans", "comparison", "page"])
    with progress.step("reference"):
        choice = settings.use, settings.annotator, settings.columns
        reference = read_reference(settings.reference, settings.scans, progress.counted, *choice)
        models = ModelChoice(settings.model, device=settings.device)
        base = chosen_models(models).networks.get("decomposition")
        card = None if base is None else base.card
        if settings.calibrate is not None:
            patients = len({scan.patient for scan in reference.scans})
            recalibration.check(settings.calibrate, card, patients)
        former = None if settings.before is None else before_after.earlier_scans(settings.before / RECORDS)
    make_folder(settings.output)
    workers = settings.workers or sensible_count()
    with progress.step("scans"):
        options = (models, settings.workers, settings.overwrite, progress)
        folders = scored_folders(reference.scans, settings.output, *options)
    with progress.step("comparison"):
        work = JobSettings(workers, settings.device, progress)
        scans, refused = _compared(reference, folders, settings.output, work)
    if not scans:
        reasons = abbreviated_list(f"{name}: {why}" for name, why in refused)
        raise CTError(f"No scan of {settings.reference} could be scored and compared. {reasons}")
    with progress.step("page"):
        vessels = {v: arteries for v, arteries in reference.vessels.items() if any(v in scan.vessels for scan in scans)}
        compared = ComparedScans(scans, np.random.default_rng(SEED), vessels)
        _write_comparison(compared, settings.output / COMPARISON)
        records = {scan.name: read_result(settings.output / SCANS / scan.folder) for scan in scans}
        calibrated, failure = None, None
        calibration_parts: tuple[Section, ...] = ()
        if settings.calibrate is not None and base is not None:
            try:
                calibrated, calibration_parts = _calibrated(settings.calibrate, reference, compared, records, base)
            except TooFewError as error:
                failure, calibration_parts = error, (recalibration.refused_section(str(error)),)
        scores = {scan.name: scan.comparator for scan in reference.scans if scan.comparator is not None}
        raters = agreement.Raters(compared, scores, reference.layout, np.random.default_rng(SEED))
        figures = agreement.main_section(raters, reference.layout)
        sources = {scan.name: scan for scan in reference.scans}
        paired_parts = () if former is None else (before_after.section(former, compared, SEED),)
        parts = (
            _data_section(reference, compared, refused, card),
            figures,
            *paired_parts,
            *calibration_parts,
            *agreement.sections(compared),
            *scan_sections.group_sections(compared, raters, sources, records),
            *scan_sections.lesion_sections(compared, settings.output),
        )
        facts = {
            **source_facts(settings.reference, reference),
            "Methods": "; ".join(METHODS[key] for key in SCORED_METHODS if key in scans[0].values),
            "Scoring": f"{np.median([scan.facts.seconds for scan in scans]):.1f} s per scan (median) on one core",
            **facts_of((model for scan in scans for model in scan.facts.models), SEED, time.perf_counter() - started),
            **machine_facts(),
        }
        title = TEXTS.title.format(reference=reference.title)
        page = write_study(settings.output, title, parts, facts, digital=False, page_name=PAGE)
        write_figures(settings.output, figures.tables[:2], _denominator(scans, refused))
    if failure is not None:
        raise failure
    verdicts = tuple(sentence for part in paired_parts for sentence in part.text[:-1])
    return Validation(page, tuple(scans), tuple(refused), calibrated, verdicts)


def _calibrated(
    name: str,
    reference: Reference,
    compared: ComparedScans,
    records: Mapping[str, ScoreRecord],
    base: StoredModel,
) -> tuple[StoredModel, tuple[Section, ...]]:
    """Calibrate and store a model; return it with the section about it. Raises TooFewError, ModelError."""
    cases = [recalibration.Case(scan, records[scan.name]) for scan in compared.scans]
    result = recalibration.recalibrate(cases, base.card)
    section = recalibration.section(result, name, base.card.name)
    return recalibration.store(result, base, name, reference.title), (section,)


def _compared(
    reference: Reference, folders: Sequence[Path | str], output: Path, work: JobSettings
) -> tuple[list[ComparedScan], list[tuple[str, str]]]:
    """Compare the scans; return those with a reference, and the other scans with the reason."""
    scans, refused = list[ComparedScan](), list(reference.refused)
    outcomes = compare_all(reference, folders, output, work, pictures=True)
    for scan, outcome in zip(reference.scans, outcomes, strict=True):
        if isinstance(outcome, str):
            refused.append((scan.name, outcome))
        elif outcome.total is None:
            refused.append((scan.name, "It has no regions, and its labels do not exclude calcium."))
        else:
            scans.append(outcome)
    return scans, refused


def _write_comparison(compared: ComparedScans, path: Path) -> None:
    columns = ["scan", "patient", "reference", *(f"reference_{vessel}" for vessel in compared.vessels)]
    for method in compared.methods:
        columns += [method, *(f"{method}_{vessel}" for vessel in compared.vessels)]
    rows = []
    for scan in compared.scans:
        row: list[object] = [scan.name, scan.patient, scan.total, *map(scan.vessels.get, compared.vessels)]
        for method in compared.methods:
            row += [scan.measured(method, arteries) for arteries in ((TOTAL,), *compared.vessels.values())]
        rows.append([*row, scan.facts.seconds, " ".join(scan.facts.warnings)])
    write_table(path, [*columns, "seconds", "warnings"], rows, guarded=True)


def _denominator(scans: Sequence[ComparedScan], refused: Sequence[tuple[str, str]]) -> str:
    return f"{len(scans)} of {count(len(scans) + len(refused), 'scan')} of the reference"


def _data_section(
    reference: Reference, compared: ComparedScans, refused: Sequence[tuple[str, str]], card: ModelCard | None
) -> Section:
    """Section on the reference; card is that of the calcium map's model."""
    scans = compared.scans
    source = None if card is None else card.calibration_as(ScoreCalibration).calibrated_on
    patients = count({scan.patient for scan in scans}, "patient")
    title, note = TEXTS.texts("data", scans=_denominator(scans, refused), patients=patients)
    text = [
        reference.about,
        note,
        *candidates_counted(sum(scan.facts.calibration is None for scan in scans), len(scans)),
    ]
    if card is not None and source is not None:
        text.append(
            f"The model {card.name} was calibrated on {source}. If these scans are among them, everything below is "
            "better than it would be on others."
        )
    counts = Counter(CATEGORY_TITLES[n] for n in category_numbers(np.array([scan.reference_total for scan in scans])))
    rows = tuple((name, counts[name]) for name in CATEGORY_TITLES)
    doubts = Counter(code for scan in scans for code in scan.facts.warnings).most_common()
    tables = (
        TEXTS.table("reference", ("Agatston score", "Scans"), rows),
        *([TEXTS.table("refused", ("Scan", "Why"), refused)] if refused else []),
        *([TEXTS.table("doubts", ("Warning", "Scans"), doubts)] if doubts else []),
    )
    return Section("data", title, tuple(text), tables)


FIGURES = "results/figures.csv"
"""Table of the main figures in the form of those in docs/results, to which maintainers add it."""


def write_figures(folder: Path, tables: Sequence[TablePart], count: str) -> None:
    """Write the table of the main figures.

    Args:
        folder: Folder of the validation.
        tables: The main figures, in tables of the same columns.
        count: Number of scans compared, of how many.
    """
    (folder / FIGURES).parent.mkdir(parents=True, exist_ok=True)
    titles = ("quantity", *tables[0].columns[1:], "data", "date", "version")
    facts = (count, datetime.date.today().isoformat(), VERSION)
    rows = [(row[0], *map(_short, row[1:]), *facts) for table in tables for row in table.rows]
    write_table(folder / FIGURES, titles, rows, guarded=True)


def source_facts(file: Path, reference: Reference) -> dict[str, str]:
    """Return the reference with its SHA-256, if it is a file."""
    stated = f"{file.name}: {reference.title}"
    if file.is_file():
        published, digest = reference.layout.sha256, file_sha256(file)
        source = "" if not published else " as published" if digest == published else ", not the published file"
        stated += f", SHA-256 {digest}{source}"
    return {"Reference": stated}


def machine_facts() -> dict[str, str]:
    """Return the versions and the machine."""
    return {
        "Program": f"CAC {VERSION}, Python {platform.python_version()}",
        "Machine": f"{processor_name()}, {core_count()} cores, {platform.system()}",
    }


def _short(cell: Cell) -> str:
    """Return a figure as in the documentation: without n, and without the zero before the point."""
    return re.sub(r"\b0(?=\.\d)", "", re.sub(r", n = [\d,]+$", "", cell_text(cell)))
