"""The command `score`: one CT, or a chest radiograph in its place."""

from __future__ import annotations

import argparse
import contextlib
import importlib
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ..core.files import OutputError, OutputFolder
from ..core.progress import Progress
from .options import (
    SERIES_HELP,
    add_estimate_argument,
    add_exchange_arguments,
    add_network_arguments,
    add_settings_argument,
    add_unusual_argument,
    extras_of_dicom,
    extras_of_networks,
    from_file,
    model_choice,
    scoring_settings,
)

if TYPE_CHECKING:
    from ..run import RunSettings, Sample


def add_arguments(parser: argparse.ArgumentParser, make_sample: Callable[[], Sample] | None = None) -> None:
    """Declare the command's options.

    make_sample: makes the patient of `score --sample`; without it there is no such option.
    """
    parser.description = (
        "Score one CT, or estimate the probability of coronary calcium from a chest radiograph (--radiograph)."
    )
    add = parser.add_argument
    add("ct", type=Path, nargs="?", metavar="CT", help="DICOM folder or ZIP archive of one, NIfTI, NRRD or MHA")
    add("--output", type=Path, metavar="DIR", help="folder for the results (default: the CT's name followed by -cac)")
    add("--overwrite", action="store_true", help="replace results that are already in the folder")
    add("--series", metavar="NUMBER|UID", help=SERIES_HELP)
    add("--heart", type=Path, metavar="MASK", help="heart mask to use in place of the segmented heart")
    add("--pericardium", type=Path, metavar="MASK", help="mask of all within the pericardium, to measure its fat")
    add(
        "--lesions",
        type=Path,
        metavar="LABELS",
        help="lesions: a DICOM segmentation or structure set whose segments are coded or named by artery, or "
        "labels: 1 LM, 2 LAD, 3 LCX, 4 RCA, 5 other; outside the arteries 8 aortic valve, 9 mitral annulus, "
        "10 thoracic aorta, 11 other",
    )
    add(
        "--earlier",
        type=Path,
        metavar="RESULT",
        help="result of an earlier scan of the patient to compare with",
    )
    add("--scene", action="store_true", help="write scene.mrb for 3D Slicer")
    add("--profile", action="store_true", help="print the time and memory of each step, for a report of a problem")
    add_exchange_arguments(parser)
    add_unusual_argument(parser)
    add_settings_argument(parser, '{"scoring": {"rules": {"minimum_pixels": 3}}, "results": {"identify": true}}')
    add_estimate_argument(add_network_arguments(parser))
    add(
        "--radiograph",
        type=Path,
        metavar="IMAGE",
        help="PA radiograph to score instead of a CT: DICOM (CR, DX), a grey PNG, JPEG or TIFF with bright bone, or a "
        "NIfTI, NRRD or MHA file of cac drr; --model selects the radiograph model, --settings add a lateral view, age, "
        "sex and body mass index",
    )
    if make_sample:
        add("--sample", action="store_true", help="score a digital patient with known calcium mass; needs no CT")
    parser.set_defaults(
        run=run,
        extras=_extras,
        sample=False,
        make_sample=make_sample,
        interrupted="Interrupted. Nothing was written.",
    )


def _settings(options: argparse.Namespace) -> RunSettings:
    from ..run import RunSettings

    return scoring_settings(options, RunSettings())


def _is_of_radiograph(options: argparse.Namespace) -> bool:
    """True if a radiograph is to be scored, which --settings may name too."""
    if options.radiograph is None and not options.settings:
        return False
    from .radiograph import radiograph_input

    return bool(radiograph_input(options).pictures)


def _extras(options: argparse.Namespace) -> tuple[str, ...]:
    if _is_of_radiograph(options):
        return ("torch",)
    settings = _settings(options)
    dicom = extras_of_dicom(settings.dicom, options.lesions)
    return (*(("scene",) if settings.scene else ()), *dicom, *extras_of_networks(options))


def run(options: argparse.Namespace, progress: Progress) -> None:
    """Score a CT or a radiograph and print its scores. Raises CTError, OutputError."""
    if _is_of_radiograph(options):
        from . import radiograph

        radiograph.run(options, progress)
        return
    # Imported here so that `cac --help` and a mistyped option answer at once.
    from ..io.reading import stem
    from ..models.choice import chosen_models, load_models
    from ..record.reading import read_result
    from ..report.files import result_as_text
    from ..report.page import comparison_as_text
    from ..run import ScanInput, run_scan

    if (options.ct is None) != options.sample:
        raise OutputError("Give one CT, or a --radiograph, to score (see cac score --help).")
    settings = _settings(options)
    ct = options.make_sample if options.sample else options.ct
    names = ("series", "heart", "lesions", "pericardium")
    inputs = {name: value for name in names if (value := getattr(options, name)) is not None}
    scan = replace(from_file(options.settings, "scan", ScanInput(ct)), ct=ct, **inputs)
    earlier = read_result(options.earlier) if options.earlier else None
    name = "sample" if options.sample else stem(options.ct.resolve())
    output = OutputFolder(options.output or Path(f"{name}-cac"), options.overwrite)
    with _thread() as thread:
        models = load_models(chosen_models(model_choice(options)), scan.heart is not None, thread)
        if settings.scene:
            thread.submit(importlib.import_module, "..mrml.scene", __package__)  # takes a second
        result, comparison = run_scan(scan, settings, models, output, progress, earlier)
    print(result_as_text(result))
    if comparison:
        print(comparison_as_text(comparison))
    print(f"Results: {output.path}")
    if options.profile:
        progress.note(progress.profile())


@contextlib.contextmanager
def _thread() -> Iterator[Executor]:
    """Yield a thread that loads modules and models while the scan is read; cancel pending loads at the end."""
    thread = ThreadPoolExecutor(1)
    try:
        yield thread
    finally:
        thread.shutdown(wait=False, cancel_futures=True)
