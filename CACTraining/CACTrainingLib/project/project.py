"""A project: a folder with the scans that are annotated and trained on, what was said of them, and what was made of it.

The scans stay where they are and are known by path and content. Everything is a plain file (see `project.files`), is
written whole or not at all, and can be read without this software.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from CACScoringLib.core.ct import CTError
from CACScoringLib.core.files import partial_folder

from . import files, places
from .files import ProjectError, ProjectWriteError, ScanRow
from .scan_identity import content_hash
from .split import USES, split_patients

if TYPE_CHECKING:
    import SimpleITK as sitk

    from .annotations import SliceLabel


SOURCES = ("scan", "digital", "coca")
"""Where a scan is from: anyone's scan, a digital patient, the COCA data set."""


@dataclass(frozen=True)
class ProjectScan:
    """A scan of a project.

    id: names its folder, such as "0001". ct: absolute path of a DICOM folder or an image file. series: number or UID of
    the DICOM series, as `read_ct` takes it. sha256: `content_hash`. source: one of SOURCES. use: "" or one of USES.
    truth: truth.json of a digital scan.
    """

    id: str
    name: str
    patient: str
    ct: Path
    series: str | None
    sha256: str
    source: str
    use: str
    truth: Path | None


@dataclass(frozen=True)
class ImportedAnnotations:
    """Annotations that come with a scan. slices: labels by the index k of `read_ct`'s image, counted from the feet.

    regions: labels 1 LM, 2 LAD, 3 LCX, 4 RCA, 5 other; heart: 1. Both on the grid of the scan as `read_ct` gives it.
    """

    annotator: str
    slices: Mapping[int, SliceLabel]
    regions: sitk.Image | None = None
    heart: sitk.Image | None = None


@dataclass(frozen=True)
class NewScan:
    """A scan to be added; fields as in `ProjectScan`. annotations: reads those that come with it, may raise CTError."""

    name: str
    patient: str
    ct: Path
    series: str | None = None
    source: str = "scan"
    truth: Path | None = None
    annotations: Callable[[], ImportedAnnotations] | None = None


@dataclass(frozen=True)
class AddResult:
    """Result of adding scans. duplicates: name, and the id it equals. failed: name, and why."""

    added: tuple[ProjectScan, ...]
    duplicates: tuple[tuple[str, str], ...]
    failed: tuple[tuple[str, str], ...]


def is_project(folder: Path) -> bool:
    """True if a folder says that it is a project, be it whole or damaged."""
    return (Path(folder) / files.PROJECT_FILE).is_file()


class Project:
    """A project's folder, opened.

    scans: all, in the order they were added. warnings: what was mended on opening. Other programs may change the folder
    meanwhile: what is changed here is changed in the folder's present state, and `reload` reads that.
    """

    def __init__(self, folder: Path, name: str) -> None:
        self.folder = folder
        self.name = name
        self.warnings: tuple[str, ...] = ()
        self.scans: tuple[ProjectScan, ...] = ()

    @classmethod
    def create(cls, folder: Path, name: str = "") -> Project:
        """Make a project in a folder that is empty or does not exist yet. Raises ProjectError."""
        folder = places.absolute(folder)
        files.write_new_project(folder, _clean(name) or folder.name)
        return cls.open(folder)

    @classmethod
    def open(cls, folder: Path) -> Project:
        """Open a project. Raises ProjectError for a folder that is none, is damaged, or of a newer version."""
        folder = places.absolute(folder)
        project = cls(folder, files.read_name(folder))
        project.reload()
        return project

    def reload(self) -> None:
        """Read the list of scans anew. Raises ProjectError."""
        rows, self.warnings = files.read_scans(self.folder)
        self._take(rows)

    def scan(self, scan_id: str) -> ProjectScan:
        """The scan with this id. Raises ProjectError."""
        for scan in self.scans:
            if scan.id == scan_id:
                return scan
        raise ProjectError(f"The project {self.name} has no scan {str(scan_id)[:40]!r}. List them: cac project list.")

    def scan_folder(self, scan_id: str) -> Path:
        """Folder of a scan's annotations and proposal; it may not exist yet. Raises ProjectError."""
        return self.folder / "scans" / self.scan(scan_id).id

    @property
    def models_folder(self) -> Path:
        return self.folder / "models"

    @property
    def studies_folder(self) -> Path:
        return self.folder / "studies"

    def add(self, new: Sequence[NewScan], progress: Callable[[int, int], None] | None = None) -> AddResult:
        """Add scans; each is in the project as soon as it is read, so that a run that is ended loses nothing.

        A scan whose content is in the project already is not added, nor is one that cannot be read; the others are. A
        scan of a patient who has a use gets it too. progress: called with how many are done of how many.
        Raises ProjectWriteError when the project cannot be written; what was added until then stays.
        """
        added: list[ProjectScan] = []
        duplicates: list[tuple[str, str]] = []
        failed: list[tuple[str, str]] = []
        for n, scan in enumerate(new, 1):
            try:
                result = self._add(scan)
            except ProjectWriteError:
                raise
            except (CTError, OSError) as error:
                failed.append((scan.name, str(error)))
            else:
                (added if isinstance(result, ProjectScan) else duplicates).append(result)
            if progress:
                progress(n, len(new))
        return AddResult(tuple(added), tuple(duplicates), tuple(failed))

    def remove(self, scan_id: str) -> None:
        """Take a scan out of the project. Its folder and its row are kept below `removed`. Raises ProjectError."""
        removed, folder = self.folder / "removed", self.scan_folder(scan_id)
        removed.mkdir(exist_ok=True)
        with self._changing() as rows:
            for row in [row for row in rows if row.id == scan_id]:
                files.note_removed(folder, row)
                rows.remove(row)
        if folder.exists():
            files.move(folder, removed / f"{scan_id}-{files.stamp()}")

    def set_use(self, uses: Mapping[str, str]) -> None:
        """Say what patients are for: all scans of a patient get its use, "" takes it away. Raises ProjectError."""
        for use in uses.values():
            if use not in ("", *USES):
                raise ProjectError(f"{str(use)[:40]!r} is not a use of a scan. Uses are {', '.join(USES)}.")
        with self._changing() as rows:
            unknown = sorted(set(uses) - {row.patient for row in rows})
            if unknown:
                raise ProjectError(f"The project {self.name} has no patient {unknown[0][:80]!r}.")
            for row in rows:
                row.use = uses.get(row.patient, row.use)

    def split(
        self,
        shares: tuple[float, float, float] = (0.6, 0.2, 0.2),
        seed: int = 0,
        kinds: Mapping[str, int] | None = None,
    ) -> dict[str, str]:
        """Give patients without a use one, at random; see `project.split.split_patients`.

        kinds: of patients, each split by itself, such as `project.split.patient_kinds` gives; 0 for those not in it.
        Returns the uses that were given, by patient. Raises ProjectError.
        """
        with self._changing() as rows:
            known: dict[str, str] = {}
            for row in rows:
                known[row.patient] = known.get(row.patient) or row.use
            given = split_patients(known, shares, seed, kinds or {})
            for row in rows:
                row.use = row.use or given.get(row.patient) or known[row.patient]
        return given

    def missing(self) -> list[ProjectScan]:
        """Scans whose CT is not where it was."""
        return [scan for scan in self.scans if not places.exists(scan.ct)]

    def relocate(self, old: Path, new: Path, progress: Callable[[int, int], None] | None = None) -> int:
        """Look for scans that lay below one folder below another. Returns how many were found there.

        Each one's content must be what it was. Scans that are not found keep their old path. progress: called with how
        many are checked of how many. Raises ProjectError, and changes nothing, when one is another scan or none is
        found.
        """
        old, new = places.old_place(old), places.absolute(new)
        found = places.find_moved(self.scans, old, new, progress)
        with self._changing() as rows:
            for row in rows:
                if row.id not in found:
                    continue
                row.ct = self._stored(found[row.id])
                truth = row.truth and places.path_below(places.path_from(row.truth, self.folder), old, new)
                if truth and truth.is_file():
                    row.truth = self._stored(truth)
        return len(found)

    @contextmanager
    def _changing(self) -> Iterator[list[ScanRow]]:
        """The rows as they are now, to be changed while no other program does; then they are written."""
        with files.locked(self.folder):
            files.remove_leftovers(self.folder)
            files.remove_leftovers(self.folder / "scans")
            rows, warnings = files.read_scans(self.folder)
            before = [replace(row) for row in rows]
            yield rows
            if rows != before:
                files.write_scans(self.folder, rows, broken=bool(warnings))
            self._take(rows)

    def _take(self, rows: Sequence[ScanRow]) -> None:
        self.scans = tuple(map(self._scan_of, rows))

    def _scan_of(self, row: ScanRow) -> ProjectScan:
        for name, known in (("use", ("", *USES)), ("source", SOURCES)):
            if (value := getattr(row, name)) not in known:
                raise ProjectError(
                    f"In {self.folder / files.SCANS_FILE} the {name} of {row.id} is {value[:40]!r}, none of "
                    f"{', '.join(filter(None, known))}. Correct it; the annotations are untouched."
                )
        truth = places.path_from(row.truth, self.folder) if row.truth else None
        known = {"ct": places.path_from(row.ct, self.folder), "series": row.series or None, "truth": truth}
        return ProjectScan(**vars(row) | known)

    def _stored(self, path: Path) -> str:
        return places.stored_path(path, self.folder)

    def _ids_of_folders(self, name: str) -> set[str]:
        """Ids that folders are named by, some with a time behind them."""
        names = (path.name.partition("-")[0] for path in (self.folder / name).glob("[0-9]*"))
        return {own for own in names if files.is_id(own)}

    def _add(self, new: NewScan) -> ProjectScan | tuple[str, str]:
        """The scan in the project, or the new one's name with the id of the scan that it equals."""
        from CACScoringLib.io.reading import read_ct

        if new.source not in SOURCES:
            raise ProjectError(f"{new.source!r} is not a source of a scan. Sources are {', '.join(SOURCES)}.")
        ct = places.absolute(new.ct)
        sha256 = content_hash(ct, new.series)
        if same := next((scan.id for scan in self.scans if scan.sha256 == sha256), None):
            return new.name, same
        read_ct(ct, new.series)  # a truncated scan is refused here, not by a later command
        annotations = new.annotations() if new.annotations else None
        name = _clean(new.name) or ct.name
        with self._imported(annotations) as folder, self._changing() as rows:
            if same := next((row.id for row in rows if row.sha256 == sha256), None):
                return new.name, same
            patient = _clean(new.patient) or name
            row = ScanRow(
                id=self._next_id(rows),
                name=name,
                patient=patient,
                ct=self._stored(ct),
                series=new.series or "",
                sha256=sha256,
                source=new.source,
                use=next((row.use for row in rows if row.patient == patient and row.use), ""),
                truth=self._stored(places.absolute(new.truth)) if new.truth else "",
            )
            if folder:
                # Before its row, so that a scan in the list has all that came with it.
                files.move(folder, self.folder / "scans" / row.id)
            rows.append(row)
        return self.scan(row.id)

    @contextmanager
    def _imported(self, annotations: ImportedAnnotations | None) -> Iterator[Path | None]:
        """A scan's folder with annotations that came with it, to be moved in place; removed when it is not."""
        from .annotations import write_imported

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
            raise files.not_written(scans, error) from error

    def _next_id(self, rows: Sequence[ScanRow]) -> str:
        taken = {row.id for row in rows} | self._ids_of_folders("scans") | self._ids_of_folders("removed")
        return f"{max(map(int, taken), default=0) + 1:04d}"


def _clean(text: str) -> str:
    """Text on one line, without characters that cannot be shown."""
    return "".join(c if c.isprintable() else " " for c in str(text)).strip()
