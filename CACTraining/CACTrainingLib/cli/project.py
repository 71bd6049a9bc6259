"""The command `cac project`: projects of annotated scans, as the training panel uses them."""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from CACScoringLib.cli.options import add_progress_argument
from CACScoringLib.core.ct import ScanWarning
from CACScoringLib.core.files import OutputError, atomic_write
from CACScoringLib.core.progress import Progress
from CACScoringLib.core.text import abbreviated_list, printable

from ..project.files import ProjectError
from ..project.project import NewScan, Project
from ..project.split import USES

if TYPE_CHECKING:
    from ..statistics.bootstrap import Estimate

NETWORKS = ("heart", "slices", "decomposition")
METHODS = ("supervised", "labels", "cyclegan")

_REMEDIES = {"labels": "cac train decomposition --preset compact-labels"}
"""Commands for remedies of findings that are no action of `cac project`."""

Action = Callable[[Project, argparse.Namespace, Progress], str]
"""Function for an action on a project; returns the text to print."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's actions."""
    parser.description = (
        "A project is a folder with the list of scans that are annotated and trained on, their "
        "annotations, and the models and studies made from it. The scans stay where they are."
    )
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")

    def add(name: str, text: str, action: Action | None) -> Callable[..., argparse.Action]:
        subparser = actions.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.")
        subparser.add_argument("project", type=Path, metavar="DIR", help="folder of the project")
        interrupted = "Interrupted. Finished work is kept; rerun the command to resume."
        subparser.set_defaults(run=run, act=action, interrupted=interrupted)
        if action is _agreement:
            subparser.set_defaults(extras=lambda options: ("studies",))
        return subparser.add_argument

    option = add("new", "create an empty project", None)
    option("--name", default="", help="name of the project (default: that of its folder)")

    option = add("add", "add scans to a project", _add)
    sources = (
        "a CT file, a folder of scans (DICOM, NIfTI, NRRD, MHA), a cohort of digital patients, COCA, or a table "
        "(CSV) with the column ct and, where you have them, name, series, patient, heart, lesions"
    )
    option("sources", type=Path, nargs="+", metavar="SOURCE", help=sources)
    option("--labels", type=Path, metavar="DIR", help="folder with segmentations of the scans, by the scans' names")

    option = add("list", "show the scans of a project", _list)
    option("--annotator", metavar="NAME", help="annotator whose work is shown (default: all)")

    option = add("check", "check what a project lacks before training can start", _check)
    option("--network", choices=NETWORKS, help="network to be trained (default: any)")
    option("--method", choices=METHODS, default="supervised", help="method of training the decomposition")
    option("--annotator", metavar="NAME", help="annotator whose annotations are trained on (default: all)")
    text = "further folder or project that training learns from; may be repeated"
    option("--data", type=Path, action="append", default=[], metavar="DIR", help=text)

    option = add("split", "assign patients that have no use to training, validation or test", _split)
    for use, share in zip(USES, (0.6, 0.2, 0.2), strict=True):
        option(
            f"--{use}",
            type=float,
            default=share,
            metavar="SHARE",
            help=f"share of patients for {use} (default: {share})",
        )
    option("--seed", type=int, default=0, help="the same seed gives the same split")

    option = add("relocate", "update the paths of scans that were moved", _relocate)
    option("old", type=Path, metavar="OLD", help="former folder of the scans")
    option("new", type=Path, metavar="NEW", help="present folder of the scans")

    option = add("use", "set the use of a patient", _use)
    option("patient", metavar="PATIENT", help="patient, as cac project list names it")
    option("use", choices=(*USES, "none"), help="use of all scans of the patient; none removes it")

    option = add("remove", "remove a scan from a project; nothing is deleted", _remove)
    option("scan", metavar="ID", help="number of the scan, such as 0001")

    several = {"action": "append", "default": [], "metavar": "ID"}
    option = add("agreement", "compare annotators with each other and with the truth", _agreement)
    option("--scan", **several, help="scan to compare (default: all; may be repeated)")

    option = add("prepare", "propose the heart and the slices of scans, to annotate from", _prepare)
    option("--scan", **several, help="scan to prepare (default: all; may be repeated)")
    model = "card of a model for territories, heart or slices to use in place of the bundled one"
    option("--model", type=Path, action="append", default=[], metavar="CARD", help=model)
    option("--device", choices=("auto", "cpu", "cuda"), default="auto")
    option("--overwrite", action="store_true", help="replace existing proposals")
    image = "write the CT of the single --scan to this file as well, in axial slices"
    option("--image", type=Path, metavar="TARGET.nrrd", help=image)

    for subparser in actions.choices.values():
        add_progress_argument(subparser)


def run(options: argparse.Namespace, progress: Progress) -> None:
    """Create a project, or run an action on one. Raises CTError, OutputError."""
    if options.act is None:
        project = Project.create(options.project, options.name)
        text = f"{project.folder}: a new project, {project.name}"
    else:
        project = Project.open(options.project)
        for warning in project.warnings:
            progress.warning(ScanWarning("project-doubt", warning))
        text = options.act(project, options, progress)
    progress.done(project.folder)
    print(text)


def _add(project: Project, options: argparse.Namespace, progress: Progress) -> str:
    from ..project.importers.sources import find_new_scans

    progress.begin(["finding scans", "adding scans"])
    new: list[NewScan] = []
    with progress.step("finding scans"):
        for source in options.sources:
            scans, warnings = find_new_scans(source, progress.counted, options.labels)
            new += scans
            for warning in warnings:
                progress.warning(ScanWarning("source-doubt", warning))
    with progress.step("adding scans"):
        result = project.add(new, progress.counted)
    for name, original in result.duplicates:
        progress.warning(ScanWarning("scan-duplicate", f"{name} was not added: it is the same scan as {original}."))
    for name, why in result.failed:
        progress.warning(ScanWarning("scan-failed", f"{name} was not added. {why}"))
    _send(options, "added", added=len(result.added))
    if len(result.failed) == len(new):
        raise ProjectError(f"None of the {len(new)} scans could be added; the warnings say why.")
    return (
        f"{project.folder}: {len(result.added)} scans added, {len(result.duplicates)} there already, "
        f"{len(result.failed)} that cannot be used; {len(project.scans)} in all"
    )


def _list(project: Project, options: argparse.Namespace, progress: Progress) -> str:
    missing = {scan.id for scan in project.missing()}
    states = {scan.id: _work(project, scan.id, scan.id in missing, options.annotator) for scan in project.scans}
    rows = [(scan.id, scan.name, scan.patient, scan.use or "–", states[scan.id]) for scan in project.scans]
    return _table(("id", "name", "patient", "use", "state"), rows)


def _work(project: Project, scan_id: str, missing: bool, annotator: str | None) -> str:
    """Text on the work of one or all annotators on a scan."""
    from ..project.annotations import annotators, slice_annotations

    parts = ["missing"] if missing else []
    for name in annotators(project, scan_id, annotator):
        parts.append(f"{name}: {len(slice_annotations(project, scan_id, name).labels)} slices")
    return "; ".join(parts) or "new"


def _check(project: Project, options: argparse.Namespace, progress: Progress) -> str:
    from ..data.project_check import check_project

    progress.begin(["check"])
    with progress.step("check"):
        findings = check_project(project, options.network, options.method, options.annotator, options.data)
    lines = []
    for finding in findings:
        scans = f" ({abbreviated_list(finding.scans)})" if finding.scans else ""
        command = _REMEDIES.get(finding.remedy, f"cac project {finding.remedy}")
        remedy = f" Command: {command}." if finding.remedy else ""
        lines.append(printable(f"{finding.severity}: {finding.message}{remedy}{scans}", message=True))
        _send(options, "finding", **vars(finding))
    text = "\n".join(lines) or "Nothing is missing."
    if errors := sum(finding.severity == "error" for finding in findings):
        print(text)
        raise ProjectError(f"Problems to be solved before training can start: {errors}.")
    return text


def _split(project: Project, options: argparse.Namespace, progress: Progress) -> str:
    from ..project.annotations import patient_kinds

    shares = (options.training, options.validation, options.test)
    kinds = patient_kinds(project)
    assigned = project.split(shares, options.seed, kinds)
    for use in ("training", "validation"):
        patients = [scan.patient for scan in project.scans if scan.use == use]
        if patients and not any(kinds[patient] == 2 for patient in patients):
            message = f"No patient for {use} has a slice with calcium. Label more patients and split them again."
            progress.warning(ScanWarning("split-without-calcium", message))
    uses = list({scan.patient: scan.use for scan in project.scans}.values())
    counts = ", ".join(f"{uses.count(use)} for {use}" for use in USES)
    return f"{project.folder}: {len(assigned)} patients were given a use; now {counts}"


def _relocate(project: Project, options: argparse.Namespace, progress: Progress) -> str:
    progress.begin(["comparing scans"])
    with progress.step("comparing scans"):
        count = project.relocate(options.old, options.new, progress.counted)
    missing = len(project.missing())
    _send(options, "relocated", count=count, missing=missing)
    return f"{project.folder}: {count} scans found again, {missing} are still missing"


def _use(project: Project, options: argparse.Namespace, progress: Progress) -> str:
    project.set_use({options.patient: "" if options.use == "none" else options.use})
    return f"{project.folder}: patient {options.patient} is stored for {options.use}"


def _remove(project: Project, options: argparse.Namespace, progress: Progress) -> str:
    project.remove(options.scan)
    removed = project.folder / "removed"
    return f"{project.folder}: scan {options.scan} was removed; its annotations are kept in {removed}"


def _agreement(project: Project, options: argparse.Namespace, progress: Progress) -> str:
    from ..project.agreement import agreement

    progress.begin(["agreement"])
    with progress.step("agreement"):
        rows, warnings = agreement(project, options.scan or None)
    for warning in warnings:
        progress.warning(ScanWarning("annotation-doubt", warning))
    for row in rows:
        _send(options, "agreement", **{name: _as_json(value) for name, value in vars(row).items()})
    columns = ("first", "second", "scans", "slices", "unsure", "kappa", "same", "regions", "heart")
    table = _table(columns, [[_cell_text(getattr(row, name)) for name in columns] for row in rows])
    return table if rows else "No scan has been annotated by two."


def _prepare(project: Project, options: argparse.Namespace, progress: Progress) -> str:
    from ..project.proposals import propose_waiting

    scans = [project.scan(id_) for id_ in options.scan] or list(project.scans)
    progress.begin([*(["reading"] if options.image else []), "proposals"])
    if options.image:
        if len(options.scan) != 1 or options.image.suffix.lower() != ".nrrd":
            raise OutputError("With --image, name one --scan, and a file that ends with .nrrd.")
        with progress.step("reading"):
            _write_image(project, options.scan[0], options.image)
    with progress.step("proposals"):
        prepared, failed = propose_waiting(project, scans, progress, options.device, options.model, options.overwrite)
    return (
        f"{project.folder}: {prepared} scans prepared, {len(scans) - prepared - failed} had been prepared before, "
        f"{failed} could not be"
    )


def _write_image(project: Project, scan_id: str, target: Path) -> None:
    """Write the CT on its own grid in LPS, for programs that cannot read its format. Raises CTError, OutputError."""
    import SimpleITK as sitk

    from CACScoringLib.io.reading import read_ct

    scan = project.scan(scan_id)
    image = read_ct(scan.ct, scan.series).image
    try:
        with atomic_write(target) as partial_file:
            sitk.WriteImage(image, str(partial_file))
    except (RuntimeError, OSError) as error:
        raise OutputError(f"{target} cannot be written. Check that its folder is there and has space left.") from error


def _send(options: argparse.Namespace, event: str, **facts: object) -> None:
    """Write an event as a line of JSON, if the progress is read by a program."""
    if options.progress == "json":
        print(json.dumps({"event": event, **facts}), file=sys.stderr, flush=True)


def _as_json(value: Estimate | int | str) -> object:
    if isinstance(value, int | str):
        return value
    numbers = {name: getattr(value, name) for name in ("value", "low", "high", "n")}
    return {name: number if math.isfinite(number) else None for name, number in numbers.items()}


def _cell_text(value: Estimate | int | str) -> str:
    if isinstance(value, int | str):
        return str(value)
    interval = "" if math.isnan(value.low) else f" [{value.low:.3g}, {value.high:.3g}]"
    return "–" if math.isnan(value.value) else f"{value.value:.3g}{interval} (n = {value.n})"


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Format rows as text with aligned columns."""
    widths = [max(len(row[n]) for row in (columns, *rows)) for n in range(len(columns))]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in (columns, *rows))
    return "\n".join(line.rstrip() for line in lines)
