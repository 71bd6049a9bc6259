"""Study of scan pairs from one command: score them, record each, and write the results.

The output folder keeps `scans` (as `cac cohort` writes them) and `compared.jsonl`, so that an interrupted study
resumes, and writing its page again scores nothing.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from CACScoringLib.cohort.folder import TABLE
from CACScoringLib.cohort.workers import sensible_count
from CACScoringLib.core.errors import CTError, TableError
from CACScoringLib.core.progress import Progress
from CACScoringLib.core.tables import read_table
from CACScoringLib.core.text import abbreviated_list, counted
from CACScoringLib.models.choice import ModelChoice

from ..evaluation.jobs import JobSettings, make_folder, scored_folders
from ..evaluation.page import facts_of, write_study
from ..evaluation.parts import Section, candidates_counted
from ..references.annotated import lone_patients
from ..references.reference import Reference, ReferenceScan
from ..references.registry import read_study
from . import ablation, detection, reproducibility
from .comparison import compare_all
from .records import ComparedScan, refused
from .reproducibility import store_limits
from .sample import TEXTS, all_scores
from .scoring import scoring_models

SCAN_STUDIES = ("reproducibility", "detection", "heart", "ablation")
"""All studies of `evaluate`."""

WITHOUT_MAP = "It was scored by the clinical rule alone. Score it with the networks, as cac evaluate does."

ON_RECORDS = {
    "reproducibility": reproducibility.sections,
    "detection": detection.sections,
    "heart": detection.heart_sections,
}


@dataclass(frozen=True)
class EvaluationSettings:
    """Settings of `cac evaluate`.

    Attributes:
        studies: Names of the studies.
        output: Output folder.
        data: Cohort, table of pairs, project or another reference (`registry.read_study`).
        results: Folder of `cac cohort` with results to use instead of scoring.
        pairs: Number of pairs, from the first; None for all.
        models: Models to score with.
        workers: Number of processes; None for as many as fit.
        overwrite: True to score again.
        seed: Seed of the bootstrap.
        ablation_pairs: Number of pairs that the ablation study scores, from the first.
        use: Use of a project's scans.
        annotator: Annotator of a project's scans.
        store_limits: Store the repeatability coefficient for `cac compare` with the calcium map's model: True for the
            installed model that was used, or the path of a card.
    """

    studies: tuple[str, ...]
    output: Path
    data: Path
    results: Path | None = None
    pairs: int | None = None
    models: ModelChoice = field(default_factory=ModelChoice)
    workers: int | None = None
    overwrite: bool = False
    seed: int = 0
    ablation_pairs: int = 30
    use: str | None = None
    annotator: str | None = None
    store_limits: bool | Path = False

    def __post_init__(self) -> None:
        if self.ablation_pairs < 1:
            raise CTError(f"The ablation needs at least one pair; ablation_pairs is {self.ablation_pairs}.")


@dataclass(frozen=True)
class Evaluation:
    """Result of an evaluation.

    Attributes:
        page: Path of `study.html`.
        records: Records of all scans.
        limits: Card that the repeatability coefficient was stored on, if any.
    """

    page: Path
    records: tuple[ComparedScan, ...]
    limits: Path | None = None


def evaluate(settings: EvaluationSettings, progress: Progress | None = None) -> Evaluation:
    """Run the studies. The page lists scans that cannot be scored or compared; they stop nothing.

    Raises:
        CTError: There is nothing to study.
        OutputError: The output cannot be used.
        CTError: A model cannot be used.
    """
    progress = progress or Progress()
    started = time.perf_counter()
    work = JobSettings(settings.workers or sensible_count(), settings.models.device, progress)
    progress.begin(["scans", "records", *settings.studies, "page"])
    make_folder(settings.output)
    reference, records, sections = _scored(settings, work)
    for study in settings.studies:
        with progress.step(study):
            sections += _sections(study, settings, reference.scans, records, work)
    with progress.step("page"):
        digital = all(scan.truth is not None for scan in reference.scans)
        name = f": {settings.studies[0]}" if len(settings.studies) == 1 else ""
        models = (model for record in records for model in record.facts.models)
        seconds = time.perf_counter() - started
        facts = {"Data": f"{settings.data}, {len(records)} scans", **facts_of(models, settings.seed, seconds)}
        title = f"{TEXTS.title}{name}"
        page = write_study(settings.output, title, sections, facts, digital)
    card = settings.store_limits
    limits_card = store_limits(records, card if isinstance(card, Path) else None) if card else None
    return Evaluation(page, tuple(records), limits_card)


def _scored(settings: EvaluationSettings, work: JobSettings) -> tuple[Reference, list[ComparedScan], list[Section]]:
    """Find, score and compare the scans; return them with their records, and the page's first section."""
    reference = read_study(settings.data, settings.pairs, settings.use, settings.annotator)
    scans = reference.scans
    with work.progress.step("scans"):
        if settings.results is not None:
            folders = _earlier_results(scans, settings.results)
        else:
            grouped = [replace(scan, group=f"scan {scan.number}") for scan in scans]
            options = (settings.models, settings.workers, settings.overwrite, work.progress)
            folders = scored_folders(grouped, settings.output, *options)
    with work.progress.step("records"):
        outcomes = compare_all(reference, folders, settings.output, work)
        records = [usable(scan, outcome) for scan, outcome in zip(scans, outcomes, strict=True)]
    return reference, records, [_data_section(reference, records)]


def usable(scan: ReferenceScan, outcome: ComparedScan | str) -> ComparedScan:
    """Return the record of a scan, which says so if the scan has no scores to study."""
    if isinstance(outcome, str):
        return refused(scan, outcome)
    return outcome if "map" in outcome.values else refused(scan, WITHOUT_MAP)


def _sections(
    study: str,
    settings: EvaluationSettings,
    scans: Sequence[ReferenceScan],
    records: Sequence[ComparedScan],
    work: JobSettings,
) -> tuple[Section, ...]:
    generator = np.random.default_rng(settings.seed)
    if study in ON_RECORDS:
        return ON_RECORDS[study](records, generator)
    models = scoring_models(settings.models)
    return ablation.sections(scans, records, settings.output / study, settings.ablation_pairs, models, work, generator)


def _earlier_results(scans: Sequence[ReferenceScan], folder: Path) -> list[Path | str]:
    """Find each scan's results in a folder of `cac cohort`, by its CT; else the reason why it has none."""
    try:
        lines = read_table(folder / TABLE, ("ct", "state", "reason", "folder")).lines
    except TableError as error:
        raise CTError(f"{folder} is not a results folder of cac cohort ({error}). Leave --results out.") from error
    folders: list[Path | str] = []
    for scan in scans:
        matches = [line for line in lines if Path(line.text("ct")).resolve() == scan.ct.resolve()]
        if len(matches) != 1:
            folders.append(f"{folder} holds {len(matches)} results of {scan.ct}; there should be one.")
        elif matches[0].text("state") != "done":
            folders.append(matches[0].text("reason") or f"It is not scored in {folder}.")
        else:
            folders.append(folder / matches[0].text("folder"))
    return folders


_KINDS = {
    "visible": "Coronary calcium shows in some slice",
    "hidden": "Coronary calcium that no slice shows",
    "distractor": "Calcium or metal, but none in the coronary arteries",
    "clean": "No calcium",
    None: "No coronary calcium annotated, or nothing known",
}


def _data_section(reference: Reference, records: Sequence[ComparedScan]) -> Section:
    scans = reference.scans
    scored = [record for record in records if record.refused is None]
    text = [
        f"{counted(len(scans), 'scan')} of {counted(len({scan.patient for scan in scans}), 'patient')}; "
        f"{counted(len(scored), 'scan')} could be scored "
        f"and compared, and {len(records) - len(scored)} could not.",
        *candidates_counted(sum(r.facts.candidate_evidence is None for r in scored), len(scored)),
        reference.about,
    ]
    for title, names in (
        ("Patients with one scan only, who are in no pair", lone_patients(scans)),
        ("Left out or questionable", [": ".join(item) for item in reference.refused]),
    ):
        if names:
            text.append(f"{title} ({len(names)}): {abbreviated_list(names)}")
    kinds = Counter(record.kind for record in scored)
    rows = tuple((title, kinds[kind]) for kind, title in _KINDS.items() if kinds[kind])
    doubts = Counter(warning for record in scored for warning in record.warnings).most_common()
    refusals = [(record.name, record.refused) for record in records if record.refused is not None]
    tables = (
        TEXTS.table("scans", ("Scans", "Number"), rows),
        *([TEXTS.table("refused_scans", ("Scan", "Why"), refusals)] if refusals else []),
        *([TEXTS.table("doubtful_scans", ("What", "Scans"), doubts)] if doubts else []),
    )
    return Section("data", "The scans", tuple(text), tables, values=(all_scores(scored),))
