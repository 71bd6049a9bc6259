"""The command `cohort`: many CTs, on all cores."""

from __future__ import annotations

import argparse
import re
from collections import Counter
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from ..core.ct import CTError
from ..core.output import OutputError
from ..core.progress import Progress
from .archive_options import access, add_access_arguments, add_filter_arguments, wanted_series
from .cluster_option import add_cluster_argument, extras_of_cluster
from .options import (
    add_dicom_argument,
    add_estimate_argument,
    add_input_arguments,
    add_network_arguments,
    add_rule_arguments,
    extras_of_dicom,
    extras_of_estimates,
    model_choice,
    score_settings,
)

if TYPE_CHECKING:
    from ..cohort.scans import CohortScan

REPORT, OMOP = "report", "omop"
"""In place of a folder or table: of the results in the folder that follows a page is made, or tables for databases."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.description = (
        "Score every CT below a folder, the CTs that a table lists, or series of an archive. The same command resumes "
        "an interrupted run. A scan that fails is listed in failures.csv and does not stop the others. "
        "cac cohort report DIR makes a page about the results in DIR, cac cohort omop DIR --keys TABLE makes tables of "
        "the OMOP common data model."
    )
    add = parser.add_argument
    add(
        "source",
        nargs="*",
        metavar="FOLDER|TABLE",
        help="folder to search for NIfTI, NRRD and MHA files and DICOM series (each series is a scan; a folder that "
        "holds ct.nii.gz is one scan; in BIDS trees each _ct image is one), or a CSV or parquet file with the column "
        "ct and, where needed, name, series, heart, lesions, patient, session and group; paths are relative to that "
        "file, and ct may be an address (s3://, gs://, https://, or ARCHIVE/studies/UID/series/UID). The result of a "
        "query of idc-index is such a file too",
    )
    add(
        "--archive",
        metavar="ARCHIVE",
        help="in place of a folder or table: score the series of a DICOM archive that are chosen by the options below; "
        "an address as of cac pull",
    )
    add(
        "--output",
        type=Path,
        metavar="DIR",
        help="folder for cohort.csv and one results folder per scan",
    )
    add(
        "--keys",
        type=Path,
        metavar="TABLE",
        help="of omop: a CSV with the columns folder (as in cohort.csv), person_id, procedure_occurrence_id, "
        "image_occurrence_date, image_study_uid and image_series_uid",
    )
    add("--overwrite", action="store_true", help="score all scans again and replace earlier results")
    add(
        "--workers",
        type=int,
        metavar="N",
        help="number of workers (default: one per core, as far as free memory allows; all that a scheduler has; "
        "16 of a batch system)",
    )
    add_cluster_argument(parser, "scores")
    add("--scene", action="store_true", help="also write scene.mrb for each scan")
    add("--no-healthy", action="store_true", help="do not write healthy.nii.gz, which takes up most of the space")
    add_input_arguments(parser)
    add_dicom_argument(parser)
    add_estimate_argument(add_network_arguments(parser))
    add_rule_arguments(parser)
    add_access_arguments(parser)
    add_filter_arguments(parser)
    parser.set_defaults(
        run=run,
        extras=lambda options: (
            "cohort",
            *extras_of_cluster(options),
            *(("archive",) if options.archive else ()),
            *(_extras_of_addresses(Path(options.source[0])) if options.source else ()),
            *(("scene",) if options.scene else ()),
            *extras_of_dicom(options),
            *extras_of_estimates(options),
        ),
        interrupted="Interrupted. Finished scans are kept; run the same command again to continue.",
    )


def _extras_of_addresses(table: Path) -> set[str]:
    """What scans need that a table lists and that have to be fetched. What cannot be read is told later."""
    if table.name.lower().endswith(".parquet"):
        return {"remote"}
    try:
        text = table.read_bytes() if table.is_file() else b""
    except OSError:
        text = b""
    found = re.findall(rb"\b(?:s3|gs|https?|dimses?)://[^\s,;\"']+", text)
    return {"archive" if b"/series/" in address else "remote" for address in found}


def run(options: argparse.Namespace, progress: Progress) -> None:
    """Score the cohort and say what became of its scans, or make its page. Raises CTError, OutputError."""
    if options.source[:1] == [REPORT] and len(options.source) == 2:
        from ..cohort.report import write_cohort_report

        print(write_cohort_report(Path(options.source[1])))
        return
    if options.source[:1] == [OMOP] and len(options.source) == 2:
        from ..cohort.omop import write_omop

        if options.keys is None:
            raise OutputError("The persons have to be known. Give --keys, a table with a person_id for each folder.")
        print(write_omop(Path(options.source[1]), options.keys))
        return
    from ..archive.scans import fetched
    from ..cohort.cohort import Sharing, score_cohort
    from ..cohort.folder import FAILURES
    from ..run import RunSettings

    source = _source(options)
    healthy = not options.no_healthy
    settings = RunSettings(
        score_settings(options), options.identify, options.scene, healthy, saliency=False, dicom=options.dicom
    )
    sharing = Sharing(workers=options.workers)
    fetch = partial(fetched, access(options))
    states = score_cohort(
        source, options.output, settings, model_choice(options), sharing, options.overwrite, progress, fetch
    )
    count = Counter(state.state for state in states)
    failed = [state for state in states if state.state == "failed"]
    print(f"{options.output}: {count['done']} scored, {count['skipped']} scored before, {count['failed']} failed")
    for state in failed:
        print(f"  {state.name}: {state.reason}")
    if len(failed) == len(states):
        raise CTError(f"No scan could be scored. The reasons are in {options.output / FAILURES}.")
    progress.done(options.output)


def _source(options: argparse.Namespace) -> Path | list[CohortScan]:
    """The folder or table, or the scans that an archive has. Raises ArchiveError, OutputError."""
    given = len(options.source) + (options.archive is not None)
    if given != 1 or options.output is None:
        raise OutputError(
            "Give one folder or table, or --archive, and --output DIR; or report and the folder of a cohort."
        )
    wanted = wanted_series(options)
    if options.archive is None:
        if wanted.is_narrow:
            raise OutputError("Series are chosen in an archive only. Give --archive, or list scans in a table.")
        return Path(options.source[0])
    if not wanted.is_narrow:
        raise OutputError("This would be everything in the archive. Choose by patient, study, date or the like.")
    from ..archive.connection import connect
    from ..archive.scans import scans_of_archive
    from ..archive.transfer import wanted_of

    found = wanted_of(connect(options.archive, access(options)), wanted)
    return scans_of_archive(options.archive, found, options.identify)
