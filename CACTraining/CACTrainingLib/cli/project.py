"""The command `cac project`: projects of annotated scans, as the training panel uses them."""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from CACScoringLib.cli.main import add_progress_argument
from CACScoringLib.core.ct import CTError, ScanWarning
from CACScoringLib.core.files import whole
from CACScoringLib.core.output import OutputError
from CACScoringLib.core.progress import Progress
from CACScoringLib.core.text import printable, some

from ..project.project import USES, NewScan, Project, ProjectError, ProjectWriteError

if TYPE_CHECKING:
    from ..statistics.bootstrap import Estimate

NETWORKS = ("heart", "slices", "decomposition")
METHODS = ("supervised", "labels", "cyclegan")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's actions."""
    parser.description = (
        "A project is a folder with the list of scans that are annotated and trained on, their "
        "annotations, and the models and studies made from it. The scans stay where they are."
    )
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    for name, (text, declare, run) in _ACTIONS.items():
        action = actions.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
        action.add_argument("project", type=Path, metavar="DIR", help="folder of the project")
        declare(action)
        add_progress_argument(action)
        interrupted = "Interrupted. What was done stays; run the same command again to go on."
        action.set_defaults(run=run, interrupted=interrupted)


def _new_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--name", default="", help="of the project (default: that of its folder)")


def _new(options: argparse.Namespace, progress: Progress) -> None:
    project = Project.create(options.project, options.name)
    progress.done(project.folder)
    print(f"{project.folder}: a new project, {project.name}")


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "sources",
        type=Path,
        nargs="+",
        metavar="SOURCE",
        help="a CT file, a folder of scans (DICOM, NIfTI, NRRD, MHA), a cohort of digital patients, COCA, or a table "
        "(CSV) with the column ct and, where you have them, name, series, patient, heart, lesions",
    )
    parser.add_argument(
        "--labels", type=Path, metavar="DIR", help="folder with segmentations of the scans, by the scans' names"
    )


def _add(options: argparse.Namespace, progress: Progress) -> None:
    from ..project.importers.sources import find_new_scans

    project = _open(options.project, progress)
    progress.begin(["finding scans", "adding scans"])
    found: list[NewScan] = []
    with progress.step("finding scans"):
        for source in options.sources:
            scans, warnings = find_new_scans(source, progress.counted, options.labels)
            found += scans
            for warning in warnings:
                progress.warning(ScanWarning("source-doubt", warning))
    with progress.step("adding scans"):
        result = project.add(found, progress.counted)
    for name, same in result.duplicates:
        progress.warning(ScanWarning("scan-duplicate", f"{name} was not added: it is the same scan as {same}."))
    for name, why in result.failed:
        progress.warning(ScanWarning("scan-failed", f"{name} was not added. {why}"))
    _tell(options, "added", added=len(result.added))
    if len(result.failed) == len(found):
        raise ProjectError(f"None of the {len(found)} scans could be added; the warnings say why.")
    progress.done(project.folder)
    print(
        f"{project.folder}: {len(result.added)} scans added, {len(result.duplicates)} there already, "
        f"{len(result.failed)} that cannot be used; {len(project.scans)} in all"
    )


def _list_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--annotator", metavar="NAME", help="annotator whose work is shown (default: all)")


def _list(options: argparse.Namespace, progress: Progress) -> None:
    project = _open(options.project, progress)
    gone = {scan.id for scan in project.missing()}
    states = {scan.id: _annotated(project, scan.id, scan.id in gone, options.annotator) for scan in project.scans}
    rows = [(scan.id, scan.name, scan.patient, scan.use or "–", states[scan.id]) for scan in project.scans]
    _print_table(("id", "name", "patient", "use", "state"), rows)
    progress.done(project.folder)


def _annotated(project: Project, scan_id: str, missing: bool, only: str | None) -> str:
    """Work of annotators on a scan, in words. only: the one that is shown; None for all."""
    from ..project.annotations import annotators, slice_annotations

    parts = ["missing"] if missing else []
    for name in annotators(project, scan_id, only):
        count = len(slice_annotations(project, scan_id, name).labels)
        parts.append(f"{name}: {count} slices")
    return "; ".join(parts) or "new"


def _check_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--network", choices=NETWORKS, help="network to be trained (default: any)")
    parser.add_argument("--method", choices=METHODS, default="supervised", help="method of training the decomposition")
    parser.add_argument("--annotator", metavar="NAME", help="annotator whose annotations are trained on (default: all)")


def _check(options: argparse.Namespace, progress: Progress) -> None:
    from ..data.project_check import check_project

    project = _open(options.project, progress)
    progress.begin(["check"])
    with progress.step("check"):
        findings = check_project(project, options.network, options.method, options.annotator)
    for finding in findings:
        scans = f" ({some(finding.scans)})" if finding.scans else ""
        print(printable(f"{finding.severity}: {finding.message}{scans}", message=True))
        _tell(options, "finding", severity=finding.severity, message=finding.message, scans=finding.scans)
    errors = sum(finding.severity == "error" for finding in findings)
    if errors:
        raise ProjectError(f"Problems to be solved before training can start: {errors}.")
    progress.done(project.folder)
    if not findings:
        print("Nothing is missing.")


def _split_arguments(parser: argparse.ArgumentParser) -> None:
    for use, share in zip(USES, (0.6, 0.2, 0.2), strict=True):
        parser.add_argument(f"--{use}", type=float, default=share, metavar="SHARE", help=f"(default: {share})")
    parser.add_argument("--seed", type=int, default=0, help="the same seed gives the same split")


def _split(options: argparse.Namespace, progress: Progress) -> None:
    from ..project.split import patient_kinds

    project = _open(options.project, progress)
    shares = (options.training, options.validation, options.test)
    given = project.split(shares, options.seed, patient_kinds(project))
    progress.done(project.folder)
    uses = {scan.patient: scan.use for scan in project.scans}
    counts = ", ".join(f"{sum(use == own for own in uses.values())} for {use}" for use in USES)
    print(f"{project.folder}: {len(given)} patients were given a use; now {counts}")


def _relocate_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("old", type=Path, metavar="OLD", help="former folder of the scans")
    parser.add_argument("new", type=Path, metavar="NEW", help="present folder of the scans")


def _relocate(options: argparse.Namespace, progress: Progress) -> None:
    project = _open(options.project, progress)
    progress.begin(["comparing scans"])
    with progress.step("comparing scans"):
        count = project.relocate(options.old, options.new, progress.counted)
    missing = len(project.missing())
    _tell(options, "relocated", count=count, missing=missing)
    progress.done(project.folder)
    print(f"{project.folder}: {count} scans found again, {missing} are still missing")


def _use_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("patient", metavar="PATIENT", help="patient, as cac project list names it")
    parser.add_argument("use", choices=(*USES, "none"), help="use of all scans of the patient; none removes it")


def _use(options: argparse.Namespace, progress: Progress) -> None:
    project = _open(options.project, progress)
    project.set_use({options.patient: "" if options.use == "none" else options.use})
    progress.done(project.folder)
    print(f"{project.folder}: patient {options.patient} is stored for {options.use}")


def _remove_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("scan", metavar="ID", help="number of the scan, such as 0001")


def _remove(options: argparse.Namespace, progress: Progress) -> None:
    project = _open(options.project, progress)
    project.remove(options.scan)
    progress.done(project.folder)
    print(
        f"{project.folder}: scan {options.scan} was removed; its annotations are kept in {project.folder / 'removed'}"
    )


def _agreement_arguments(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(extras=lambda options: ("studies",))
    _add_scan_argument(parser, "to compare")


def _agreement(options: argparse.Namespace, progress: Progress) -> None:
    from ..project.agreement import agreement

    project = _open(options.project, progress)
    progress.begin(["agreement"])
    with progress.step("agreement"):
        rows, warnings = agreement(project, options.scan or None)
    for warning in warnings:
        progress.warning(ScanWarning("annotation-doubt", warning))
    for row in rows:
        _tell(options, "agreement", **{name: _as_json(value) for name, value in vars(row).items()})
    progress.done(project.folder)
    if not rows:
        print("No scan has been annotated by two.")
        return
    columns = ("first", "second", "scans", "slices", "unsure", "kappa", "same", "regions", "heart")
    _print_table(columns, [[_shown(getattr(row, name)) for name in columns] for row in rows])


def _prepare_arguments(parser: argparse.ArgumentParser) -> None:
    _add_scan_argument(parser, "to prepare")
    parser.add_argument(
        "--model",
        type=Path,
        action="append",
        default=[],
        metavar="CARD",
        help="card of a model for territories, the heart alone or slices to use instead of the one that comes with CAC",
    )
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--overwrite", action="store_true", help="make again proposals that exist already")
    parser.add_argument(
        "--image",
        type=Path,
        metavar="TARGET.nrrd",
        help="write the CT of the single --scan to this file as well, in axial slices",
    )


def _prepare(options: argparse.Namespace, progress: Progress) -> None:
    from ..project.proposals import propose, read_proposal

    project = _open(options.project, progress)
    scans = [project.scan(id_) for id_ in options.scan] or list(project.scans)
    progress.begin([*(["reading"] if options.image else []), "proposals"])
    if options.image:
        if len(options.scan) != 1 or options.image.suffix.lower() != ".nrrd":
            raise OutputError("With --image, name one --scan, and a file that ends with .nrrd.")
        with progress.step("reading"):
            _write_image(project, options.scan[0], options.image)
    waiting = [scan for scan in scans if options.overwrite or read_proposal(project, scan.id) is None]
    failed = 0
    with progress.step("proposals"):
        for n, scan in enumerate(waiting, 1):
            try:
                proposal = propose(project, scan.id, options.device, options.model)
            except ProjectWriteError:
                raise
            except CTError as error:
                failed += 1
                progress.warning(
                    ScanWarning("scan-failed", f"There is no proposal for {scan.id}, {scan.name}. {error}")
                )
            else:
                for warning in proposal.warnings:
                    progress.warning(ScanWarning("proposal-doubt", f"{scan.id}, {scan.name}: {warning}"))
            progress.counted(n, len(waiting))
    progress.done(project.folder)
    print(
        f"{project.folder}: {len(waiting) - failed} scans prepared, {len(scans) - len(waiting)} had been prepared "
        f"before, {failed} could not be"
    )


def _write_image(project: Project, scan_id: str, target: Path) -> None:
    """The CT on its own grid, LPS, for programs that have no reader of ours. Raises CTError, OutputError."""
    import SimpleITK as sitk

    from CACScoringLib.io.reading import read_ct

    scan = project.scan(scan_id)
    image = read_ct(scan.ct, scan.series).image
    try:
        with whole(target) as half:
            sitk.WriteImage(image, str(half))
    except (RuntimeError, OSError) as error:
        raise OutputError(f"{target} cannot be written. Check that its folder is there and has space left.") from error


def _tell(options: argparse.Namespace, event: str, **facts: object) -> None:
    """A line for the program that reads the progress, if one does: what the command has found out."""
    if options.progress == "json":
        print(json.dumps({"event": event, **facts}), file=sys.stderr, flush=True)


def _as_json(value: Estimate | int | str) -> object:
    if isinstance(value, int | str):
        return value
    numbers = {name: getattr(value, name) for name in ("value", "low", "high", "n")}
    return {name: number if math.isfinite(number) else None for name, number in numbers.items()}


def _open(folder: Path, progress: Progress) -> Project:
    project = Project.open(folder)
    for warning in project.warnings:
        progress.warning(ScanWarning("project-doubt", warning))
    return project


def _add_scan_argument(parser: argparse.ArgumentParser, what: str) -> None:
    parser.add_argument(
        "--scan", action="append", default=[], metavar="ID", help=f"scan {what} (default: all; may be repeated)"
    )


def _shown(value: Estimate | int | str) -> str:
    if isinstance(value, int | str):
        return str(value)
    interval = "" if math.isnan(value.low) else f" [{value.low:.3g}, {value.high:.3g}]"
    return "–" if math.isnan(value.value) else f"{value.value:.3g}{interval} (n = {value.n})"


def _print_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    widths = [max(len(row[n]) for row in (columns, *rows)) for n in range(len(columns))]
    for row in (columns, *rows):
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


_ACTIONS = {
    "new": ("create an empty project", _new_arguments, _new),
    "add": ("add scans to a project", _add_arguments, _add),
    "list": ("show the scans of a project", _list_arguments, _list),
    "check": ("check what a project lacks before training can start", _check_arguments, _check),
    "split": ("assign patients that have no use to training, validation or test", _split_arguments, _split),
    "relocate": ("update the paths of scans that were moved", _relocate_arguments, _relocate),
    "use": ("set the use of a patient", _use_arguments, _use),
    "remove": ("remove a scan from a project; nothing is deleted", _remove_arguments, _remove),
    "agreement": ("compare annotators with each other and with the truth", _agreement_arguments, _agreement),
    "prepare": ("propose the heart and the slices of scans, to annotate from", _prepare_arguments, _prepare),
}
