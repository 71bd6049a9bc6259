"""`cac radiographs`: pictures to learn from, of digital patients or of one's own CTs."""

from __future__ import annotations

import argparse
from pathlib import Path

from CACScoringLib.cli import main as scoring
from CACScoringLib.core.ct import ScanWarning
from CACScoringLib.core.output import OutputError
from CACScoringLib.core.progress import Progress

_AGAIN = "Interrupted. Run the same command again to go on."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's sources of radiographs."""
    sources = parser.add_subparsers(dest="source", required=True, metavar="SOURCE")
    for add, run in ((_add_digital, _digital), (_add_scans, _scans)):
        own = add(sources)
        scoring.add_progress_argument(own)
        own.set_defaults(run=run, extras=lambda options: ("studies",), interrupted=_AGAIN)


def _add_digital(sources: argparse._SubParsersAction) -> argparse.ArgumentParser:
    from ..phantom.scanner.protocol import PROTOCOLS

    parser = sources.add_parser(
        "digital",
        help="radiographs of digital patients with known calcium",
        description="Scan digital patients and project them. Four in ten have no calcium; the others have from little "
        "to much. If it is run again, it continues where it stopped.",
    )
    parser.add_argument("--patients", type=int, required=True, metavar="N", help="number of patients")
    _add_output(parser)
    parser.add_argument("--first", type=int, default=0, metavar="NUMBER", help="number of the first patient")
    parser.add_argument("--protocol", choices=PROTOCOLS, default="cardiac", help="scanning protocol")
    parser.add_argument(
        "--super-resolution",
        nargs="?",
        const="",
        metavar="MODEL",
        help="project thinner slices around the heart too: interpolated, and by a network (default: the one of CAC)",
    )
    _add_workers(parser)
    return parser


def _add_scans(sources: argparse._SubParsersAction) -> argparse.ArgumentParser:
    parser = sources.add_parser(
        "scans",
        help="radiographs of your own CTs",
        description="Project the CTs of a table (columns ct, patient; where known name, series, heart, calcium_map, "
        "age_years, sex, bmi_kg_m2 and scores), or those that cac cohort has scored. If it is run again, it continues.",
    )
    parser.add_argument("input", type=Path, metavar="TABLE|RESULTS", help="a table (CSV), or the folder of cac cohort")
    _add_output(parser)
    _add_workers(parser)
    return parser


def _add_output(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="folder of the radiographs")


def _add_workers(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--workers", type=int, metavar="N", help="number of processes (default: one per core)")


def _digital(options: argparse.Namespace, progress: Progress) -> None:
    from CACScoringLib.models.cards import find_model

    from ..radiograph.cohort import RadiographSettings, write_radiographs

    if options.workers is not None and options.workers < 1:
        raise OutputError(f"At least one worker is needed, not {options.workers}.")
    progress.begin(["radiographs"])
    asked = options.super_resolution
    model = None if asked is None else find_model("super_resolution", asked or None).card.name
    settings = RadiographSettings(options.first, options.patients, options.protocol, model)
    with progress.step("radiographs"):
        table = write_radiographs(options.output, settings, options.workers, progress.counted)
    progress.done(options.output)
    print(f"{table}: radiographs of {options.patients} digital patients")


def _scans(options: argparse.Namespace, progress: Progress) -> None:
    from CACScoringLib.cohort.workers import sensible_count

    from ..radiograph.scans import FAILURES, write_scan_radiographs

    progress.begin(["radiographs"])
    with progress.step("radiographs"):
        workers = sensible_count(1_500_000_000) if options.workers is None else options.workers
        table, failed = write_scan_radiographs(options.input, options.output, workers, progress)
    for name, reason in failed.items():
        progress.warning(ScanWarning("radiograph-failed", f"{name}: {reason}"))
    progress.done(options.output)
    told = f", {len(failed)} failed, see {FAILURES}" if failed else ""
    print(f"{table}: radiographs of CTs{told}")
