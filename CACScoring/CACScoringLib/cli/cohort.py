"""The command `cohort`: many CTs, on all cores."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..core.errors import CTError, OutputError
from ..core.options import argument, option
from ..core.progress import Progress
from ..core.text import printable
from .options import (
    Command,
    EstimateOptions,
    ExchangeOptions,
    cluster_option,
    extras_of_cluster,
    extras_of_networks,
    model_choice,
    scoring_settings,
    settings_option,
)

if TYPE_CHECKING:
    from ..core.progress import ScanState
    from ..run import RunSettings
    from ..scans.source import ScanSource

REPORT = "report"
"""In place of a folder or table: of the results in the folder that follows a page is made."""


@dataclass(frozen=True, kw_only=True)
class CohortOptions(ExchangeOptions, EstimateOptions):
    """Score every CT in a folder, or the CTs of a table.

    Rerun the command to resume. A scan that fails is listed in failures.csv and does not stop the others. cac cohort
    report DIR writes a page about the results in DIR.

    Attributes:
        source: Folder to search for NIfTI, NRRD and MHA files and DICOM series (each series is a scan; a folder with
            ct.nii.gz is one scan), or a CSV file with the column ct and optionally name, series, heart,
            lesions, patient, session and group; paths are relative to that file.
        output: Folder for cohort.csv and one results folder per scan.
        overwrite: Score all scans again and replace earlier results.
        workers: Number of workers (default: one per core with 3 GB of free memory; all workers of a scheduler; 16 jobs
            of a batch system).
        scene: Also write scene.mrb for each scan.
        identify: Include patient name, ID and study date in the results.
        dry_run: List the scans, and which of them have a result, and write nothing.
        check: With report: proportion of scans, drawn at random, that the page lists to be checked, whatever their
            warnings.
    """

    source: tuple[str, ...] = argument(metavar="FOLDER|TABLE")
    output: Path | None = option(None, metavar="DIR")
    overwrite: bool = False
    workers: int | None = option(None, metavar="N")
    cluster: str = cluster_option("score")
    scene: bool = False
    identify: bool = False
    dry_run: bool = False
    check: float = option(0.0, metavar="PART")
    settings: tuple[str, ...] = settings_option()


def _extras(options: CohortOptions) -> tuple[str, ...]:
    if _is_report(options):
        return ("statistics",)
    settings = _settings(options)
    files = [extra for extra in ("scene", "dicom") if getattr(settings, extra)]
    return ("cohort", *extras_of_cluster(options), *files, *extras_of_networks(options))


def _is_report(options: CohortOptions) -> bool:
    return options.source[0] == REPORT and len(options.source) == 2


def _settings(options: CohortOptions) -> RunSettings:
    from ..run import RunSettings

    return scoring_settings(options, RunSettings(saliency=False))


def run(options: CohortOptions, progress: Progress) -> None:
    """Score the cohort and say what became of its scans, or make its page. Raises CTError, OutputError."""
    if _is_report(options):
        from ..cohort.report import write_cohort_report

        print(write_cohort_report(Path(options.source[1]), options.check))
        return
    if options.check:
        raise OutputError("--check is for cac cohort report and cac review.")
    if len(options.source) != 1 or options.output is None:
        raise OutputError("Give one folder or table and --output DIR; or report and the folder of a cohort.")
    from ..cohort.cohort import listed_scans, score_cohort
    from ..cohort.folder import FAILURES

    source = Path(options.source[0])
    if options.dry_run:
        _print_scans(listed_scans(source, options.output, options.workers, progress))
        return
    how = _settings(options), model_choice(options)
    states = score_cohort(source, options.output, *how, options.workers, options.overwrite, progress)
    _print_outcome(states, options.output)
    failed = [state for state in states if state.state == "failed"]
    if len(failed) < len(states):
        progress.done(options.output)
    if failed:
        scans = "No scan" if len(failed) == len(states) else f"{len(failed)} of {len(states)} scans"
        outcome = "could be scored" if len(failed) == len(states) else "could not be scored"
        raise CTError(f"{scans} {outcome}. The reasons are in {options.output / FAILURES}.")


def _print_outcome(states: Sequence[ScanState], output: Path) -> None:
    """Print how many scans were scored, and how, and the reason of each that was not."""
    count, by_facts = Counter(state.state for state in states), sum(state.by_facts for state in states)
    counts = [f"{count['done'] - by_facts} scored", f"{count['skipped']} scored before", f"{count['failed']} failed"]
    if by_facts:
        counts.insert(1, f"{by_facts} scored again by their facts, with the new calibration")
    print(f"{output}: {', '.join(counts)}")
    for state in states:
        if state.state == "failed":
            print(f"  {state.name}: {state.reason}")
        elif state.by_facts or state.facts_fault:
            print(f"  {state.name}: {'by its facts' if state.by_facts else f'from the CT. {state.facts_fault}'}")


def _print_scans(scans: Sequence[tuple[ScanSource, bool]]) -> None:
    """Print a line per scan. scans: Scans, and whether they have a result."""
    for scan, has_result in scans:
        series = f", series {scan.series}" if scan.series else ""
        print(printable(f"{'scored' if has_result else 'new':6} {scan.name}: {scan.ct}{series}", message=True))
    done = sum(has_result for _, has_result in scans)
    print(f"{len(scans)} scans, of which {done} have a result. Nothing was written.")


INTERRUPTED = "Interrupted. Finished scans are kept; rerun the command to resume."
add_arguments = Command(CohortOptions, run, _extras, INTERRUPTED).declare
