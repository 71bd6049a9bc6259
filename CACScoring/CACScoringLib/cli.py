"""Scoring's commands; also the panel's background worker. `./cac` starts `CACTrainingLib.cli`, which adds its own.

Exit codes: 0 done, 2 bad usage, 3 bad input, 4 interrupted.
"""

from __future__ import annotations

import argparse
import importlib.util
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING

import SimpleITK as sitk

from .ct import CTError, CTScan, ScanWarning, mask_on_scan_grid, with_warnings
from .lesions import Artery, ScoringRules
from .output import LAST_FILE, OutputError, OutputFolder
from .progress import Progress, progress_for

if TYPE_CHECKING:
    from .models import StoredModel
    from .pipeline import Networks

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
    score = commands.add_parser("score", help="score one CT", description="Score one CT.")
    _add_score_arguments(score)
    if make_sample:
        score.add_argument(
            "--sample", action="store_true", help="score a digital patient beside its truth; needs no CT"
        )
    score.set_defaults(
        run=_score, sample=False, make_sample=make_sample, interrupted="Interrupted. Nothing was written."
    )
    _add_models(commands)


def _add_models(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser("models", help="list, verify or install trained models")
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    for name, text in (("list", "name the models at hand"), ("verify", "check the models' files")):
        action = actions.add_parser(name, help=text, description=text)
        action.set_defaults(run={"list": _list_models, "verify": _verify_models}[name])
    install = actions.add_parser("install", help="install a model for `cac score --model`")
    install.add_argument("card", type=Path, metavar="MODEL.json", help="the model's card; its weights lie beside it")
    install.add_argument("--overwrite", action="store_true", help="replace an installed model of this name")
    install.set_defaults(run=_install_model)
    for action in actions.choices.values():
        add_progress_argument(action)
        action.set_defaults(interrupted="Interrupted.")


def _list_models(options: argparse.Namespace, progress: Progress) -> None:
    from .models import list_models

    for model in list_models():
        print(f"{model.card.name:<24}{model.card.network:<16}{model.card.preset:<10}{model.origin}")


def _verify_models(options: argparse.Namespace, progress: Progress) -> None:
    from .models import list_models, verify_model

    for model in list_models():
        verify_model(model.path)
        print(f"{model.card.name}: whole")


def _install_model(options: argparse.Namespace, progress: Progress) -> None:
    from .models import install_model

    model = install_model(options.card, options.overwrite)
    print(
        f"Installed {model.card.name} for {model.card.network}. Use it with: cac score CT --model {model.card.name} …"
    )


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
    parser.add_argument("--series", metavar="NUMBER|UID", help="which DICOM series, where the folder holds several")
    parser.add_argument("--heart", type=Path, metavar="MASK", help="the heart, instead of the region found")
    parser.add_argument(
        "--lesions", type=Path, metavar="LABELS", help="reviewed lesions: 1 LM 2 LAD 3 LCX 4 RCA 5 other"
    )
    parser.add_argument("--allow-contrast", action="store_true", help="score a contrast-enhanced scan all the same")
    parser.add_argument("--identify", action="store_true", help="put patient name, id and study date in the results")
    parser.add_argument("--no-scene", action="store_true", help="do not write scene.mrb")
    add_progress_argument(parser)

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
    mass.add_argument(
        "--calibration-insert", nargs=2, metavar=("MASK", "DENSITY"), help="phantom insert in the scan and its mg/cm³"
    )

    person = parser.add_argument_group("percentiles")
    person.add_argument(
        "--percentiles", type=Path, metavar="CSV", help="your table: sex, age_from, age_to, p25, p50, …"
    )
    person.add_argument("--sex", choices=("F", "M"))
    person.add_argument("--age", type=int, metavar="YEARS")


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


def _score(options: argparse.Namespace, progress: Progress) -> None:
    # Imported here so that `cac --help` and a mistyped option answer at once.
    from . import page, report
    from .pipeline import ScoreSettings, score_scan, steps
    from .reading import read_ct, read_lesion_labels, read_mask

    if (options.ct is None) != options.sample:
        raise OutputError("Give one CT to score (see cac score --help).")
    name = "sample" if options.sample else _stem(options.ct)
    output = OutputFolder(options.output or Path(f"{name}-cac"), options.overwrite)
    networks, lacking = _networks(options)
    progress.begin(["reading", *steps(networks), "report", *([] if options.no_scene else ["scene"])])

    with progress.step("reading"):
        sample = options.make_sample() if options.sample else None
        scan = sample.scan if sample else read_ct(options.ct, options.series)
        heart = read_mask(options.heart) if options.heart else None
        lesions = read_lesion_labels(options.lesions) if options.lesions else None
        if sample and lesions is None:
            lesions = sample.lesions
        rules, doubts = _rules(options, scan, sample)
        scan = with_warnings(scan, *doubts, *lacking)
    settings = ScoreSettings(
        rules=rules,
        adapt_to_tube_voltage=options.adapt_to_tube_voltage,
        allow_contrast=options.allow_contrast,
        sex=options.sex,
        age_years=options.age,
        percentile_table=options.percentiles,
    )
    result = score_scan(scan, settings, heart, lesions, networks, progress)
    if sample:
        result = replace(result, true_mass_mg=sample.true_mass_mg)

    with output.being_written() as folder:
        with progress.step("report"):
            report.write_images(folder, result)
            (folder / "lesions.csv").write_text(report.lesions_as_csv(result), encoding="utf-8")
            html = page.result_as_html(result, options.identify)
            (folder / "report.html").write_text(html, encoding="utf-8")
        if not options.no_scene:
            with progress.step("scene"):
                from . import mrml  # takes a second, and needs MRML

                mrml.write_scene(folder / "scene.mrb", result, options.identify)
        report.write_json(folder / LAST_FILE, result, progress.seconds, options.identify)
    for warning in result.warnings:
        progress.warning(warning)
    progress.done(output.path)
    print(report.result_as_text(result))
    print(f"Results: {output.path}")


def _networks(options: argparse.Namespace) -> tuple[Networks | None, tuple[ScanWarning, ...]]:
    """The networks to use, or None for the clinical rule alone; and doubts.

    Without PyTorch bundled models are left out with a warning, but a model that was named is an error.
    """
    models = _models_to_use(options)
    if not models:
        return None, ()
    from .models import ModelError, load_model

    if missing := [name for name in ("torch", "safetensors") if importlib.util.find_spec(name) is None]:
        message = f"The networks need the Python packages {' and '.join(missing)}, which are not installed"
        if options.model:
            raise ModelError(f"{message}. Install them, or leave --model out.")
        return None, (ScanWarning("networks-left-out", f"{message}: the scan is scored by the clinical rule alone."),)
    from .pipeline import Networks

    loaded = {network: load_model(model.path, options.device) for network, model in models.items()}
    return Networks(loaded.get("heart"), loaded["slices"], loaded["decomposition"]), ()


def _models_to_use(options: argparse.Namespace) -> dict[str, StoredModel]:
    """By network: the models asked for by name, and the bundled ones for the rest."""
    from .models import ModelError, list_models

    if options.threshold_only:
        return {}
    found = list_models()
    stored = {model.card.name: model for model in found}
    chosen: dict[str, StoredModel] = {}
    for name in options.model:
        if name not in stored:
            raise ModelError(f"There is no model {name!r}. Installed: {', '.join(stored) or 'none'}.")
        network = stored[name].card.network
        if network in chosen:
            raise ModelError(f"Two models for {network!r} are named. Name one of each kind.")
        chosen[network] = stored[name]
    models = {model.card.network: model for model in found if model.origin == "bundled"} | chosen
    if models and not {"slices", "decomposition"} <= set(models):
        raise ModelError("Scoring without a threshold needs a model for slices and one for decomposition.")
    if options.heart:
        models.pop("heart", None)
    return models


def _rules(
    options: argparse.Namespace, scan: CTScan, sample: Sample | None
) -> tuple[ScoringRules, tuple[ScanWarning, ...]]:
    """The rules asked for, with the mass calibration, and doubts about the latter."""
    from .reading import read_mask
    from .scores import calibration_from_insert

    changed = dict(options.rule)
    rules, doubts = ScoringRules(), ()
    if changed:
        named = ", ".join(f"{name} = {value:g}" for name, value in changed.items())
        rules = replace(rules, name=f"{rules.name}, changed: {named}", **changed)
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


def _stem(path: Path) -> str:
    """The CT's name without the endings of image formats."""
    name = path.resolve().name
    for ending in (".nii.gz", ".nii", ".seg.nrrd", ".nrrd", ".nhdr", ".mha", ".mhd"):
        if name.lower().endswith(ending):
            return name[: -len(ending)]
    return name


if __name__ == "__main__":
    sys.exit(main())
