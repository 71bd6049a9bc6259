"""The command `cac project`: projects of annotated scans, as the training panel uses them."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from CACScoringLib.cli.options import DEVICES, Command, command, declare_actions
from CACScoringLib.core.ct import ScanWarning
from CACScoringLib.core.errors import OutputError, ProjectError
from CACScoringLib.core.files import atomic_write
from CACScoringLib.core.options import argument, option, options_of
from CACScoringLib.core.progress import Progress
from CACScoringLib.core.text import abbreviated_list, printable

from ..project.project import NewScan, Project
from ..project.split import USES

if TYPE_CHECKING:
    from CACScoringLib.statistics.bootstrap import Estimate

_REMEDIES = {"labels": "cac train decomposition --preset compact-labels"}
"""Commands for remedies of findings that are no action of `cac project`."""


# Parameters of several actions. `_run` opens the project of the folder that the command line names.
OpenedProject = Annotated[Project, argument(text="folder of the project", metavar="DIR", type=Path)]
Folder = Annotated[Path, argument(text="folder of the project", metavar="DIR")]
Annotator = Annotated[str | None, option(metavar="NAME")]
Scans = Annotated[tuple[str, ...], option(metavar="ID")]
Share = Annotated[float, option(metavar="SHARE")]


def _new(project: Folder, progress: Progress, name: str = "") -> None:
    """Create an empty project.

    Args:
        name: Name of the project (default: that of its folder).
    """
    created = Project.create(project, name)
    progress.done(created.folder)
    print(f"{created.folder}: a new project, {created.name}")


def _run(action: Callable[..., str], options: Any, progress: Progress) -> None:
    """Run an action on the opened project, and print the text that it returns. Raises CTError, OutputError."""
    project = Project.open(options.project)
    for warning in project.warnings:
        progress.warning(ScanWarning("project-doubt", warning))
    text = action(**vars(options) | {"project": project}, progress=progress)
    progress.done(project.folder)
    print(text)


def _add(
    project: OpenedProject,
    sources: Annotated[tuple[Path, ...], argument(metavar="SOURCE")],
    progress: Progress,
    labels: Annotated[Path | None, option(metavar="DIR")] = None,
) -> str:
    """Add scans to a project.

    Args:
        sources: A CT file, a folder of scans (DICOM, NIfTI, NRRD, MHA), a cohort of digital patients, COCA, or a table
            (CSV) with the column ct and, where you have them, name, series, patient, heart, lesions.
        labels: Folder with segmentations of the scans, by the scans' names.
    """
    from ..references.folder import find_new_scans

    progress.begin(["finding scans", "adding scans"])
    new: list[NewScan] = []
    with progress.step("finding scans"):
        for source in sources:
            scans, warnings = find_new_scans(source, progress.counted, labels)
            new += scans
            for warning in warnings:
                progress.warning(ScanWarning("source-doubt", warning))
    with progress.step("adding scans"):
        result = project.add(new, progress.counted)
    for name, original in result.duplicates:
        progress.warning(ScanWarning("scan-duplicate", f"{name} was not added: it is the same scan as {original}."))
    for name, why in result.failed:
        progress.warning(ScanWarning("scan-failed", f"{name} was not added. {why}"))
    progress.event("added", added=len(result.added))
    if len(result.failed) == len(new):
        raise ProjectError(f"None of the {len(new)} scans could be added; the warnings say why.")
    return (
        f"{project.folder}: {len(result.added)} scans added, {len(result.duplicates)} there already, "
        f"{len(result.failed)} that cannot be used; {len(project.scans)} in all"
    )


def _list(project: OpenedProject, progress: Progress, annotator: Annotator = None) -> str:
    """Show the scans of a project.

    Args:
        annotator: Annotator whose work is shown (default: all).
    """
    missing = {scan.id for scan in project.missing()}
    states = {scan.id: _work(project, scan.id, scan.id in missing, annotator) for scan in project.scans}
    rows = [(scan.id, scan.name, scan.patient, scan.use or "–", states[scan.id]) for scan in project.scans]
    return _table(("id", "name", "patient", "use", "state"), rows)


def _work(project: Project, scan_id: str, missing: bool, annotator: str | None) -> str:
    """Text on the work of one or all annotators on a scan."""
    from ..project.annotations import annotators, slice_annotations

    parts = ["missing"] if missing else []
    for name in annotators(project, scan_id, annotator):
        parts.append(f"{name}: {len(slice_annotations(project, scan_id, name).labels)} slices")
    return "; ".join(parts) or "new"


def _check(
    project: OpenedProject,
    progress: Progress,
    network: Annotated[str | None, option(choices=("territories", "lesions", "slices", "decomposition"))] = None,
    method: Annotated[str, option(choices=("supervised", "labels", "cyclegan"))] = "supervised",
    annotator: Annotator = None,
    data: Annotated[tuple[Path, ...], option(metavar="DIR")] = (),
) -> str:
    """Check what a project lacks before training can start.

    Args:
        network: Network to be trained (default: any).
        method: Method of training the decomposition.
        annotator: Annotator whose annotations are trained on (default: all).
        data: Further folder or project that training learns from; may be repeated.
    """
    from ..data.project_check import check_project

    progress.begin(["check"])
    with progress.step("check"):
        findings = check_project(project, network, method, annotator, data)
    lines = []
    for finding in findings:
        scans = f" ({abbreviated_list(finding.scans)})" if finding.scans else ""
        command = _REMEDIES.get(finding.remedy, f"cac project {finding.remedy}")
        remedy = f" Command: {command}." if finding.remedy else ""
        lines.append(printable(f"{finding.severity}: {finding.message}{remedy}{scans}", message=True))
        progress.event("finding", **vars(finding))
    text = "\n".join(lines) or "Nothing is missing."
    if errors := sum(finding.severity == "error" for finding in findings):
        print(text)
        raise ProjectError(f"Problems to be solved before training can start: {errors}.")
    return text


def _split(
    project: OpenedProject,
    progress: Progress,
    training: Share = 0.6,
    validation: Share = 0.2,
    test: Share = 0.2,
    seed: int = 0,
) -> str:
    """Assign patients that have no use to training, validation or test.

    Args:
        training: Share of patients for training (default: 0.6).
        validation: Share of patients for validation (default: 0.2).
        test: Share of patients for test (default: 0.2).
        seed: The same seed gives the same split.
    """
    from ..project.annotations import patient_kinds

    kinds = patient_kinds(project)
    assigned = project.split((training, validation, test), seed, kinds)
    for use in ("training", "validation"):
        patients = [scan.patient for scan in project.scans if scan.use == use]
        if patients and not any(kinds[patient] == 2 for patient in patients):
            message = f"No patient for {use} has a slice with calcium. Label more patients and split them again."
            progress.warning(ScanWarning("split-without-calcium", message))
    uses = list({scan.patient: scan.use for scan in project.scans}.values())
    counts = ", ".join(f"{uses.count(use)} for {use}" for use in USES)
    return f"{project.folder}: {len(assigned)} patients were given a use; now {counts}"


def _relocate(
    project: OpenedProject,
    old: Annotated[Path, argument(metavar="OLD")],
    new: Annotated[Path, argument(metavar="NEW")],
    progress: Progress,
) -> str:
    """Update the paths of scans that were moved.

    Args:
        old: Former folder of the scans.
        new: Present folder of the scans.
    """
    progress.begin(["comparing scans"])
    with progress.step("comparing scans"):
        count = project.relocate(old, new, progress.counted)
    missing = len(project.missing())
    progress.event("relocated", count=count, missing=missing)
    return f"{project.folder}: {count} scans found again, {missing} are still missing"


def _use(
    project: OpenedProject,
    patient: Annotated[str, argument(metavar="PATIENT")],
    use: Annotated[str, argument(choices=(*USES, "none"))],
    progress: Progress,
) -> str:
    """Set the use of a patient.

    Args:
        patient: Patient, as cac project list names it.
        use: Use of all scans of the patient; none removes it.
    """
    project.set_use({patient: "" if use == "none" else use})
    return f"{project.folder}: patient {patient} is stored for {use}"


def _remove(project: OpenedProject, scan: Annotated[str, argument(metavar="ID")], progress: Progress) -> str:
    """Remove a scan from a project; nothing is deleted.

    Args:
        scan: Number of the scan, such as 0001.
    """
    project.remove(scan)
    removed = project.folder / "removed"
    return f"{project.folder}: scan {scan} was removed; its annotations are kept in {removed}"


def _agreement(project: OpenedProject, progress: Progress, scan: Scans = ()) -> str:
    """Compare annotators with each other and with the truth.

    Args:
        scan: Scan to compare (default: all; may be repeated).
    """
    from ..project.agreement import agreement

    progress.begin(["agreement"])
    with progress.step("agreement"):
        rows, warnings = agreement(project, scan or None)
    for warning in warnings:
        progress.warning(ScanWarning("annotation-doubt", warning))
    for row in rows:
        progress.event("agreement", **{name: _as_json(value) for name, value in vars(row).items()})
    columns = ("first", "second", "scans", "slices", "unsure", "kappa", "same", "regions", "heart")
    table = _table(columns, [[_cell_text(getattr(row, name)) for name in columns] for row in rows])
    return table if rows else "No scan has been annotated by two."


def _prepare(
    project: OpenedProject,
    progress: Progress,
    scan: Scans = (),
    model: Annotated[tuple[Path, ...], option(metavar="CARD")] = (),
    device: Annotated[str, option(choices=DEVICES)] = "auto",
    overwrite: bool = False,
    image: Annotated[Path | None, option(metavar="TARGET.nrrd")] = None,
) -> str:
    """Propose the heart and the slices of scans, to annotate from.

    Args:
        scan: Scan to prepare (default: all; may be repeated).
        model: Card of a model for territories, heart or slices to use in place of the bundled one.
        overwrite: Replace existing proposals.
        image: Write the CT of the single --scan to this file as well, in axial slices.
    """
    from ..project.proposals import propose_waiting

    scans = [project.scan(id_) for id_ in scan] or list(project.scans)
    progress.begin([*(["reading"] if image else []), "proposals"])
    if image:
        if len(scan) != 1 or image.suffix.lower() != ".nrrd":
            raise OutputError("With --image, name one --scan, and a file that ends with .nrrd.")
        with progress.step("reading"):
            _write_image(project, scan[0], image)
    with progress.step("proposals"):
        prepared, failed = propose_waiting(project, scans, progress, device, model, overwrite)
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


def _as_json(value: Estimate | int | str) -> object:
    if isinstance(value, int | str):
        return value
    numbers = {name: getattr(value, name) for name in ("value", "low", "high", "n")}
    return {name: number if math.isfinite(number) else None for name, number in numbers.items()}


def _cell_text(value: Estimate | int | str) -> str:
    return "–" if not isinstance(value, int | str) and math.isnan(value.value) else str(value)


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Format rows as text with aligned columns."""
    widths = [max(len(row[n]) for row in (columns, *rows)) for n in range(len(columns))]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in (columns, *rows))
    return "\n".join(line.rstrip() for line in lines)


INTERRUPTED = "Interrupted. Finished work is kept; rerun the command to resume."


def _action(function: Callable[..., str], *extras: str) -> Command[Any]:
    return Command(options_of(function), partial(_run, function), extras, INTERRUPTED)


ACTIONS = {
    "new": command(_new, (), INTERRUPTED),
    "add": _action(_add),
    "list": _action(_list),
    "check": _action(_check),
    "split": _action(_split),
    "relocate": _action(_relocate),
    "use": _action(_use),
    "remove": _action(_remove),
    "agreement": _action(_agreement, "statistics"),
    "prepare": _action(_prepare),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's actions."""
    description = (
        "A project is a folder with the list of scans that are annotated and trained on, their annotations, and the "
        "models and studies made from it. The scans stay where they are."
    )
    declare_actions(parser, ACTIONS, description)
