"""The command `compare`: two scans of one patient, scored alike where they are not scored yet, and compared."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from ..core.files import write_text_atomically
from ..core.output import OutputError, OutputFolder
from ..core.progress import Progress
from .options import add_input_arguments, add_network_arguments

if TYPE_CHECKING:
    from ..models.cards import StoredModel
    from ..results import ScoreResult
    from ..run import ChosenModels, RunSettings, ScanInput

PAGE, LAST = "comparison.html", "comparison.json"
SIDES = ("earlier", "later")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.description = (
        "Compare two scans of one patient and report, by method and artery, whether the scores changed by more than "
        "the repeatability limits. CTs that have no result yet are scored first, both with the same models."
    )
    add = parser.add_argument
    what = "a CT, or a results folder of cac score"
    add("scans", type=Path, nargs=2, metavar="SCAN", help=f"the earlier scan, then the later one: each {what}")
    add("--output", type=Path, default=Path("comparison-cac"), metavar="DIR", help="folder for the comparison")
    add("--overwrite", action="store_true", help="replace a comparison that is already in the folder")
    for number, side in enumerate(SIDES, 1):
        add(f"--heart{number}", type=Path, metavar="MASK", help=f"heart mask for the {side} CT")
        add(f"--lesions{number}", type=Path, metavar="LABELS", help=f"reviewed lesion labels for the {side} CT")
        add(f"--series{number}", metavar="NUMBER|UID", help=f"DICOM series of the {side} CT's folder, as for cac score")
    add_input_arguments(parser)
    add_network_arguments(parser)
    parser.set_defaults(run=run, interrupted="Interrupted. Nothing was compared.")


def run(options: argparse.Namespace, progress: Progress) -> None:
    """Score what is not scored, compare, and write `comparison.html`, `comparison.json` and the new results.

    Raises OutputError, CTError.
    """
    from ..report import comparison_page
    from ..run import ScanInput, comparable, load_models, read_and_score
    from ..scoring.comparison import compare, comparison_as_json, is_result, read_result
    from ..scoring.uncertainty import stored_repeatability

    scans = [
        ScanInput(path, getattr(options, f"series{n}"), getattr(options, f"heart{n}"), getattr(options, f"lesions{n}"))
        for n, path in enumerate(options.scans, 1)
    ]
    output = OutputFolder(options.output, options.overwrite)
    if len({(scan.ct.resolve(), scan.series) for scan in scans}) < 2:
        raise OutputError(f"{scans[0].ct} was given twice. Give two different scans of the patient.")
    contents = [read_result(scan.ct) if is_result(scan.ct) else None for scan in scans]
    _check(scans, contents, options)
    settings = chosen = None
    if None in contents:
        settings, chosen = _how(options, next((c for c in contents if c is not None), None))
    progress.begin([*SIDES, "comparison"])

    results: dict[str, tuple[ScoreResult, Progress]] = {}
    for i, (side, scan) in enumerate(zip(SIDES, scans, strict=True)):
        with progress.step(side):
            if contents[i] is None:
                own = Progress()
                models = load_models(chosen, heart_is_given=scan.heart is not None)
                results[side] = read_and_score(scan, settings, models, own), own
                contents[i] = comparable(results[side][0])
    with progress.step("comparison"):
        found = compare(*contents, stored_repeatability(contents[1]))
        _write_results(output.path, results, settings)
        reports = {f"{side.capitalize()} scan": f"{side}/report.html" for side in results}
        write_text_atomically(output.path / PAGE, comparison_page.comparison_as_page(found, reports))
        text = json.dumps(comparison_as_json(found), indent=1, ensure_ascii=False, allow_nan=False)
        write_text_atomically(output.path / LAST, text + "\n")
    for warning in found.warnings:
        progress.warning(warning)
    progress.done(output.path)
    print(comparison_page.comparison_as_text(found))
    print(f"Results: {output.path}")


def _check(scans: list[ScanInput], contents: list[dict | None], options: argparse.Namespace) -> None:
    for number, (scan, content) in enumerate(zip(scans, contents, strict=True), 1):
        if content is not None and (scan.heart or scan.lesions or scan.series):
            raise OutputError(
                f"{scan.ct} is already a result, but --heart{number}, --lesions{number} and --series{number} apply "
                "to a CT. Leave them out, or give the CT."
            )
    if any(content is not None for content in contents) and (options.model or options.threshold_only):
        raise OutputError(
            "A CT that is compared with a result is scored with the models of that result, so --model and "
            "--threshold-only apply to two CTs only. Leave them out."
        )


def _how(options: argparse.Namespace, content: dict | None) -> tuple[RunSettings, ChosenModels]:
    """What scans are scored with. content: of the result that they are scored like; None where both are scored now."""
    from ..pipeline import ScoreSettings
    from ..run import ChosenModels, ModelChoice, RunSettings, chosen_models
    from ..scoring.lesions import ScoringRules

    if content is None:
        chosen = chosen_models(ModelChoice(tuple(options.model), options.threshold_only, options.device))
        rules = ScoringRules()
    else:
        chosen = ChosenModels(_models_like(content), device=options.device)
        rules = content["rules"]["threshold"]
        # A calibration belongs to its own scan.
        changed = {"weight_bounds_hu": tuple(rules["weight_bounds_hu"]), "calibration_mg_per_mm3_hu": None}
        rules = ScoringRules(**{**rules, **changed})
    normalisation = options.normalisation
    if content is not None:
        # Results that do not tell of it are older than normalisation.
        normalisation = (content.get("normalisation") or {"mode": "off"})["mode"]
    scoring = ScoreSettings(
        rules=rules,
        allow_contrast=options.allow_contrast,
        allow_reversed=options.allow_reversed,
        normalisation=normalisation,
    )
    return RunSettings(scoring, options.identify), chosen


def _models_like(content: dict) -> dict[str, StoredModel]:
    """By network the models that a result was made with. Raises ModelError where one is not installed."""
    from ..models.cards import ModelError, list_models

    stored = {(model.card.name, model.card.sha256): model for model in list_models()}
    wanted = {model["network"]: (model["name"], model["sha256"]) for model in content["models"]}
    if missing := [made for made in wanted.values() if made not in stored]:
        names = ", ".join(name for name, _ in missing)
        raise ModelError(
            f"The result of {content['input']['name']} was made with models that are not installed ({names}). "
            "Install them, or give both CTs to score them again."
        )
    models = {network: stored[made] for network, made in wanted.items()}
    if models and not {"heart", "territories"} & set(models):  # its heart was given; the other scan's is perhaps not
        models |= {m.card.network: m for m in list_models("territories") if m.origin == "bundled"}
    return models


def _write_results(
    folder: Path, results: dict[str, tuple[ScoreResult, Progress]], settings: RunSettings | None
) -> None:
    """Write the results of the sides that were scored now."""
    from ..run import write_result

    folder.mkdir(parents=True, exist_ok=True)
    (folder / LAST).unlink(missing_ok=True)
    for side, (result, progress) in results.items():
        write_result(OutputFolder(folder / side, overwrite=True), result, settings, progress)
