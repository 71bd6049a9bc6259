"""The command `compare`: compare two scans of one patient; CTs without a result are scored first, alike."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from ..core.errors import OutputError
from ..core.files import OutputFolder, write_text_atomically
from ..core.options import argument, option
from ..core.progress import Progress
from .options import Command, NetworkOptions, UnusualOptions, model_choice, scoring_settings, settings_option

if TYPE_CHECKING:
    from ..models.cards import StoredModel
    from ..models.choice import ChosenModels
    from ..record.rules import ScoringRules
    from ..record.score_record import ScoreRecord
    from ..results import ScoreResult
    from ..run import RunSettings

PAGE, LAST = "comparison.html", "comparison.json"
SIDES = ("earlier", "later")


@dataclass(frozen=True, kw_only=True)
class CompareOptions(UnusualOptions, NetworkOptions):
    """Compare two scans of one patient and report, by method and artery, whether the scores changed by more than the
    repeatability limits.

    CTs without a result are scored first, with the same models. Score a CT that needs a heart mask, reviewed lesions or
    the choice of a series with cac score first.

    Attributes:
        scans: The earlier scan, then the later one: each a CT, or a results folder of cac score.
        output: Folder for the comparison.
        overwrite: Replace a comparison that is already in the folder.
        different_patients: Compare although the headers state different patients, as after de-identification; the
            comparison says so.
        identify: Include the study dates, if known, and in new results patient name and ID.
    """

    scans: tuple[Path, Path] = argument(nargs=2, metavar="SCAN")
    output: Path = option(Path("comparison-cac"), metavar="DIR")
    overwrite: bool = False
    different_patients: bool = False
    identify: bool = False
    settings: tuple[str, ...] = settings_option()


def run(options: CompareOptions, progress: Progress) -> None:
    """Score what is not scored, compare, and write `comparison.html`, `comparison.json` and the new results.

    Raises OutputError, CTError.
    """
    from ..models.choice import load_models
    from ..quality.calibration import stored_repeatability
    from ..record.score_record import is_result, read_result
    from ..report.comparison import comparison_as_text
    from ..report.page import comparison_as_page, pictures_of_report
    from ..run import RunSettings, ScanInput, read_and_score
    from ..scoring.comparison import compare

    output = OutputFolder(options.output, options.overwrite)
    if options.scans[0].resolve() == options.scans[1].resolve():
        raise OutputError(f"{options.scans[0]} was given twice. Give two different scans of the patient.")
    recorded = {scan: read_result(scan) for scan in options.scans if is_result(scan)}
    reference = next(iter(recorded.values()), None)
    if reference is not None and (options.model or options.threshold_only):
        raise OutputError(
            "A CT that is compared with a result is scored with the models of that result, so --model and "
            "--threshold-only apply to two CTs only. Leave them out."
        )
    progress.begin([*SIDES, "comparison"])

    records: list[ScoreRecord] = []
    results: dict[str, tuple[ScoreResult, RunSettings, Progress]] = {}
    for side, scan in zip(SIDES, options.scans, strict=True):
        with progress.step(side):
            if scan in recorded:
                records.append(recorded[scan])
                continue
            settings, chosen = _settings_and_models(options, reference)
            ct_progress = Progress()
            earlier_record = None if options.different_patients else next(iter((*records, *recorded.values())), None)
            result = read_and_score(ScanInput(scan), settings, load_models(chosen), ct_progress, earlier_record)
            results[side] = result, settings, ct_progress
            records.append(result.record)
    earlier, later = records
    with progress.step("comparison"):
        identify = scoring_settings(options, RunSettings()).identify
        comparison = compare(earlier, later, stored_repeatability(later), options.different_patients, identify)
        _write_results(output.path, results)
        reports = {f"{side.capitalize()} scan": f"{side}/report.html" for side in results}
        folders = (output.path / s if s in results else scan for s, scan in zip(SIDES, options.scans, strict=True))
        pictures = tuple(map(pictures_of_report, folders))
        write_text_atomically(output.path / PAGE, comparison_as_page(comparison, reports, pictures))
        text = json.dumps(comparison.as_json(), indent=1, ensure_ascii=False, allow_nan=False)
        write_text_atomically(output.path / LAST, text + "\n")
    for side, record in zip(SIDES, records, strict=True):
        for warning in record.severe_warnings(f"{side.capitalize()} scan"):
            progress.warning(warning)
    for warning in comparison.warnings:
        progress.warning(warning)
    progress.done(output.path)
    print(comparison_as_text(comparison))
    print(f"Results: {output.path}")


def _settings_and_models(options: CompareOptions, reference: ScoreRecord | None) -> tuple[RunSettings, ChosenModels]:
    """Return how CTs are scored. reference: Result whose rules and models they follow; None if both are CTs."""
    from ..models.choice import ChosenModels, chosen_models
    from ..run import RunSettings

    settings = scoring_settings(options, RunSettings())
    if reference is None:
        return settings, chosen_models(model_choice(options))
    rules, adapt = _rules_of(reference)
    # Results that record no normalisation are older than it.
    normalisation = "off" if reference.normalisation is None else reference.normalisation.mode
    score = replace(settings.score, rules=rules, adapt_to_tube_voltage=adapt, normalisation=normalisation)
    models, settings = _models_of(reference), replace(settings, score=score)
    return settings, ChosenModels(models, device=options.device)


def _rules_of(record: ScoreRecord) -> tuple[ScoringRules, bool]:
    """Return the rules of a result, without changes for its own tube voltage, and True if they follow the voltage."""
    from ..record.rules import ScoringRules, rules_for_tube_voltage

    standard = ScoringRules()
    adapted = rules_for_tube_voltage(record.acquisition, standard)
    # A calibration belongs to its own scan.
    rules = replace(record.methods["threshold"].rules, calibration_mg_per_mm3_hu=None)
    if rules.bounds_hu != adapted.bounds_hu:
        return rules, False
    return replace(rules, threshold_hu=standard.threshold_hu, weight_bounds_hu=standard.weight_bounds_hu), True


def _models_of(record: ScoreRecord) -> dict[str, StoredModel]:
    """Return the models of a result by network. Raises ModelError if one is not installed."""
    from ..core.errors import ModelError
    from ..models.cards import list_models

    installed = {(model.card.name, model.card.sha256): model for model in list_models()}
    if missing := [model.name for model in record.models if (model.name, model.sha256) not in installed]:
        names = ", ".join(missing)
        raise ModelError(
            f"The result of {record.input.name} was made with models that are not installed ({names}). "
            "Install them, or give both CTs to score them again."
        )
    return {model.network: installed[model.name, model.sha256] for model in record.models}


def _write_results(folder: Path, results: dict[str, tuple[ScoreResult, RunSettings, Progress]]) -> None:
    """Write the results of the CTs that this command scored."""
    from ..run import write_result

    folder.mkdir(parents=True, exist_ok=True)
    (folder / LAST).unlink(missing_ok=True)
    for side, (result, settings, progress) in results.items():
        write_result(OutputFolder(folder / side, overwrite=True), result, settings, progress)


add_arguments = Command(CompareOptions, run, interrupted="Interrupted. Nothing was compared.").declare
