"""The command `score`: one CT, or a chest radiograph in its place."""

from __future__ import annotations

import argparse
import contextlib
import importlib
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from ..core.ct import CTError
from ..core.output import OutputError, OutputFolder
from ..core.progress import Progress
from . import radiograph
from .options import (
    SERIES_HELP,
    add_dicom_argument,
    add_estimate_argument,
    add_input_arguments,
    add_network_arguments,
    add_rule_arguments,
    extras_of_dicom,
    extras_of_estimates,
    model_choice,
    rules,
)

if TYPE_CHECKING:
    from ..run import Sample


def add_arguments(parser: argparse.ArgumentParser, make_sample: Callable[[], Sample] | None = None) -> None:
    """Declare the command's options.

    make_sample: makes the patient of `score --sample`; without it there is no such option.
    """
    parser.description = (
        "Score one CT, or estimate the probability of coronary calcium from a chest radiograph (--radiograph)."
    )
    add = parser.add_argument
    add("ct", type=Path, nargs="?", metavar="CT", help="DICOM folder, NIfTI, NRRD or MHA")
    add("--output", type=Path, metavar="DIR", help="folder for the results (default: the CT's name followed by -cac)")
    add("--overwrite", action="store_true", help="replace results that are already in the folder")
    add("--series", metavar="NUMBER|UID", help=SERIES_HELP)
    add(
        "--acquisition",
        type=Path,
        metavar="JSON",
        help="how the scan was acquired, in place of what its file states: kvp, kernel, slice_thickness_mm, …",
    )
    add("--heart", type=Path, metavar="MASK", help="heart mask to use instead of the heart that is found")
    add(
        "--lesions",
        type=Path,
        metavar="LABELS",
        help="reviewed lesions: a DICOM segmentation or structure set whose segments are coded or named by artery, or "
        "labels: 1 LM, 2 LAD, 3 LCX, 4 RCA, 5 other; outside the arteries 8 aortic valve, 9 mitral annulus, "
        "10 thoracic aorta, 11 other",
    )
    add_input_arguments(parser)
    add_dicom_argument(parser)
    add("--reader", metavar="NAME", help="who reviewed the lesions, named in the DICOM results with --identify")
    add(
        "--earlier",
        type=Path,
        metavar="RESULT",
        help="results folder of an earlier scan of the patient, to compare with",
    )
    add("--no-scene", action="store_true", help="do not write scene.mrb")
    networks = add_network_arguments(parser)
    add_estimate_argument(networks)
    networks.add_argument(
        "--slice",
        action="append",
        default=[],
        type=_switched_slice,
        metavar="K=on|off",
        help="override the slice classifier: on decomposes slice K, off leaves the calcium map empty there. Slices are "
        "counted from 0 at the feet, as in scores.json; may be repeated",
    )
    add_rule_arguments(parser).add_argument(
        "--calibration-insert",
        nargs=2,
        metavar=("MASK", "DENSITY"),
        help="mask of a calibration insert in the scan, and its density in mg/cm³",
    )
    person = parser.add_argument_group("percentiles")
    person.add_argument(
        "--percentiles",
        type=Path,
        metavar="CSV",
        help="reference table with the columns sex, age_from, age_to, p25, p50, …",
    )
    person.add_argument("--sex", choices=("F", "M"), help="the patient's sex, instead of the one in the DICOM header")
    person.add_argument(
        "--age", type=_years, metavar="YEARS", help="the patient's age, instead of the one in the DICOM header"
    )
    radiograph.add_arguments(parser)
    if make_sample:
        add("--sample", action="store_true", help="score a digital patient with known calcium mass; needs no CT")
    parser.set_defaults(
        run=run,
        extras=_extras,
        sample=False,
        make_sample=make_sample,
        interrupted="Interrupted. Nothing was written.",
    )


def _extras(options: argparse.Namespace) -> tuple[str, ...]:
    if options.radiograph or options.lateral:
        return ()
    return (*(() if options.no_scene else ("scene",)), *extras_of_dicom(options), *extras_of_estimates(options))


def run(options: argparse.Namespace, progress: Progress) -> None:
    """Score what was asked for and say what was found. Raises CTError, OutputError."""
    if any(given is not None for given in (options.radiograph, options.lateral, options.bmi)):
        radiograph.run(options, progress)
        return
    # Imported here so that `cac --help` and a mistyped option answer at once.
    from ..io.reading import stem
    from ..pipeline import ScoreSettings
    from ..report.comparison_page import comparison_as_text
    from ..report.files import result_as_text
    from ..run import RunSettings, ScanInput, chosen_models, load_models, run_scan
    from ..scoring.comparison import read_result

    if (options.ct is None) != options.sample:
        raise OutputError("Give one CT, or a --radiograph, to score (see cac score --help).")
    scoring = ScoreSettings(
        rules=rules(options),
        candidates=options.candidates,
        adapt_to_tube_voltage=options.adapt_to_tube_voltage,
        allow_contrast=options.allow_contrast,
        allow_reversed=options.allow_reversed,
        normalisation=options.normalisation,
        sex=options.sex,
        age_years=None if options.age is None else int(options.age),
        percentile_table=options.percentiles,
        slices=_switched(options),
        mass_table=options.mass_table,
    )
    earlier = read_result(options.earlier) if options.earlier else None
    name = "sample" if options.sample else stem(options.ct.resolve())
    output = OutputFolder(options.output or Path(f"{name}-cac"), options.overwrite)
    given = ScanInput(
        options.make_sample if options.sample else options.ct,
        series=options.series,
        heart=options.heart,
        lesions=options.lesions,
        acquisition=options.acquisition,
        calibration_insert=_insert(options),
    )
    if options.reader and not (options.identify and options.dicom and options.lesions):
        raise OutputError("--reader names who reviewed --lesions in DICOM results; give --dicom and --identify too.")
    scene = not options.no_scene
    settings = RunSettings(scoring, options.identify, scene, dicom=options.dicom, reader=options.reader)
    with _thread() as thread:
        models = load_models(chosen_models(model_choice(options)), options.heart is not None, thread)
        if scene:
            thread.submit(importlib.import_module, "..mrml.scene", __package__)  # takes a second
        result, comparison = run_scan(given, settings, models, output, progress, earlier)
    print(result_as_text(result, severe_warnings=not progress.prints_warnings))
    if comparison:
        print(comparison_as_text(comparison))
    print(f"Results: {output.path}")


@contextlib.contextmanager
def _thread() -> Iterator[Executor]:
    """A thread for what can be loaded while the scan is read; what it has not begun at the end is left out."""
    thread = ThreadPoolExecutor(1)
    try:
        yield thread
    finally:
        thread.shutdown(wait=False, cancel_futures=True)


def _switched(options: argparse.Namespace) -> dict[int, bool]:
    if options.slice and options.threshold_only:
        raise OutputError(
            "--slice changes the calcium map, which --threshold-only does not compute. Leave one of them out."
        )
    switched = dict(options.slice)
    if both := [k for k, on in options.slice if switched[k] != on]:
        raise OutputError(f"Slice {both[0]} is switched both on and off. Give it once.")
    return switched


def _insert(options: argparse.Namespace) -> tuple[Path, float] | None:
    if options.calibration_insert is None:
        return None
    path, density = options.calibration_insert
    try:
        return Path(path), float(density)
    except ValueError:
        message = f"The density of the calibration insert is {density!r}; give a number in mg/cm³."
        raise CTError(message) from None


def _years(text: str) -> int | float:
    years = float(text)
    if not 0 <= years <= 130:
        raise argparse.ArgumentTypeError(f"{text!r} is not an age in years")
    return int(years) if years.is_integer() else years


def _switched_slice(text: str) -> tuple[int, bool]:
    number, _, word = text.partition("=")
    if not number.isdecimal() or word not in ("on", "off"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a slice override; write for example 12=on or 30=off")
    return int(number), word == "on"
