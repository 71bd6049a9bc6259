"""The command `cac project`: projects of annotated scans, as the training panel uses them."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from CACScoringLib.cli.options import DEVICES, Command, declare_actions
from CACScoringLib.core.ct import ScanWarning
from CACScoringLib.core.errors import OutputError, ProjectError
from CACScoringLib.core.files import atomic_write
from CACScoringLib.core.options import argument, option
from CACScoringLib.core.progress import Progress
from CACScoringLib.core.text import abbreviated_list, printable

from ..project.project import NewScan, Project
from ..project.split import USES

if TYPE_CHECKING:
    from ..statistics.bootstrap import Estimate

_REMEDIES = {"labels": "cac train decomposition --preset compact-labels"}
"""Commands for remedies of findings that are no action of `cac project`."""


@dataclass(frozen=True)
class ProjectOptions:
    """Options of all actions.

    Attributes:
        project: Folder of the project.
    """

    project: Path = argument(metavar="DIR")


@dataclass(frozen=True)
class NewOptions(ProjectOptions):
    """Create an empty project.

    Attributes:
        name: Name of the project (default: that of its folder).
    """

    name: str = ""


@dataclass(frozen=True, kw_only=True)
class AddOptions(ProjectOptions):
    """Add scans to a project.

    Attributes:
        sources: A CT file, a folder of scans (DICOM, NIfTI, NRRD, MHA), a cohort of digital patients, COCA, or a table
            (CSV) with the column ct and, where you have them, name, series, patient, heart, lesions.
        labels: Folder with segmentations of the scans, by the scans' names.
    """

    sources: tuple[Path, ...] = argument(metavar="SOURCE")
    labels: Path | None = option(None, metavar="DIR")


@dataclass(frozen=True)
class ListOptions(ProjectOptions):
    """Show the scans of a project.

    Attributes:
        annotator: Annotator whose work is shown (default: all).
    """

    annotator: str | None = option(None, metavar="NAME")


@dataclass(frozen=True)
class CheckOptions(ProjectOptions):
    """Check what a project lacks before training can start.

    Attributes:
        network: Network to be trained (default: any).
        method: Method of training the decomposition.
        annotator: Annotator whose annotations are trained on (default: all).
        data: Further folder or project that training learns from; may be repeated.
    """

    network: str | None = option(None, choices=("territories", "slices", "decomposition"))
    method: str = option("supervised", choices=("supervised", "labels", "cyclegan"))
    annotator: str | None = option(None, metavar="NAME")
    data: tuple[Path, ...] = option((), metavar="DIR")


@dataclass(frozen=True)
class SplitOptions(ProjectOptions):
    """Assign patients that have no use to training, validation or test.

    Attributes:
        training: Share of patients for training (default: 0.6).
        validation: Share of patients for validation (default: 0.2).
        test: Share of patients for test (default: 0.2).
        seed: The same seed gives the same split.
    """

    training: float = option(0.6, metavar="SHARE")
    validation: float = option(0.2, metavar="SHARE")
    test: float = option(0.2, metavar="SHARE")
    seed: int = 0


@dataclass(frozen=True)
class RelocateOptions(ProjectOptions):
    """Update the paths of scans that were moved.

    Attributes:
        old: Former folder of the scans.
        new: Present folder of the scans.
    """

    old: Path = argument(metavar="OLD")
    new: Path = argument(metavar="NEW")


@dataclass(frozen=True)
class UseOptions(ProjectOptions):
    """Set the use of a patient.

    Attributes:
        patient: Patient, as cac project list names it.
        use: Use of all scans of the patient; none removes it.
    """

    patient: str = argument(metavar="PATIENT")
    use: str = argument(choices=(*USES, "none"))


@dataclass(frozen=True)
class RemoveOptions(ProjectOptions):
    """Remove a scan from a project; nothing is deleted.

    Attributes:
        scan: Number of the scan, such as 0001.
    """

    scan: str = argument(metavar="ID")


@dataclass(frozen=True)
class AgreementOptions(ProjectOptions):
    """Compare annotators with each other and with the truth.

    Attributes:
        scan: Scan to compare (default: all; may be repeated).
    """

    scan: tuple[str, ...] = option((), metavar="ID")


@dataclass(frozen=True, kw_only=True)
class ReferenceOptions(ProjectOptions):
    """List annotated scans in a table, as the reference for cac validate.

    Attributes:
        use: Use of the scans (default: test).
        annotator: Annotator whose regions and labels count, where there are several.
        output: Table (CSV) to write.
    """

    use: str | None = option(None, choices=(*USES, "all"))
    annotator: str | None = option(None, metavar="NAME")
    output: Path = option(metavar="TABLE")


@dataclass(frozen=True)
class PrepareOptions(ProjectOptions):
    """Propose the heart and the slices of scans, to annotate from.

    Attributes:
        scan: Scan to prepare (default: all; may be repeated).
        model: Card of a model for territories, heart or slices to use in place of the bundled one.
        overwrite: Replace existing proposals.
        image: Write the CT of the single --scan to this file as well, in axial slices.
    """

    scan: tuple[str, ...] = option((), metavar="ID")
    model: tuple[Path, ...] = option((), metavar="CARD")
    device: str = option("auto", choices=DEVICES)
    overwrite: bool = False
    image: Path | None = option(None, metavar="TARGET.nrrd")


Action = Callable[[Project, Any, Progress], str]
"""Function for an action on a project; returns the text to print."""


def _new(options: NewOptions, progress: Progress) -> None:
    project = Project.create(options.project, options.name)
    progress.done(project.folder)
    print(f"{project.folder}: a new project, {project.name}")


def _run(action: Action, options: ProjectOptions, progress: Progress) -> None:
    """Run an action on a project. Raises CTError, OutputError."""
    project = Project.open(options.project)
    for warning in project.warnings:
        progress.warning(ScanWarning("project-doubt", warning))
    text = action(project, options, progress)
    progress.done(project.folder)
    print(text)


def _add(project: Project, options: AddOptions, progress: Progress) -> str:
    from ..references.folder import find_new_scans

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
    progress.event("added", added=len(result.added))
    if len(result.failed) == len(new):
        raise ProjectError(f"None of the {len(new)} scans could be added; the warnings say why.")
    return (
        f"{project.folder}: {len(result.added)} scans added, {len(result.duplicates)} there already, "
        f"{len(result.failed)} that cannot be used; {len(project.scans)} in all"
    )


def _list(project: Project, options: ListOptions, progress: Progress) -> str:
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


def _check(project: Project, options: CheckOptions, progress: Progress) -> str:
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
        progress.event("finding", **vars(finding))
    text = "\n".join(lines) or "Nothing is missing."
    if errors := sum(finding.severity == "error" for finding in findings):
        print(text)
        raise ProjectError(f"Problems to be solved before training can start: {errors}.")
    return text


def _split(project: Project, options: SplitOptions, progress: Progress) -> str:
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


def _relocate(project: Project, options: RelocateOptions, progress: Progress) -> str:
    progress.begin(["comparing scans"])
    with progress.step("comparing scans"):
        count = project.relocate(options.old, options.new, progress.counted)
    missing = len(project.missing())
    progress.event("relocated", count=count, missing=missing)
    return f"{project.folder}: {count} scans found again, {missing} are still missing"


def _use(project: Project, options: UseOptions, progress: Progress) -> str:
    project.set_use({options.patient: "" if options.use == "none" else options.use})
    return f"{project.folder}: patient {options.patient} is stored for {options.use}"


def _remove(project: Project, options: RemoveOptions, progress: Progress) -> str:
    project.remove(options.scan)
    removed = project.folder / "removed"
    return f"{project.folder}: scan {options.scan} was removed; its annotations are kept in {removed}"


def _agreement(project: Project, options: AgreementOptions, progress: Progress) -> str:
    from ..project.agreement import agreement

    progress.begin(["agreement"])
    with progress.step("agreement"):
        rows, warnings = agreement(project, options.scan or None)
    for warning in warnings:
        progress.warning(ScanWarning("annotation-doubt", warning))
    for row in rows:
        progress.event("agreement", **{name: _as_json(value) for name, value in vars(row).items()})
    columns = ("first", "second", "scans", "slices", "unsure", "kappa", "same", "regions", "heart")
    table = _table(columns, [[_cell_text(getattr(row, name)) for name in columns] for row in rows])
    return table if rows else "No scan has been annotated by two."


def _reference(project: Project, options: ReferenceOptions, progress: Progress) -> str:
    from ..studies.scans import write_reference

    progress.begin(["reference"])
    with progress.step("reference"):
        try:
            options.output.parent.mkdir(parents=True, exist_ok=True)
            number, warnings = write_reference(project.folder, options.output, options.use, options.annotator)
        except OSError as error:
            raise OutputError(f"Cannot write {options.output}: {error.strerror}. Choose another --output.") from error
    for warning in warnings:
        progress.warning(ScanWarning("scan-left-out", warning))
    return f"{options.output}: {number} scans, a reference for cac validate"


def _prepare(project: Project, options: PrepareOptions, progress: Progress) -> str:
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
ACTIONS: dict[str, Command[Any]] = {
    "new": Command(NewOptions, _new, (), INTERRUPTED),
    "add": Command(AddOptions, partial(_run, _add), (), INTERRUPTED),
    "list": Command(ListOptions, partial(_run, _list), (), INTERRUPTED),
    "check": Command(CheckOptions, partial(_run, _check), (), INTERRUPTED),
    "split": Command(SplitOptions, partial(_run, _split), (), INTERRUPTED),
    "relocate": Command(RelocateOptions, partial(_run, _relocate), (), INTERRUPTED),
    "use": Command(UseOptions, partial(_run, _use), (), INTERRUPTED),
    "remove": Command(RemoveOptions, partial(_run, _remove), (), INTERRUPTED),
    "agreement": Command(AgreementOptions, partial(_run, _agreement), ("studies",), INTERRUPTED),
    "reference": Command(ReferenceOptions, partial(_run, _reference), ("studies", "cohort"), INTERRUPTED),
    "prepare": Command(PrepareOptions, partial(_run, _prepare), (), INTERRUPTED),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's actions."""
    description = (
        "A project is a folder with the list of scans that are annotated and trained on, their annotations, and the "
        "models and studies made from it. The scans stay where they are."
    )
    declare_actions(parser, ACTIONS, description)
