"""Manage a project: a folder that lists scans, with their annotations, proposals, models and studies.

The scans stay where they are and are identified by path and content. All data are plain files (see `project.files`),
written atomically, that can be read without this software.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from CACScoringLib.core.errors import CTError, ProjectError, ProjectWriteError
from CACScoringLib.core.files import partial_folder
from CACScoringLib.scans.source import ScanSource

from . import files
from .annotation_files import ImportedAnnotations, write_imported
from .files import ProjectScan
from .scan_identity import content_hash
from .split import USES, split_patients

SOURCES = ("scan", "digital", "coca")
"""Sources of a scan: any CT, a digital patient, the COCA data set."""


@dataclass(frozen=True)
class NewScan(ScanSource):
    """Scan to add.

    Attributes:
        source: One of SOURCES.
        annotations: Function that reads its annotations, or None.
        scores: Agatston scores that came with it: by artery, and the total as "agatston".
        gated: True if it is gated, None if unknown.
        note: Fact about it that is no annotation.
    """

    source: str = "scan"
    annotations: Callable[[], ImportedAnnotations] | None = None
    scores: Mapping[str, float] = field(default_factory=dict)
    gated: bool | None = None
    note: str = ""


@dataclass(frozen=True)
class AddResult:
    """Result of adding scans.

    Attributes:
        added: Scans of the project.
        duplicates: Names of scans, and ids of the scans with the same content.
        failed: Names of scans, and reasons.
    """

    added: tuple[ProjectScan, ...]
    duplicates: tuple[tuple[str, str], ...]
    failed: tuple[tuple[str, str], ...]


def is_project(folder: Path) -> bool:
    """True if a folder is a project, even a damaged one."""
    return (Path(folder) / files.PROJECT_FILE).is_file()


class Project:
    """Open project. Other programs may change its folder: changes apply to the folder's present state.

    Attributes:
        folder: Folder of the project.
        name: Name of the project.
        warnings: Damage repaired on opening.
        scans: All scans, in the order they were added.
    """

    def __init__(self, folder: Path, name: str) -> None:
        self.folder = folder
        self.name = name
        self.warnings: tuple[str, ...] = ()
        self.scans: tuple[ProjectScan, ...] = ()

    @classmethod
    def create(cls, folder: Path, name: str = "") -> Project:
        """Create a project in a folder that is empty or does not exist yet. Raises ProjectError."""
        folder = files.absolute(folder)
        files.write_new_project(folder, _clean(name) or folder.name)
        return cls.open(folder)

    @classmethod
    def open(cls, folder: Path) -> Project:
        """Open a project. Raises ProjectError if the folder is not a project, is damaged, or of a newer version."""
        folder = files.absolute(folder)
        project = cls(folder, files.read_name(folder))
        project.reload()
        return project

    def reload(self) -> None:
        """Reload the list of scans. Raises ProjectError."""
        scans, self.warnings = files.read_scans(self.folder)
        self._set_scans(scans)

    def scan(self, scan_id: str) -> ProjectScan:
        """Return the scan with an id. Raises ProjectError."""
        for scan in self.scans:
            if scan.id == scan_id:
                return scan
        raise ProjectError(f"The project {self.name} has no scan {str(scan_id)[:40]!r}. List them: cac project list.")

    def scan_folder(self, scan_id: str) -> Path:
        """Return the folder of a scan's annotations and proposal, which may not exist yet. Raises ProjectError."""
        return self.folder / "scans" / self.scan(scan_id).id

    @property
    def models_folder(self) -> Path:
        return self.folder / "models"

    @property
    def studies_folder(self) -> Path:
        return self.folder / "studies"

    def add(self, new_scans: Sequence[NewScan], progress: Callable[[int, int], None] | None = None) -> AddResult:
        """Add scans one by one, so that an interrupted run loses nothing.

        Scans with a content that is in the project already, and scans that cannot be read, are skipped. A scan gets the
        use of its patient. progress: Function called with the numbers of finished and of all scans.
        Raises ProjectWriteError if the project cannot be written; scans added until then stay.
        """
        added: list[ProjectScan] = []
        duplicates: list[tuple[str, str]] = []
        failed: list[tuple[str, str]] = []
        for n, scan in enumerate(new_scans, 1):
            try:
                result = self._add(scan)
            except ProjectWriteError:
                raise
            except (CTError, OSError) as error:
                failed.append((scan.name, str(error)))
            else:
                if isinstance(result, ProjectScan):
                    added.append(result)
                else:
                    duplicates.append(result)
            if progress:
                progress(n, len(new_scans))
        return AddResult(tuple(added), tuple(duplicates), tuple(failed))

    def remove(self, scan_id: str) -> None:
        """Remove a scan from the project; its folder and its row are moved to `removed`. Raises ProjectError."""
        removed_folder, folder = self.folder / "removed", self.scan_folder(scan_id)
        removed_folder.mkdir(exist_ok=True)
        with self._edit_scans() as scans:
            for scan in [scan for scan in scans if scan.id == scan_id]:
                files.write_removed_row(folder, scan, self.folder)
                scans.remove(scan)
        if folder.exists():
            files.move(folder, removed_folder / f"{scan_id}-{files.stamp()}")

    def set_use(self, uses: Mapping[str, str]) -> None:
        """Set the use of patients, and so of all their scans; "" clears it. Raises ProjectError."""
        for use in uses.values():
            if use not in ("", *USES):
                raise ProjectError(f"{str(use)[:40]!r} is not a use of a scan. Uses are {', '.join(USES)}.")
        with self._edit_scans() as scans:
            unknown = sorted(set(uses) - {scan.patient for scan in scans})
            if unknown:
                raise ProjectError(f"The project {self.name} has no patient {unknown[0][:80]!r}.")
            scans[:] = [replace(scan, use=uses.get(scan.patient, scan.use)) for scan in scans]

    def split(
        self,
        shares: tuple[float, float, float] = (0.6, 0.2, 0.2),
        seed: int = 0,
        kinds: Mapping[str, int] | None = None,
    ) -> dict[str, str]:
        """Assign random uses to patients without one (`project.split.split_patients`); return them by patient.

        kinds: Kind of each patient, such as from `project.annotations.patient_kinds`, 0 by default; each kind is split
        separately. Raises ProjectError.
        """
        with self._edit_scans() as scans:
            uses: dict[str, str] = {}
            for scan in scans:
                uses[scan.patient] = uses.get(scan.patient) or scan.use
            new_uses = split_patients(uses, shares, seed, kinds or {})
            uses |= new_uses
            scans[:] = [replace(scan, use=scan.use or uses[scan.patient]) for scan in scans]
        return new_uses

    def missing(self) -> list[ProjectScan]:
        """Return the scans whose CT is missing."""
        return [scan for scan in self.scans if not files.exists(scan.ct)]

    def relocate(self, old: Path, new: Path, progress: Callable[[int, int], None] | None = None) -> int:
        """Update the paths of scans that were moved from one folder to another; return their number.

        Scans that are not in the new folder keep their old path. progress: Function called with the numbers of checked
        and of all scans. Raises ProjectError, and changes nothing, if a content has changed or no scan is there.
        """
        old, new = files.old_place(old), files.absolute(new)
        new_paths = files.find_moved(self.scans, old, new, progress)
        with self._edit_scans() as scans:
            for n, scan in enumerate(scans):
                if scan.id in new_paths:
                    truth = scan.truth and files.path_below(scan.truth, old, new)
                    truth = truth if truth and truth.is_file() else scan.truth
                    scans[n] = replace(scan, ct=new_paths[scan.id], truth=truth)
        return len(new_paths)

    @contextmanager
    def _edit_scans(self) -> Iterator[list[ProjectScan]]:
        """Lock the project and yield its present scans for changes, then write them."""
        with files.project_lock(self.folder):
            files.remove_leftovers(self.folder)
            files.remove_leftovers(self.folder / "scans")
            scans, warnings = files.read_scans(self.folder)
            previous = list(scans)
            yield scans
            if scans != previous:
                files.write_project_scans(self.folder, scans, is_broken=bool(warnings))
            self._set_scans(scans)

    def _set_scans(self, scans: Sequence[ProjectScan]) -> None:
        for scan in scans:
            for name, choices in (("use", ("", *USES)), ("source", SOURCES)):
                if (value := getattr(scan, name)) not in choices:
                    raise ProjectError(
                        f"In {self.folder / files.SCANS_FILE} the {name} of {scan.id} is {value[:40]!r}, none of "
                        f"{', '.join(filter(None, choices))}. Correct it; the annotations are untouched."
                    )
        self.scans = tuple(scans)

    def _ids_of_folders(self, name: str) -> set[str]:
        """Return the ids in the names of folders, some of which end with a time."""
        names = (path.name.partition("-")[0] for path in (self.folder / name).glob("[0-9]*"))
        return {id_ for id_ in names if files.is_id(id_)}

    def _add(self, new_scan: NewScan) -> ProjectScan | tuple[str, str]:
        """Add a scan and return it; for a duplicate, return its name and the id of the scan with the same content."""
        from CACScoringLib.io.reading import read_ct

        if new_scan.source not in SOURCES:
            raise ProjectError(f"{new_scan.source!r} is not a source of a scan. Sources are {', '.join(SOURCES)}.")
        ct = files.absolute(new_scan.ct)
        sha256 = content_hash(ct, new_scan.series)
        if duplicate := next((scan.id for scan in self.scans if scan.sha256 == sha256), None):
            return new_scan.name, duplicate
        read_ct(ct, new_scan.series)  # a truncated scan is refused here, not by a later command
        annotations = new_scan.annotations() if new_scan.annotations else None
        name = _clean(new_scan.name) or ct.name
        with self._imported(annotations) as folder, self._edit_scans() as scans:
            if duplicate := next((scan.id for scan in scans if scan.sha256 == sha256), None):
                return new_scan.name, duplicate
            patient = _clean(new_scan.patient) or name
            added = ProjectScan(
                id=self._next_id(scans),
                name=name,
                patient=patient,
                ct=ct,
                series=new_scan.series or None,
                sha256=sha256,
                source=new_scan.source,
                use=next((scan.use for scan in scans if scan.patient == patient and scan.use), ""),
                truth=files.absolute(new_scan.truth) if new_scan.truth else None,
            )
            if folder:
                # Moved before its row is written, so that a listed scan has its annotations.
                files.move(folder, self.folder / "scans" / added.id)
            scans.append(added)
        return added

    @contextmanager
    def _imported(self, annotations: ImportedAnnotations | None) -> Iterator[Path | None]:
        """Yield a temporary scan folder with the imported annotations, to be moved in place; remove it otherwise."""
        if annotations is None:
            yield None
            return
        scans = self.folder / "scans"
        try:
            with partial_folder(scans / "new") as place:
                folder = place / "scan"
                write_imported(folder, annotations)
                yield folder
        except OSError as error:
            raise files.disk_error(scans, error) from error

    def _next_id(self, scans: Sequence[ProjectScan]) -> str:
        ids = {scan.id for scan in scans} | self._ids_of_folders("scans") | self._ids_of_folders("removed")
        return f"{max(map(int, ids), default=0) + 1:04d}"


def _clean(text: str) -> str:
    """Return text on one line, without unprintable characters."""
    return "".join(c if c.isprintable() else " " for c in str(text)).strip()
