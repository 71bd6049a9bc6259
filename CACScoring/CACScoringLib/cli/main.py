"""Scoring's commands; also the panel's background worker. `./cac` starts `CACTrainingLib.cli`, which adds its own.

Exit codes: 0 done, 2 bad usage, 3 bad input, 4 interrupted.
"""

from __future__ import annotations

import argparse
import signal
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING

import SimpleITK as sitk

from ..core.ct import CTError, CTScan, ScanWarning, mask_on_scan_grid, with_warnings
from ..core.labels import Artery
from ..core.output import OutputError, OutputFolder
from ..core.progress import Progress, progress_for
from ..scoring.lesions import ScoringRules
from . import compare as comparison_run
from . import drr as cli_drr
from . import radiograph as cli_radiograph
from .drr import SERIES_HELP

if TYPE_CHECKING:
    from ..run import ModelChoice

DONE, BAD_USAGE, BAD_INPUT, INTERRUPTED = 0, 2, 3, 4


@dataclass(frozen=True)
class Sample:
    """A digital patient to try the software on.

    lesions: regions as an annotator would paint them, `Artery` labels. true_mass_mg: by artery.
    """

    scan: CTScan
    lesions: sitk.Image
    calibration_mg_per_mm3_hu: float
    true_mass_mg: dict[Artery, float]


def main(arguments: list[str] | None = None) -> int:
    """Run scoring's commands alone, without those of training, and return the exit code."""
    parser, commands = make_parser()
    add_commands(commands)
    return run(parser.parse_args(arguments))


def make_parser() -> tuple[argparse.ArgumentParser, argparse._SubParsersAction]:
    """An empty command line, and what commands are added to."""
    parser = argparse.ArgumentParser(
        prog="cac", description="Coronary artery calcium scoring on CT. For research only."
    )
    return parser, parser.add_subparsers(dest="command", required=True, metavar="COMMAND")


def add_commands(commands: argparse._SubParsersAction, make_sample: Callable[[], Sample] | None = None) -> None:
    """Add scoring's commands to a parser; each sets `run`, a function of the parsed arguments and
    the progress, and `interrupted`, what to say when it is stopped.

    make_sample: makes the patient of `score --sample`; without it there is no such option.
    """
    score = commands.add_parser(
        "score",
        help="score one CT, or a chest radiograph",
        description="Score one CT; or tell from a chest radiograph how probable coronary calcium is (--radiograph).",
    )
    _add_score_arguments(score)
    cli_radiograph.add_arguments(score)
    if make_sample:
        score.add_argument(
            "--sample", action="store_true", help="score a digital patient beside its truth; needs no CT"
        )
    score.set_defaults(
        run=_score, sample=False, make_sample=make_sample, interrupted="Interrupted. Nothing was written."
    )
    _add_compare(commands)
    _add_cohort(commands)
    add_progress_argument(cli_drr.add_command(commands))
    _add_models(commands)


def _add_compare(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser(
        "compare",
        help="has a patient's calcium changed between two scans?",
        description="Compare two scans of one patient: whether scores changed by more than two scans of an unchanged "
        "patient differ, by method and artery. What is not scored yet is scored, both with the same models.",
    )
    comparison_run.add_arguments(parser)
    _add_input_arguments(parser)
    add_progress_argument(parser)
    _add_network_arguments(parser)
    parser.set_defaults(run=comparison_run.run, interrupted="Interrupted. Nothing was compared.")


def _add_cohort(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser(
        "cohort",
        help="score many CTs, on all cores",
        description="Score every CT below a folder, or those that a table lists. Run again, it goes on where it "
        "stopped. A scan that fails is listed in failures.csv and stops no other.",
    )
    add = parser.add_argument
    add(
        "source",
        type=Path,
        metavar="FOLDER|TABLE",
        help="folder that is searched for NIfTI, NRRD and MHA files and DICOM series, each series a scan of its own "
        "(where a folder holds ct.nii.gz, only that); or a CSV file with the columns ct and, where needed, name, "
        "series, heart, lesions, patient, group; paths are relative to it",
    )
    add(
        "--output",
        type=Path,
        required=True,
        metavar="DIR",
        help="folder for cohort.csv and a folder of results per scan",
    )
    add("--overwrite", action="store_true", help="score all anew, whatever is in the folder")
    add(
        "--workers",
        type=int,
        metavar="N",
        help="processes at work (default: one per core, as far as free memory has room for the scans)",
    )
    add("--scene", action="store_true", help="write scene.mrb for each scan too")
    add("--no-healthy", action="store_true", help="do not write healthy.nii.gz, most of the space that results take")
    _add_input_arguments(parser)
    add_progress_argument(parser)
    _add_opinion_argument(_add_network_arguments(parser))
    _add_rule_arguments(parser)
    parser.set_defaults(
        run=_score_cohort, interrupted="Interrupted. What is done stays; run the same command again to go on."
    )


def _add_models(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser("models", help="list, verify, install or roll back trained models")
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    for name, text in (("list", "name the models at hand"), ("verify", "check the models' files")):
        action = actions.add_parser(name, help=text, description=text)
        action.set_defaults(run={"list": _list_models, "verify": _verify_models}[name])
    install = actions.add_parser("install", help="install a model for `cac score --model`")
    install.add_argument("card", type=Path, metavar="MODEL.json", help="the model's card; its weights lie beside it")
    install.add_argument("--overwrite", action="store_true", help="replace an installed model of this name; it is kept")
    install.set_defaults(run=_install_model)
    text = "undo the latest installation of a model: the one it replaced comes back, or none"
    rollback = actions.add_parser("rollback", help=text, description=text)
    rollback.add_argument("name", metavar="NAME", help="of a model that you installed (cac models list)")
    rollback.set_defaults(run=_roll_back_model)
    for action in actions.choices.values():
        add_progress_argument(action)
        action.set_defaults(interrupted="Interrupted.")


def _list_models(options: argparse.Namespace, progress: Progress) -> None:
    from ..models.cards import list_models

    for model in list_models():
        print(f"{model.card.name:<24}{model.card.network:<16}{model.card.preset:<10}{model.origin}")


def _verify_models(options: argparse.Namespace, progress: Progress) -> None:
    from ..models.cards import list_models, verify_model

    for model in list_models():
        verify_model(model.path)
        print(f"{model.card.name}: whole")


def _install_model(options: argparse.Namespace, progress: Progress) -> None:
    from ..models.cards import install_model
    from ..whole_scan.second_opinion import OPINIONS

    model = install_model(options.card, options.overwrite)
    name, network = model.card.name, model.card.network
    opinion = f"--second-opinion {network} " if network in OPINIONS else ""
    print(f"Installed {name} for {network}. Use it with: cac score CT {opinion}--model {name} …")


def _roll_back_model(options: argparse.Namespace, progress: Progress) -> None:
    from ..models.cards import TAKEN_OUT, list_models, roll_back, user_folder

    model = roll_back(options.name)
    kept = user_folder() / TAKEN_OUT / options.name
    if model is not None:
        print(f"{model.card.name} is again the one installed before, SHA-256 {model.card.sha256[:16]}.")
    elif any(other.card.name == options.name for other in list_models()):
        print(f"{options.name} is again the one that comes with CAC.")
    else:
        print(f"{options.name} is no longer installed; none had been before it.")
    print(f"The model that was taken out is kept in {kept}.")


def run(options: argparse.Namespace) -> int:
    """Run a parsed command; turn errors into one line on standard error and an exit code."""
    progress = progress_for(options.progress, sys.stderr)
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        options.run(options, progress)
    except OutputError as error:
        progress.failed(str(error), BAD_USAGE)
        return BAD_USAGE
    except CTError as error:
        progress.failed(str(error), BAD_INPUT)
        return BAD_INPUT
    except KeyboardInterrupt:
        progress.failed(options.interrupted, INTERRUPTED)
        return INTERRUPTED
    return DONE


def _interrupt(signal_number: int, frame: object) -> None:
    raise KeyboardInterrupt


def _add_score_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("ct", type=Path, nargs="?", metavar="CT", help="DICOM folder, NIfTI, NRRD or MHA")
    parser.add_argument("--output", type=Path, metavar="DIR", help="folder for the results (default: CT's name + -cac)")
    parser.add_argument("--overwrite", action="store_true", help="replace results that are already in the folder")
    parser.add_argument("--series", metavar="NUMBER|UID", help=SERIES_HELP)
    parser.add_argument(
        "--acquisition",
        type=Path,
        metavar="JSON",
        help="what the scan's file lacks: kvp, kernel, slice_thickness_mm, …",
    )
    parser.add_argument("--heart", type=Path, metavar="MASK", help="the heart, instead of the region found")
    parser.add_argument(
        "--lesions", type=Path, metavar="LABELS", help="reviewed lesions: 1 LM 2 LAD 3 LCX 4 RCA 5 other"
    )
    _add_input_arguments(parser)
    parser.add_argument(
        "--earlier", type=Path, metavar="RESULT", help="folder that cac score wrote of an earlier scan, to compare with"
    )
    parser.add_argument("--no-scene", action="store_true", help="do not write scene.mrb")
    add_progress_argument(parser)
    networks = _add_network_arguments(parser)
    _add_opinion_argument(networks)
    networks.add_argument(
        "--slice",
        action="append",
        default=[],
        type=_switched_slice,
        metavar="K=on|off",
        help="your word on a slice, over the network's: on, look for calcium there; off, none is. Slices count from 0 "
        "at the feet, as in scores.json",
    )
    mass = _add_rule_arguments(parser)
    mass.add_argument(
        "--calibration-insert", nargs=2, metavar=("MASK", "DENSITY"), help="phantom insert in the scan and its mg/cm³"
    )

    person = parser.add_argument_group("percentiles")
    person.add_argument(
        "--percentiles", type=Path, metavar="CSV", help="your table: sex, age_from, age_to, p25, p50, …"
    )
    person.add_argument("--sex", choices=("F", "M"))
    person.add_argument("--age", type=_years, metavar="YEARS")


def _add_input_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--allow-contrast", action="store_true", help="score a contrast-enhanced scan all the same")
    parser.add_argument("--identify", action="store_true", help="put patient name, id and study date in the results")


def _add_network_arguments(parser: argparse.ArgumentParser) -> argparse._ArgumentGroup:
    networks = parser.add_argument_group("without a threshold")
    which = networks.add_mutually_exclusive_group()
    which.add_argument(
        "--model",
        action="append",
        default=[],
        metavar="NAME",
        help="model to use instead of the one that comes with CAC for heart, slices or decomposition (cac models list)",
    )
    which.add_argument(
        "--threshold-only", action="store_true", help="score by the clinical rule alone, without any network"
    )
    networks.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    return networks


def _add_opinion_argument(networks: argparse._ArgumentGroup) -> None:
    networks.add_argument(
        "--second-opinion",
        nargs="?",
        const="all",
        metavar="KINDS",
        help="ask models that judge the scan as a whole too: vessels, radiomics, or both with a comma between; without "
        "KINDS all that there is a model for. --model names theirs too",
    )


def _add_rule_arguments(parser: argparse.ArgumentParser) -> argparse._MutuallyExclusiveGroup:
    """Returns the ways to calibrate mass, of which one is taken."""
    rules = parser.add_argument_group("rules")
    names = ", ".join(f.name for f in fields(ScoringRules) if isinstance(f.default, int | float))
    rules.add_argument(
        "--rule", action="append", default=[], type=_rule, metavar="NAME=VALUE", help=f"change a scoring rule: {names}"
    )
    rules.add_argument(
        "--adapt-to-tube-voltage", action="store_true", help="thresholds published for the scan's kVp, not for 120"
    )
    mass = rules.add_mutually_exclusive_group()
    mass.add_argument("--calibration", type=float, metavar="C", help="mass calibration, mg/(mm³·HU)")
    return mass


def add_progress_argument(parser: argparse.ArgumentParser) -> None:
    """Add --progress, which `run` needs of every command."""
    parser.add_argument("--progress", choices=("auto", "json", "none"), default="auto", help="how to report progress")


def _rule(text: str) -> tuple[str, float]:
    name, _, value = text.partition("=")
    kinds = {f.name: type(f.default) for f in fields(ScoringRules) if isinstance(f.default, int | float)}
    if name not in kinds:
        raise argparse.ArgumentTypeError(f"{name!r} is no rule; rules are {', '.join(kinds)}")
    try:
        return name, kinds[name](value)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{name} needs a number, not {value!r}") from None


def _years(text: str) -> int | float:
    years = float(text)
    if not 0 <= years <= 130:
        raise argparse.ArgumentTypeError(f"{text!r} is no age in years")
    return int(years) if years.is_integer() else years


def _switched_slice(text: str) -> tuple[int, bool]:
    number, _, word = text.partition("=")
    if not number.isdecimal() or word not in ("on", "off"):
        raise argparse.ArgumentTypeError(f"{text!r} switches no slice; write for example 12=on or 30=off")
    return int(number), word == "on"


def _score(options: argparse.Namespace, progress: Progress) -> None:
    if cli_radiograph.is_asked_for(options):
        cli_radiograph.run(options, progress)
        return
    # Imported here so that `cac --help` and a mistyped option answer at once.
    from ..io.reading import read_acquisition, read_ct, read_lesion_labels, read_mask, stem
    from ..pipeline import ScoreSettings, score_scan, steps
    from ..report import files as report
    from ..report.comparison_page import comparison_as_text
    from ..run import chosen_models, chosen_opinions, compared_with, load_networks, write_result
    from ..scoring.comparison import read_result
    from ..whole_scan.run import STEP, load_opinions, with_second_opinions

    if (options.ct is None) != options.sample:
        raise OutputError("Give one CT, or a --radiograph, to score (see cac score --help).")
    switched = _switched(options)
    earlier = read_result(options.earlier) if options.earlier else None
    name = "sample" if options.sample else stem(options.ct.resolve())
    output = OutputFolder(options.output or Path(f"{name}-cac"), options.overwrite)
    choice = _model_choice(options)
    models, lacking = chosen_models(choice)
    advisers = chosen_opinions(choice)
    if options.heart:
        models.pop("heart", None)
    networks = load_networks(models, options.device)
    opinions, unheard = load_opinions(advisers, options.device)
    asking = [STEP] if advisers else []
    progress.begin(["reading", *steps(networks), *asking, "report", *([] if options.no_scene else ["scene"])])

    with progress.step("reading"):
        sample = options.make_sample() if options.sample else None
        scan = sample.scan if sample else read_ct(options.ct, options.series)
        if options.acquisition:
            scan = replace(scan, acquisition=read_acquisition(options.acquisition))
        heart = read_mask(options.heart) if options.heart else None
        lesions = read_lesion_labels(options.lesions) if options.lesions else None
        if sample and lesions is None:
            lesions = sample.lesions
        rules, doubts = _rules(options, scan, sample)
        scan = with_warnings(scan, *doubts, *lacking, *unheard)
    settings = ScoreSettings(
        rules=rules,
        adapt_to_tube_voltage=options.adapt_to_tube_voltage,
        allow_contrast=options.allow_contrast,
        sex=options.sex,
        age_years=None if options.age is None else int(options.age),
        percentile_table=options.percentiles,
        slices=switched,
    )
    result = score_scan(scan, settings, heart, lesions, networks, progress)
    if advisers:
        result = with_second_opinions(result, opinions, progress=progress)
    if sample:
        result = replace(result, true_mass_mg=sample.true_mass_mg)

    comparison = None if earlier is None else compared_with(earlier, result)
    with output.being_written() as folder:
        write_result(folder, result, progress, options.identify, not options.no_scene, comparison=comparison)
    for warning in (*result.warnings, *(comparison.warnings if comparison else ())):
        progress.warning(warning)
    progress.done(output.path)
    print(report.result_as_text(result))
    if comparison:
        print(comparison_as_text(comparison))
    print(f"Results: {output.path}")


def _score_cohort(options: argparse.Namespace, progress: Progress) -> None:
    from ..cohort.cohort import CohortSettings, score_cohort
    from ..cohort.folder import FAILURES
    from ..pipeline import ScoreSettings

    settings = CohortSettings(
        ScoreSettings(
            rules=replace(_changed_rules(options), calibration_mg_per_mm3_hu=options.calibration),
            adapt_to_tube_voltage=options.adapt_to_tube_voltage,
            allow_contrast=options.allow_contrast,
        ),
        _model_choice(options),
        options.identify,
        options.scene,
        not options.no_healthy,
    )
    states = score_cohort(options.source, options.output, settings, options.workers, options.overwrite, progress)
    count = Counter(state.state for state in states)
    failed = [state for state in states if state.state == "failed"]
    print(f"{options.output}: {count['done']} scored, {count['skipped']} scored before, {count['failed']} failed")
    for state in failed:
        print(f"  {state.name}: {state.reason}")
    if len(failed) == len(states):
        raise CTError(f"No scan could be scored. The reasons are in {options.output / FAILURES}.")
    progress.done(options.output)


def _switched(options: argparse.Namespace) -> dict[int, bool]:
    if options.slice and options.threshold_only:
        raise OutputError("--slice is about the calcium map, which --threshold-only leaves out. Leave one of them out.")
    switched = dict(options.slice)
    if both := [k for k, on in options.slice if switched[k] != on]:
        raise OutputError(f"Slice {both[0]} is switched on and off. Give it once.")
    return switched


def _model_choice(options: argparse.Namespace) -> ModelChoice:
    from ..run import ModelChoice
    from ..whole_scan.run import opinions_asked_for

    asked = () if options.second_opinion is None else opinions_asked_for(options.second_opinion)
    if asked and options.threshold_only:
        raise OutputError(
            "--threshold-only is without any network, and --second-opinion needs one. Leave one of them out."
        )
    return ModelChoice(tuple(options.model), options.threshold_only, options.device, asked)


def _changed_rules(options: argparse.Namespace) -> ScoringRules:
    changed, rules = dict(options.rule), ScoringRules()
    if not changed:
        return rules
    named = ", ".join(f"{name} = {value:g}" for name, value in changed.items())
    return replace(rules, name=f"{rules.name}, changed: {named}", **changed)


def _rules(
    options: argparse.Namespace, scan: CTScan, sample: Sample | None
) -> tuple[ScoringRules, tuple[ScanWarning, ...]]:
    """The rules asked for, with the mass calibration, and doubts about the latter."""
    from ..io.reading import read_mask
    from ..scoring.scores import calibration_from_insert

    rules, doubts = _changed_rules(options), ()
    calibration = options.calibration
    if options.calibration_insert:
        path, text = options.calibration_insert
        try:
            density = float(text)
        except ValueError:
            raise CTError(f"The density of the calibration insert is {text!r}; give a number in mg/cm³.") from None
        insert, doubts = mask_on_scan_grid(read_mask(Path(path)), scan, "calibration insert")
        calibration = calibration_from_insert(scan.image, insert, density)
    elif calibration is None and sample:
        calibration = sample.calibration_mg_per_mm3_hu
    return replace(rules, calibration_mg_per_mm3_hu=calibration), doubts
