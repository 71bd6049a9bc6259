"""The command `score`: one CT, or a chest radiograph in its place."""

from __future__ import annotations

import argparse
import contextlib
import importlib
import json
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..core.errors import OutputError
from ..core.files import OutputFolder
from ..core.options import option, settings_from
from ..core.progress import Progress
from ..record.score_record import is_result, severe_first
from .options import (
    NOTHING_WRITTEN,
    Command,
    ScoreOptions,
    extras_of_dicom,
    extras_of_networks,
    from_file,
    model_choice,
    scoring_settings,
)

if TYPE_CHECKING:
    from ..record.score_record import ScoreRecord
    from ..run import RunSettings, SamplePatient


@dataclass(frozen=True, kw_only=True)
class SampleOptions(ScoreOptions):
    __doc__ = ScoreOptions.__doc__

    sample: bool = option(False, "score a digital patient with known calcium mass; needs no CT")


def add_arguments(parser: argparse.ArgumentParser, make_sample: Callable[[], SamplePatient] | None = None) -> None:
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


def _is_of_result(options: ScoreOptions) -> bool:
    """True if a stored result is to be scored again by labels."""
    return options.ct is not None and is_result(options.ct)


def _extras(options: ScoreOptions) -> tuple[str, ...]:
    if _is_of_radiograph(options):
        return ("torch",)
    if _is_of_result(options):
        return extras_of_dicom(False, options.lesions)
    settings = _settings(options)
    dicom = extras_of_dicom(settings.dicom, options.lesions)
    drawing = ("phantom",) if getattr(options, "sample", False) else ()
    return (*(("scene",) if settings.scene else ()), *drawing, *dicom, *extras_of_networks(options))


def run(options: ScoreOptions, progress: Progress, make_sample: Callable[[], SamplePatient] | None = None) -> None:
    """Score a CT or a radiograph and print its scores. Raises CTError, OutputError."""
    if _is_of_radiograph(options):
        if options.json:
            raise OutputError("--json prints scores of a CT. Read scores.json in the results of a radiograph.")
        from . import radiograph

        radiograph.run(options, progress)
        return
    if _is_of_result(options):
        _rescore(options, progress)
        return
    # Imported here so that `cac --help` and a mistyped option answer at once.
    from ..io.reading import stem
    from ..models.choice import chosen_models, load_models
    from ..record.score_record import read_result
    from ..report.files import result_as_text
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
        models = load_models(chosen_models(model_choice(options)), thread)
        if settings.scene:
            thread.submit(importlib.import_module, "..mrml.scene", __package__)  # takes a second
        result, comparison = run_scan(scan, settings, models, output, progress, earlier, options.different_patients)
    if options.json:
        print(json.dumps(totals(result.record, settings.identify), indent=1, ensure_ascii=False))
        return
    print(result_as_text(result))
    if comparison:
        from ..report.comparison import comparison_as_text

        print(comparison_as_text(comparison))
    print(f"Results: {output.path}")


def totals(record: ScoreRecord, identify: bool) -> dict[str, Any]:
    """Return the totals of `scores.json` with its keys: warnings, and of each method status, total and arteries."""
    content = record.as_json(identify)
    methods = {
        name: {key: method[key] for key in ("status", "reviewed", "total", "arteries")}
        for name, method in content["methods"].items()
    }
    return {key: content[key] for key in ("schema", "input", "warnings", "categories")} | {"methods": methods}


def _rescore(options: ScoreOptions, progress: Progress) -> None:
    """Score a stored result again by labels. Raises CTError, OutputError."""
    from ..report.files import result_as_text
    from ..rescoring import rescore
    from ..run import write_result

    assert options.ct is not None
    folder = options.ct.resolve() if options.ct.is_dir() else options.ct.resolve().parent
    if options.lesions is None:
        raise OutputError(f"{folder} is a result. Give --lesions LABELS to score it by these, or give a CT.")
    usual, kept = type(options)(ct=options.ct), ("lesions", "reader", "output", "overwrite")
    names = [entry.name for entry in fields(options) if entry.name not in kept]
    if others := [name for name in names if getattr(options, name) != getattr(usual, name)]:
        raise OutputError(f"A result keeps its settings. Leave out {', '.join(others)}, or give the CT in its place.")
    output = OutputFolder(options.output or Path(f"{folder.name}-labels"), options.overwrite)
    progress.begin(["reading", "scores", "report"])
    result = rescore(folder, options.lesions, options.reader, progress)
    identify = result.record.acquisition.identifies
    write_result(output, result, replace(_settings(options), identify=identify, scene=False), progress)
    for warning in severe_first(result.record.warnings):
        progress.warning(warning)
    progress.done(output.path)
    print(result_as_text(result))
    print(f"Results: {output.path}")


@contextlib.contextmanager
def _thread() -> Iterator[Executor]:
    """Yield a thread that loads modules and models while the scan is read; cancel pending loads at the end."""
    thread = ThreadPoolExecutor(1)
    try:
        yield thread
    finally:
        thread.shutdown(wait=False, cancel_futures=True)
