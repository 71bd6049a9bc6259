"""The study of accuracy: scores against those of a reference, beside another program, and before another model.

It can also calibrate scoring on the compared scans (`recalibration`).
"""

from __future__ import annotations

import datetime
import platform
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from CACScoringLib.core.categories import CATEGORY_TITLES, category_numbers
from CACScoringLib.core.errors import CTError, TooFewError
from CACScoringLib.core.files import file_sha256
from CACScoringLib.core.tables import write_table
from CACScoringLib.core.text import abbreviated_list
from CACScoringLib.core.version import VERSION, core_count, processor_name
from CACScoringLib.models.cards import StoredModel
from CACScoringLib.models.choice import ModelChoice, chosen_models
from CACScoringLib.record.score_record import ScoreRecord, read_result
from CACScoringLib.scoring.uncertainty import TOTAL, ScoreCalibration

from ..evaluation.page import cell_text
from ..evaluation.parts import METHODS, Cell, Section, TablePart, count
from ..references.reference import Reference
from . import agreement, recalibration, scan_sections
from .agreement import TEXTS
from .comparison import RECORDS
from .records import ComparedScan, ComparedScans
from .scored_scan import SCORED_METHODS

COMPARISON = "comparison.csv"
"""File in the output folder with the table of all scores."""

FIGURES = "results/figures.csv"
"""Table of the main figures in the form of those in docs/results, to which maintainers add it."""

NO_REFERENCE = "It has no regions, and its labels do not exclude calcium."


@dataclass(frozen=True)
class Accuracy:
    """The study of accuracy of compared scans.

    Attributes:
        scans: Scans with a reference score.
        refused: Other scans, each with the reason.
        sections: Sections of the page.
        facts: Lines at the end of the page.
        calibrated: Calibrated model that was stored, if any.
        verdicts: Sentences on the comparison with an earlier evaluation.
        failure: Error to raise once the page is written; None without one.
    """

    scans: tuple[ComparedScan, ...]
    refused: tuple[tuple[str, str], ...]
    sections: tuple[Section, ...]
    facts: Mapping[str, str] = field(default_factory=dict)
    calibrated: StoredModel | None = None
    verdicts: tuple[str, ...] = ()
    failure: CTError | None = None


class AccuracyStudy:
    """What a study of accuracy compares with. Raises CTError if that cannot be used, before anything is scored.

    Args:
        source: File or folder of the reference.
        reference: The reference.
        models: Models that score.
        calibrate: Name of the calibrated model to store; None for none.
        before: Output of an earlier evaluation by other models; None for none.
        seed: Seed of the bootstrap.
    """

    def __init__(
        self,
        source: Path,
        reference: Reference,
        models: ModelChoice,
        calibrate: str | None,
        before: Path | None,
        seed: int,
    ) -> None:
        self._source, self._reference, self._calibrate, self._seed = source, reference, calibrate, seed
        self._base = chosen_models(models).networks.get("decomposition")
        if calibrate is not None:
            card = None if self._base is None else self._base.card
            recalibration.check(calibrate, card, len({scan.patient for scan in reference.scans}))
        self._former = None if before is None else agreement.earlier_scans(before / RECORDS)

    def carry_out(self, records: Sequence[ComparedScan], folders: Mapping[str, Path], output: Path) -> Accuracy:
        """Compare scores, write COMPARISON and FIGURES, and calibrate if asked to.

        Args:
            records: Records of all scans of the reference.
            folders: Folder of results by name of the scan.
            output: Output folder of the evaluation.

        Raises:
            CTError: The earlier evaluation has none of these scans, or the model cannot be calibrated.
        """
        reference = self._reference
        scans, refused = with_reference(reference, records)
        if not scans:
            reasons = abbreviated_list(f"{name}: {why}" for name, why in refused)
            nothing = CTError(f"No scan has both a score and a reference score. {reasons}")
            section = Section("reference", TEXTS.parts["data"].title, (str(nothing),))
            return Accuracy((), tuple(refused), (section,), failure=nothing)
        vessels = {v: arteries for v, arteries in reference.vessels.items() if any(v in scan.vessels for scan in scans)}
        compared = ComparedScans(scans, np.random.default_rng(self._seed), vessels)
        _write_comparison(compared, output / COMPARISON)
        results = {scan.name: read_result(folders[scan.name]) for scan in scans}
        calibrated: StoredModel | None = None
        failure: CTError | None = None
        calibration_parts: tuple[Section, ...] = ()
        if self._calibrate is not None and self._base is not None:
            try:
                calibrated, calibration_parts = self._calibrated(self._calibrate, compared, results, self._base)
            except TooFewError as error:
                failure, calibration_parts = error, (recalibration.refused_section(str(error)),)
        scores = {scan.name: scan.comparator for scan in reference.scans if scan.comparator is not None}
        raters = agreement.Raters(compared, scores, reference.layout, np.random.default_rng(self._seed))
        figures = agreement.main_section(raters, reference.layout)
        write_figures(output, figures.tables[:2], _denominator(scans, refused))
        sources = {scan.name: scan for scan in reference.scans}
        paired = () if self._former is None else (agreement.before_after_section(self._former, compared, self._seed),)
        links = scan_sections.report_links(folders, output)
        parts = (
            self._reference_section(compared, refused),
            figures,
            *paired,
            *calibration_parts,
            *agreement.sections(compared),
            *scan_sections.group_sections(compared, raters, sources, results, links),
            *scan_sections.lesion_sections(compared, output, links),
        )
        facts = {
            **source_facts(self._source, reference),
            "Methods": "; ".join(METHODS[key] for key in SCORED_METHODS if key in scans[0].values),
            "Scoring": f"{np.median([scan.facts.seconds for scan in scans]):.1f} s per scan (median) on one core",
            **machine_facts(),
        }
        verdicts = tuple(sentence for part in paired for sentence in part.text[:-1])
        return Accuracy(tuple(scans), tuple(refused), parts, facts, calibrated, verdicts, failure)

    def _calibrated(
        self, name: str, compared: ComparedScans, results: Mapping[str, ScoreRecord], base: StoredModel
    ) -> tuple[StoredModel, tuple[Section, ...]]:
        """Calibrate and store a model; return it with the section about it. Raises TooFewError, ModelError."""
        cases = [recalibration.Case(scan, results[scan.name]) for scan in compared.scans]
        result = recalibration.recalibrate(cases, base.card)
        section = recalibration.section(result, name, base.card.name)
        return recalibration.store(result, base, name, self._reference.title), (section,)

    def _reference_section(self, compared: ComparedScans, refused: Sequence[tuple[str, str]]) -> Section:
        scans, card = compared.scans, None if self._base is None else self._base.card
        source = None if card is None else card.calibration_as(ScoreCalibration).calibrated_on
        patients = count({scan.patient for scan in scans}, "patient")
        title, note = TEXTS.texts("data", scans=_denominator(scans, refused), patients=patients)
        text = [note]
        if card is not None and source is not None:
            text.append(
                f"The model {card.name} was calibrated on {source}. If these scans are among them, everything below is "
                "better than it would be on others."
            )
        numbers = category_numbers(np.array([scan.reference_total for scan in scans]))
        counts = Counter(CATEGORY_TITLES[n] for n in numbers)
        rows = tuple((name, counts[name]) for name in CATEGORY_TITLES)
        doubts = Counter(code for scan in scans for code in scan.facts.warnings).most_common()
        tables = (
            TEXTS.table("reference", ("Agatston score", "Scans"), rows),
            *([TEXTS.table("refused", ("Scan", "Why"), refused)] if refused else []),
            *([TEXTS.table("doubts", ("Warning", "Scans"), doubts)] if doubts else []),
        )
        return Section("reference", title, tuple(text), tables)


def with_reference(
    reference: Reference, records: Sequence[ComparedScan]
) -> tuple[list[ComparedScan], list[tuple[str, str]]]:
    """Return the scans with a score and a reference score, and the other scans with the reason."""
    scans, refused = list[ComparedScan](), list(reference.refused)
    for record in records:
        if record.refused is not None:
            refused.append((record.name, record.refused))
        elif record.total is None:
            refused.append((record.name, NO_REFERENCE))
        else:
            scans.append(record)
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


def write_figures(folder: Path, tables: Sequence[TablePart], count: str) -> None:
    """Write the table of the main figures.

    Args:
        folder: Output folder of the evaluation.
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
