"""The command line that `./cac` starts: scoring's commands, and those that make and evaluate methods."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from CACScoringLib.cli import main as scoring
from CACScoringLib.cli.main import CommandParser, declared_commands
from CACScoringLib.cli.options import add_settings_argument, from_file
from CACScoringLib.core.files import OutputError

from . import testing

if TYPE_CHECKING:
    from CACScoringLib.core.progress import Progress
    from CACScoringLib.run import Sample


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and return its exit code (see `CACScoringLib.cli`)."""
    arguments = sys.argv[1:] if arguments is None else arguments
    try:
        # Whatever follows `test` is pytest's own, options included, so it is not parsed here.
        if arguments[:1] == ["test"]:
            return testing.test(arguments[1:])
        if arguments == ["check"]:
            return testing.check()
        options = make_parser().parse_args(arguments)
    except OutputError as error:
        print(f"Error: {error}", file=sys.stderr)
        return scoring.BAD_USAGE
    return scoring.run(options)


def make_parser() -> CommandParser:
    """The parser of the command line; a command's options are declared when it is used."""
    parser, commands = scoring.make_parser()
    scoring.add_commands(commands, _sample)
    for name, (text, declare) in _COMMANDS.items():
        commands.add_parser(name, help=text, declare=declare, add_help=name != "train")  # it has a help of its own
    commands.add_parser("test", help="run the quick tests, or --all, with pytest's arguments")
    commands.add_parser("check", help="check style and types of the code")
    return parser


def complete_parser() -> CommandParser:
    """The parser with all options of all commands."""
    parser = make_parser()
    declared_commands(parser)
    return parser


def _declare_sample(parser: argparse.ArgumentParser) -> None:
    from ..phantom.cohort.cohort import SAMPLES

    parser.description = "Write one scan of a digital patient: CT, heart, calcium map, labels and truth.json."
    named = "; ".join(f"{name}: {sample.title}" for name, sample in SAMPLES.items())
    parser.add_argument("name", nargs="?", choices=SAMPLES, default=next(iter(SAMPLES)), help=named)
    parser.add_argument("directory", type=Path, metavar="DIR", help="a folder that does not exist yet")
    scoring.add_progress_argument(parser)
    parser.set_defaults(run=_write_sample, interrupted="Interrupted. Nothing was written.")


def _declare_phantom(parser: argparse.ArgumentParser) -> None:
    from ..phantom.scanner.motion import PROTOCOLS

    parser.description = "Write a cohort of digital patients. If it is run again, it continues where it stopped."
    count = parser.add_mutually_exclusive_group(required=True)
    count.add_argument("--pairs", type=int, metavar="N", help="number of patients, two scans each")
    count.add_argument("--single", type=int, metavar="N", help="number of patients, one scan each")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="folder of the cohort")
    parser.add_argument("--protocol", choices=PROTOCOLS, help="scanning protocol (default: radiotherapy)")
    parser.add_argument("--dicom", action="store_true", help="write each CT as a DICOM series too")
    add_settings_argument(parser, '{"first_number": 100, "prevalence": 0.5, "z_range_mm": [-84, 66]}')
    parser.add_argument("--workers", type=int, metavar="N", help="number of processes (default: one per core)")
    scoring.add_progress_argument(parser)
    parser.set_defaults(
        run=_write_cohort,
        extras=lambda options: ("cohort",),
        interrupted="Interrupted. Run the same command again to go on.",
    )


def _declare_insert(parser: argparse.ArgumentParser) -> None:
    from ..phantom.anatomy.coronaries import ARTERIES

    parser.description = (
        "Write a real scan, and copies of it with coronary plaque and other calcium of known mass. If it is run again, "
        "it continues."
    )
    add = parser.add_argument
    add("ct", type=Path, metavar="CT", help="an unenhanced CT free of calcium")
    add("--output", type=Path, required=True, metavar="DIR", help="folder for the scans")
    add("--count", type=int, default=1, metavar="N", help="how many copies with plaque")
    add("--heart", type=Path, metavar="MASK", help="heart mask to use instead of the one that is found")
    add(
        "--path",
        type=Path,
        metavar="FILE",
        help="vessel to follow: CSV of x,y,z (LPS mm) or a Slicer curve (.mrk.json)",
    )
    add("--artery", choices=ARTERIES, help="the artery (default: drawn at random; needed with --path)")
    add("--name", help="name of the patient, for the split in training (default: the CT's name)")
    add_settings_argument(parser, '{"plaques": 2, "deposits": ["aortic wall"], "vary": true}')
    scoring.add_progress_argument(parser)
    parser.set_defaults(run=_insert, interrupted="Interrupted. Run the same command again to go on.")


def _declare_train(parser: argparse.ArgumentParser) -> None:
    from . import train

    train.add_arguments(parser)
    scoring.add_progress_argument(parser)


def _declare_calibrate(parser: argparse.ArgumentParser) -> None:
    from ..training import calibration

    parser.description = f"{_CALIBRATE[0].upper()}{_CALIBRATE[1:]}."
    calibration.add_arguments(parser)
    scoring.add_progress_argument(parser)
    parser.set_defaults(
        run=calibration.run,
        extras=lambda options: ("studies",),
        interrupted="Interrupted. The model is unchanged.",
    )


_CALIBRATE = "calibrate, on scans with known calcium, which lesions of the calcium map count, and their clinical scale"


def _declared_by(module: str) -> Callable[[argparse.ArgumentParser], None]:
    return lambda parser: importlib.import_module(f".{module}", __package__).add_arguments(parser)


_COMMANDS = {
    "sample": ("write a digital patient to try the software on", _declare_sample),
    "phantom": ("write a cohort of digital patients, scanned twice or once, with known calcium", _declare_phantom),
    "insert": ("insert coronary plaque of known mass into a real scan", _declare_insert),
    "train": ("train a network, or the atlas of arteries", _declare_train),
    "calibrate": (_CALIBRATE, _declare_calibrate),
    "evaluate": (
        "study how well scans of the same patients agree, with tables and figures",
        _declared_by("evaluate"),
    ),
    "validate": ("compare automatic scores with reference scores of your own scans", _declared_by("validate")),
    "review": ("review scored scans in the browser", _declared_by("review")),
    "project": ("create, fill, check and split projects of annotated scans", _declared_by("project")),
    "radiographs": ("compute radiographs from CTs, for training and studies", _declared_by("radiographs")),
    "docs": ("build the documentation as a site", _declared_by("docs")),
}
"""What each command does, and what declares its options when it is used."""


def _sample() -> Sample:
    from ..phantom.cohort.cohort import scored_sample

    return scored_sample()


def _write_sample(options: argparse.Namespace, progress: Progress) -> None:
    from ..phantom.cohort.cohort import write_sample

    if options.directory.exists():
        raise OutputError(f"{options.directory} exists already. Choose another folder.")
    progress.begin(["sample"])
    with progress.step("sample"):
        truth = write_sample(options.directory, options.name)
    progress.done(options.directory)
    print(f"{options.directory}: a digital patient with {truth['mass_mg']:.1f} mg of coronary calcium")


def _write_cohort(options: argparse.Namespace, progress: Progress) -> None:
    from CACScoringLib.core.ct import CTError

    from ..phantom.cohort.cohort import CohortError, CohortSettings, write_cohort

    progress.begin(["cohort"])
    patients, scans = (options.single, 1) if options.pairs is None else (options.pairs, 2)
    try:
        settings = from_file(options.settings, None, CohortSettings())
        given = {"protocol": options.protocol} if options.protocol else {}
        settings = replace(settings, scans=scans, dicom=settings.dicom or options.dicom, **given)
        with progress.step("cohort"):
            table = write_cohort(patients, options.output, settings, options.workers, progress.counted)
    except CohortError as error:
        raise CTError(str(error)) from error
    progress.done(options.output)
    print(f"{table}: {patients} patients, {'one scan' if scans == 1 else 'two scans'} each")


def _insert(options: argparse.Namespace, progress: Progress) -> None:
    from CACScoringLib.io.reading import read_ct, read_mask
    from CACScoringLib.models.cards import find_model, load_model

    from ..phantom.insertion.background import prepare_background
    from ..phantom.insertion.inserted import InsertedSettings, write_insertions
    from ..phantom.insertion.insertion import PathError, read_path

    if options.path and not options.artery:
        raise PathError("A path belongs to one artery. Name it with --artery.")
    progress.begin(["reading", "insertion"])
    settings = from_file(options.settings, None, InsertedSettings())
    settings = replace(settings, artery=options.artery or settings.artery)
    with progress.step("reading"):
        path = read_path(options.path) if options.path else None
        heart = read_mask(options.heart) if options.heart else None
        # On the processor, so that a graphics card's rounding does not move the paths of an interrupted run.
        network = load_model(find_model("territories").path, "cpu") if heart is None else None
        fitted = path is None or bool(set(settings.deposits or ()) - {"aortic wall"})
        background = prepare_background(read_ct(options.ct), heart, options.name, network, fitted)
    for warning in background.warnings:
        progress.warning(warning)
    with progress.step("insertion"):
        folder = write_insertions(background, options.output, options.count, settings, path, progress.counted)
    progress.done(folder)
    print(f"{folder}: {options.count} scans with plaque of known mass, and the scan without")
