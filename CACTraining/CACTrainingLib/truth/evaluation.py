"""Studies of scored scans from one command: score scans that have no result, compare each, and write the results.

All studies read one table, the `ComparedScan` of each scan. The output folder keeps `scans` (as `cac cohort` writes
them) and `compared.jsonl`, so that an interrupted study resumes, and writing its page again scores nothing.
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
from CACScoringLib.core.tables import Line, read_table
from CACScoringLib.core.text import abbreviated_list, counted
from CACScoringLib.models.choice import ModelChoice

from ..evaluation.jobs import JobSettings, make_folder, scored_folders
from ..evaluation.page import facts_of, write_study
from ..evaluation.parts import Section, candidates_counted
from ..references.annotated import lone_patients
from ..references.reference import Reference, ReferenceScan
from ..references.registry import read_study
from . import ablation, agreement, detection, reproducibility
from .accuracy import Accuracy, AccuracyStudy
from .comparison import compare_all
from .records import TEXTS, ComparedScan, all_scores, refused
from .reproducibility import store_limits

SCAN_STUDIES = ("accuracy", "reproducibility", "detection", "heart", "ablation")
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
        results: Folder of `cac cohort` with results; scans that it does not list are scored.
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
        scans: Folder of the scans, for references that name them by an id.
        columns: Columns of a table by their meaning, as of --columns.
        calibrate: Name of the model to store, calibrated on these scans; None for none. For the study of accuracy.
        before: Output of an earlier evaluation by other models to compare with. For the study of accuracy.
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
    scans: Path | None = None
    columns: str | None = None
    calibrate: str | None = None
    before: Path | None = None

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
        accuracy: The study of accuracy; None if it is not among the studies.
    """

    page: Path
    records: tuple[ComparedScan, ...]
    limits: Path | None = None
    accuracy: Accuracy | None = None


def evaluate(settings: EvaluationSettings, progress: Progress | None = None) -> Evaluation:
    """Run the studies. The page lists scans that cannot be scored or compared; they stop nothing.

    Raises:
        BadReferenceError: The reference cannot be used; nothing was written.
        TableError: The table of the reference cannot be read; nothing was written.
        OutputError: The output cannot be used.
        TooFewError: The scans do not suffice to calibrate; if detected after the comparison, the page is written.
        CTError: There is nothing to study, or a model cannot be used; of a study of accuracy alone also if no scan has
            both scores, with the page written.
    """
    progress = progress or Progress()
    started = time.perf_counter()
    work = JobSettings(settings.workers or sensible_count(), settings.models.device, progress)
    progress.begin(["reference", "scans", "records", *settings.studies, "page"])
    with progress.step("reference"):
        reference = read_study(
            settings.data,
            settings.pairs,
            settings.use,
            settings.annotator,
            settings.scans,
            settings.columns,
            progress.counted,
        )
        about = settings.data, reference, settings.models, settings.calibrate, settings.before, settings.seed
        study_of_accuracy = AccuracyStudy(*about) if "accuracy" in settings.studies else None
    make_folder(settings.output)
    records, folders = _compared(settings, reference, work)
    sections, accuracy = [_data_section(reference, records, settings.studies)], None
    for study in settings.studies:
        with progress.step(study):
            if study == "accuracy" and study_of_accuracy is not None:
                accuracy = study_of_accuracy.carry_out(records, folders, settings.output)
                sections += accuracy.sections
            else:
                sections += _sections(study, settings, reference.scans, records, work)
    with progress.step("page"):
        digital = all(scan.truth is not None for scan in reference.scans)
        models = (model for record in records for model in record.facts.models)
        seconds = time.perf_counter() - started
        facts = {"Data": f"{settings.data}, {len(records)} scans", **({} if accuracy is None else accuracy.facts)}
        facts |= facts_of(models, settings.seed, seconds)
        page = write_study(settings.output, _title(settings.studies, reference), sections, facts, digital)
    if accuracy is not None and accuracy.failure is not None and len(settings.studies) == 1:
        raise accuracy.failure
    card = settings.store_limits
    limits_card = store_limits(records, card if isinstance(card, Path) else None) if card else None
    return Evaluation(page, tuple(records), limits_card, accuracy)


def _title(studies: Sequence[str], reference: Reference) -> str:
    if tuple(studies) == ("accuracy",):
        return agreement.TEXTS.title.format(reference=reference.title)
    return TEXTS.title + (f": {studies[0]}" if len(studies) == 1 else "")


def _compared(
    settings: EvaluationSettings, reference: Reference, work: JobSettings
) -> tuple[list[ComparedScan], dict[str, Path]]:
    """Score the scans that have no result, and compare all; return their records, and folders of results by name."""
    scans, with_accuracy = reference.scans, "accuracy" in settings.studies
    with work.progress.step("scans"):
        earlier = {} if settings.results is None else _earlier_results(scans, settings.results)
        missing = [scan for scan in scans if scan.name not in earlier]
        scored: list[Path | str] = []
        if missing:
            grouped = [replace(scan, group=f"scan {scan.number}") for scan in missing]
            options = (settings.models, settings.workers, settings.overwrite, work.progress)
            scored = scored_folders(grouped, settings.output, *options)
        by_name = earlier | {scan.name: folder for scan, folder in zip(missing, scored, strict=True)}
        folders = [by_name[scan.name] for scan in scans]
    with work.progress.step("records"):
        outcomes = compare_all(reference, folders, settings.output, work, pictures=with_accuracy)
        needs_map = tuple(settings.studies) != ("accuracy",)
        records = [usable(scan, outcome, needs_map) for scan, outcome in zip(scans, outcomes, strict=True)]
    return records, {name: folder for name, folder in by_name.items() if isinstance(folder, Path)}


def usable(scan: ReferenceScan, outcome: ComparedScan | str, needs_map: bool = True) -> ComparedScan:
    """Return the record of a scan, which says so if the scan has no scores to study.

    needs_map: True if scores by the clinical rule alone do not suffice.
    """
    if isinstance(outcome, str):
        return refused(scan, outcome)
    return outcome if "map" in outcome.values or not needs_map else refused(scan, WITHOUT_MAP)


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
    models = ablation.scoring_models(settings.models)
    return ablation.sections(scans, records, settings.output / study, settings.ablation_pairs, models, work, generator)


def _earlier_results(scans: Sequence[ReferenceScan], folder: Path) -> dict[str, Path | str]:
    """Find the results of scans in a folder of `cac cohort`, by their CT.

    Returns:
        The folder of results by name of the scan, or the reason why it has none, of scans that the folder lists.
    """
    try:
        lines = read_table(folder / TABLE, ("ct", "state", "reason", "folder")).lines
    except TableError as error:
        raise CTError(f"{folder} is not a results folder of cac cohort ({error}). Leave --results out.") from error
    by_ct: dict[Path, list[Line]] = {}
    for line in lines:
        by_ct.setdefault(Path(line.text("ct")).resolve(), []).append(line)
    results: dict[str, Path | str] = {}
    for scan in scans:
        matches = by_ct.get(scan.ct.resolve(), [])
        if len(matches) > 1:
            results[scan.name] = f"{folder} holds {len(matches)} results of {scan.ct}; there should be one."
        elif matches and matches[0].text("state") != "done":
            results[scan.name] = matches[0].text("reason") or f"It is not scored in {folder}."
        elif matches:
            results[scan.name] = folder / matches[0].text("folder")
    return results


_KINDS = {
    "visible": "Coronary calcium shows in some slice",
    "hidden": "Coronary calcium that no slice shows",
    "distractor": "Calcium or metal, but none in the coronary arteries",
    "clean": "No calcium",
    None: "No coronary calcium annotated, or nothing known",
}


def _data_section(reference: Reference, records: Sequence[ComparedScan], studies: Sequence[str]) -> Section:
    scans = reference.scans
    scored = [record for record in records if record.refused is None]
    text = [
        f"{counted(len(scans), 'scan')} of {counted(len({scan.patient for scan in scans}), 'patient')}; "
        f"{counted(len(scored), 'scan')} could be scored "
        f"and compared, and {len(records) - len(scored)} could not.",
        *candidates_counted(sum(r.facts.candidate_evidence is None for r in scored), len(scored)),
        reference.about,
    ]
    model_sets = {frozenset(record.facts.models) for record in scored}
    if len(model_sets) > 1:
        text.append(
            f"The scans were scored by {len(model_sets)} sets of models, which all figures mix. Score all with one set."
        )
    lone = [] if tuple(studies) == ("accuracy",) else lone_patients(scans)
    for title, names in (
        ("Patients with one scan only, who are in no pair", lone),
        ("Left out or questionable", [": ".join(item) for item in reference.refused]),
    ):
        if names:
            text.append(f"{title} ({len(names)}): {abbreviated_list(names)}")
    kinds = Counter(record.kind for record in scored)
    rows = tuple((title, kinds[kind]) for kind, title in _KINDS.items() if kinds[kind])
    doubts = Counter(warning for record in scored for warning in record.warnings).most_common()
    refusals = [(record.name, record.refused) for record in records if record.refused is not None]
    if "accuracy" in studies:
        refusals = []  # in its table of scans that are not compared
    tables = (
        *([TEXTS.table("scans", ("Scans", "Number"), rows)] if kinds.keys() != {None} else []),
        *([TEXTS.table("refused_scans", ("Scan", "Why"), refusals)] if refusals else []),
        *([TEXTS.table("doubtful_scans", ("What", "Scans"), doubts)] if doubts else []),
    )
    return Section("data", "The scans", tuple(text), tables, values=(all_scores(scored),))
