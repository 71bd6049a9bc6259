"""The command `score`: one CT, or a chest radiograph in its place."""

from __future__ import annotations

import argparse
import contextlib
import importlib
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from ..core.files import OutputError, OutputFolder
from ..core.options import argument, option, settings_from
from ..core.progress import Progress
from .options import (
    NOTHING_WRITTEN,
    SERIES,
    Command,
    EstimateOptions,
    ExchangeOptions,
    UnusualOptions,
    extras_of_dicom,
    extras_of_networks,
    from_file,
    model_choice,
    scoring_settings,
    settings_option,
)

if TYPE_CHECKING:
    from ..run import RunSettings, Sample


@dataclass(frozen=True, kw_only=True)
class ScoreOptions(ExchangeOptions, UnusualOptions, EstimateOptions):
    """Score one CT, or estimate the probability of coronary calcium from a chest radiograph (--radiograph).

    Attributes:
        ct: DICOM folder or ZIP archive of one, NIfTI, NRRD or MHA.
        output: Folder for the results (default: the CT's name followed by -cac).
        overwrite: Replace results that are already in the folder.
        heart: Heart mask to use in place of the segmented heart.
        pericardium: Mask of all within the pericardium, to measure its fat.
        lesions: Lesions: a DICOM segmentation or structure set whose segments are coded or named by artery, or labels:
            1 LM, 2 LAD, 3 LCX, 4 RCA, 5 other; outside the arteries 8 aortic valve, 9 mitral annulus, 10 thoracic
            aorta, 11 other.
        earlier: Result of an earlier scan of the patient to compare with.
        scene: Write scene.mrb for 3D Slicer.
        profile: Print the time and memory of each step, for a report of a problem.
        radiograph: PA radiograph to score instead of a CT: DICOM (CR, DX), a grey PNG, JPEG or TIFF with bright bone,
            or a NIfTI, NRRD or MHA file of cac drr; --model selects the radiograph model, --settings add a lateral
            view, age, sex and body mass index.
    """

    ct: Path | None = argument(None, metavar="CT")
    output: Path | None = option(None, metavar="DIR")
    overwrite: bool = False
    series: str | None = option(None, SERIES, metavar="NUMBER|UID")
    heart: Path | None = option(None, metavar="MASK")
    pericardium: Path | None = option(None, metavar="MASK")
    lesions: Path | None = option(None, metavar="LABELS")
    earlier: Path | None = option(None, metavar="RESULT")
    scene: bool = False
    profile: bool = False
    settings: tuple[str, ...] = settings_option(
        '{"scoring": {"rules": {"minimum_pixels": 3}}, "results": {"identify": true}}'
    )
    radiograph: Path | None = option(None, metavar="IMAGE")


@dataclass(frozen=True, kw_only=True)
class SampleOptions(ScoreOptions):
    __doc__ = ScoreOptions.__doc__

    sample: bool = option(False, "score a digital patient with known calcium mass; needs no CT")


def add_arguments(parser: argparse.ArgumentParser, make_sample: Callable[[], Sample] | None = None) -> None:
    """Declare the command's options.

    make_sample: makes the patient of `score --sample`; without it there is no such option.
    """
    kind = SampleOptions if make_sample else ScoreOptions
    Command(kind, partial(run, make_sample=make_sample), _extras, NOTHING_WRITTEN).declare(parser)


def _settings(options: ScoreOptions) -> RunSettings:
    from ..run import RunSettings

    return scoring_settings(options, RunSettings())


def _is_of_radiograph(options: ScoreOptions) -> bool:
    """True if a radiograph is to be scored, which --settings may name too."""
    if options.radiograph is None and not options.settings:
        return False
    from .radiograph import radiograph_input

    return bool(radiograph_input(options).pictures)


def _extras(options: ScoreOptions) -> tuple[str, ...]:
    if _is_of_radiograph(options):
        return ("torch",)
    settings = _settings(options)
    dicom = extras_of_dicom(settings.dicom, options.lesions)
    return (*(("scene",) if settings.scene else ()), *dicom, *extras_of_networks(options))


def run(options: ScoreOptions, progress: Progress, make_sample: Callable[[], Sample] | None = None) -> None:
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

    sample = make_sample if getattr(options, "sample", False) else None
    ct = sample or options.ct
    if ct is None or (sample and options.ct):
        raise OutputError("Give one CT, or a --radiograph, to score (see cac score --help).")
    settings = _settings(options)
    scan = replace(from_file(options.settings, "scan", ScanInput(ct)), ct=ct)
    scan = settings_from(options, scan, ("series", "heart", "lesions", "pericardium"))
    earlier = read_result(options.earlier) if options.earlier else None
    name = stem(options.ct.resolve()) if options.ct else "sample"
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
