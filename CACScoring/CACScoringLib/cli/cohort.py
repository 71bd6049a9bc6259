"""The command `cohort`: many CTs, on all cores."""

from __future__ import annotations

import argparse
import re
from collections import Counter
from pathlib import Path

from ..core.ct import CTError
from ..core.output import OutputError
from ..core.progress import Progress
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

REPORT = "report"
"""In place of a folder or table: a page is made about the results in the folder that follows."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.description = (
        "Score every CT below a folder, or the CTs that a table lists. The same command resumes an interrupted run. "
        "A scan that fails is listed in failures.csv and does not stop the others. "
        "cac cohort report DIR makes a page about the results in DIR."
    )
    add = parser.add_argument
    add(
        "source",
        nargs="+",
        metavar="FOLDER|TABLE",
        help="folder to search for NIfTI, NRRD and MHA files and DICOM series (each series is a scan; a folder that "
        "holds ct.nii.gz is one scan), or a CSV or parquet file with the column ct and, where needed, name, series, "
        "heart, lesions, patient and group; paths are relative to that file, and ct may be an address (s3://, gs://, "
        "https://). The result of a query of idc-index is such a file too",
    )
    add(
        "--output",
        type=Path,
        metavar="DIR",
        help="folder for cohort.csv and one results folder per scan",
    )
    add("--overwrite", action="store_true", help="score all scans again and replace earlier results")
    add(
        "--workers",
        type=int,
        metavar="N",
        help="number of workers (default: one per core, as far as free memory allows; all that a scheduler has; "
        "16 of a batch system)",
    )
    add(
        "--cluster",
        default="local",
        metavar="CLUSTER",
        help="who scores: local (default: processes of this computer), the address tcp://HOST:PORT of a Dask "
        "scheduler, slurm, kubernetes, or a YAML or JSON file with the class of a Dask cluster and its kwargs",
    )
    add("--scene", action="store_true", help="also write scene.mrb for each scan")
    add("--no-healthy", action="store_true", help="do not write healthy.nii.gz, which takes up most of the space")
    add_input_arguments(parser)
    add_dicom_argument(parser)
    add_estimate_argument(add_network_arguments(parser))
    add_rule_arguments(parser)
    parser.set_defaults(
        run=run,
        extras=lambda options: (
            "cohort",
            *(("cluster",) if options.cluster in ("slurm", "kubernetes") else ()),
            *(("remote",) if _has_addresses(Path(options.source[0])) else ()),
            *(("scene",) if options.scene else ()),
            *extras_of_dicom(options),
            *extras_of_estimates(options),
        ),
        interrupted="Interrupted. Finished scans are kept; run the same command again to continue.",
    )


def _has_addresses(table: Path) -> bool:
    """Whether a table may list scans that have to be fetched. What cannot be read is told later."""
    if table.name.lower().endswith(".parquet"):
        return True
    try:
        return table.is_file() and re.search(rb"\b(s3|gs|https?)://", table.read_bytes()) is not None
    except OSError:
        return False


def run(options: argparse.Namespace, progress: Progress) -> None:
    """Score the cohort and say what became of its scans, or make its page. Raises CTError, OutputError."""
    if options.source[0] == REPORT and len(options.source) == 2:
        from ..cohort.report import write_cohort_report

        print(write_cohort_report(Path(options.source[1])))
        return
    if len(options.source) != 1 or options.output is None:
        raise OutputError("Give one folder or table, and --output DIR; or report and the folder of a cohort.")
    from ..cohort.cluster import cluster_choice
    from ..cohort.cohort import Sharing, score_cohort
    from ..cohort.folder import FAILURES
    from ..run import RunSettings

    healthy = not options.no_healthy
    settings = RunSettings(
        score_settings(options), options.identify, options.scene, healthy, saliency=False, dicom=options.dicom
    )
    sharing = Sharing(cluster_choice(options.cluster), options.workers)
    states = score_cohort(
        Path(options.source[0]), options.output, settings, model_choice(options), sharing, options.overwrite, progress
    )
    count = Counter(state.state for state in states)
    failed = [state for state in states if state.state == "failed"]
    print(f"{options.output}: {count['done']} scored, {count['skipped']} scored before, {count['failed']} failed")
    for state in failed:
        print(f"  {state.name}: {state.reason}")
    if len(failed) == len(states):
        raise CTError(f"No scan could be scored. The reasons are in {options.output / FAILURES}.")
    progress.done(options.output)
