"""Training samples from folders of scans with known calcium: search, preparation, split by patient, slices.

A scan's folder holds `ct.nii.gz`, `heart.nii.gz`, `truth.json` and, if the true calcium is known,
`calcium_map.nii.gz` (mg/cm³, coronary calcium only), as digital patients and inserted lesions do
(`phantom.cohort.export`). These keys of `truth.json` are read: `patient` (number or name, the same for all scans of a
patient), `slices` (`k`, `visible`: true, false, or null if unknown), `mass_mg`, `distractors`,
`calcium_hu_per_mg_cm3`. A project's folder (`project`) gives its scans with their annotations.

Network inputs come from `preprocessing` alone. They are written once below a cache folder as memory-mapped arrays, so
a cohort may be larger than memory; MONAI's `PersistentDataset` reads whole pickled items instead.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from CACScoringLib.cohort.workers import LOCAL, chosen_cluster, run_jobs
from CACScoringLib.core.errors import DataError
from CACScoringLib.core.files import read_json, user_cache_folder
from CACScoringLib.core.scan_grid import ScanGrid
from CACScoringLib.models import preprocessing
from CACScoringLib.models.preprocessing import MAX_NEIGHBOURS, HeartSlices

from ..project.project import Project, is_project
from ..project.training import training_scans
from ..project.training_scan import KINDS, TrainingScan, scan_in
from .drawn_scans import DrawnScan, write_drawn_slices
from .scan_samples import write_slices, write_volume


def find_scans(folders: Iterable[Path], annotator: str | None = None) -> list[TrainingScan]:
    """Return all scans in folders and their subfolders, and those of projects.

    Args:
        annotator: Annotator of a project's labels; None for the majority (`project.training.training_scans`).

    Raises:
        DataError: A folder has no scans, or a truth is unreadable.
        ProjectError: A project is damaged.
    """
    scans_by_place: dict[tuple[Path, str | None], TrainingScan] = {}
    for folder in map(Path, folders):
        if not folder.is_dir():
            raise DataError(f"The data folder {folder} does not exist. Make one, for example with: cac phantom.")
        in_project = is_project(folder)
        scans = training_scans(Project.open(folder), annotator) if in_project else _scans_below(folder)
        for scan in scans:
            key = scan.ct.resolve(), scan.series
            # A project's entry, which has the use, replaces the same scan of a cohort.
            if in_project or key not in scans_by_place:
                scans_by_place[key] = scan
    return [scans_by_place[key] for key in sorted(scans_by_place, key=lambda key: (key[0], key[1] or ""))]


def _scans_below(folder: Path) -> list[TrainingScan]:
    truths = sorted(path for path in folder.rglob("truth.json") if (path.parent / "ct.nii.gz").is_file())
    if not truths:
        message = (
            f"{folder} holds no scan to train on: none of its folders has both ct.nii.gz and truth.json. "
            "Give the folder of a cohort, as cac phantom writes it, or of a project."
        )
        raise DataError(message)
    return [scan_in(path) for path in truths]


def split_by_patient(
    scans: Sequence[TrainingScan], validation_share: float, seed: int
) -> tuple[list[TrainingScan], list[TrainingScan]]:
    """Split scans by patient into training and validation.

    Every kind of patient contributes its share to validation, at least one patient of two. Patients with a stored use
    keep it, and those for testing are left out; the share refers to the others. The same patients, share and seed give
    the same split in any order. Raises DataError if training or validation has no patient, or a patient has two uses.
    """
    uses = _stored_uses(scans)
    kinds: dict[str, int] = {}
    for scan in scans:
        if uses.get(scan.patient) != "test":
            kinds[scan.patient] = max(kinds.get(scan.patient, 0), KINDS.index(scan.kind))
    if len(kinds) < 2:
        raise DataError(
            f"Patients to train with: {len(kinds)}. Training needs at least two, one of them to validate on."
        )
    validation = {patient for patient in kinds if uses.get(patient) == "validation"}
    free = {patient: kind for patient, kind in kinds.items() if patient not in uses}

    def lot(patient: str) -> str:
        return hashlib.sha256(f"{seed}:{patient}".encode()).hexdigest()

    for kind in range(len(KINDS)):
        patients = sorted((p for p, patient_kind in free.items() if patient_kind == kind), key=lot)
        count = round(validation_share * len(patients))
        is_lacking = not any(kinds[p] == kind for p in validation) and list(kinds.values()).count(kind) > 1
        validation |= set(patients[: max(count, int(is_lacking and validation_share > 0))])
    if not validation and free:
        validation = {min(free, key=lot)}
    if not free and len(validation) in (0, len(kinds)):
        lacking = "training" if validation else "validation"
        raise DataError(f"No patient is stored for {lacking}. Give some that use, or split the patients.")
    if len(validation) == len(kinds):
        raise DataError(f"A validation share of {validation_share:g} leaves no patient to train on.")
    used = [scan for scan in scans if scan.patient in kinds]
    return [s for s in used if s.patient not in validation], [s for s in used if s.patient in validation]


def _stored_uses(scans: Sequence[TrainingScan]) -> dict[str, str]:
    uses: dict[str, str] = {}
    for scan in scans:
        if scan.use and uses.setdefault(scan.patient, scan.use) != scan.use:
            raise DataError(
                f"Patient {scan.patient} is stored for {uses[scan.patient]} and for {scan.use}. Give all scans of a "
                "patient one use."
            )
    return uses


def prepare(
    scans: Sequence[TrainingScan],
    kind: str,
    cache: Path,
    workers: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> list[Path]:
    """Prepare scans that are not in the cache, and return each scan's folder there.

    kind: "slices" (`load_slices`) or "heart" (`territory_patches.outlined_volume`). Raises CTError for a scan that
    cannot be used.
    """
    cache.mkdir(parents=True, exist_ok=True)
    folders = [cache / f"{kind}-{scan.fingerprint()}" for scan in scans]
    missing = [(scan, folder) for scan, folder in zip(scans, folders, strict=True) if not folder.is_dir()]
    if chosen_cluster() == LOCAL:
        # Threads: most of the work is done outside Python, and processes would first load its packages.
        with ThreadPoolExecutor(max(1, workers)) as threads:
            jobs = [threads.submit(_write, kind, job) for job in missing]
            try:
                for n, job in enumerate(as_completed(jobs), 1):
                    job.result()
                    if progress:
                        progress(n, len(missing))
            finally:
                threads.shutdown(cancel_futures=True)
        return folders
    events = run_jobs(partial(partial, _write, kind), missing, workers, progress)
    for (scan, _), event in zip(missing, events, strict=True):
        if event.state == "lost":
            raise DataError(f"{scan.ct} could not be prepared. {event.reason}")
    return folders


def _write(kind: str, job: tuple[TrainingScan, Path]) -> None:
    scan, folder = job
    if isinstance(scan, DrawnScan):
        write_drawn_slices(scan, folder)
    else:
        {"slices": write_slices, "heart": write_volume}[kind](scan, folder)


@dataclass(frozen=True)
class ScanSlices:
    """Slices of a scan from the cache.

    Attributes:
        patient: Patient of the scan.
        kind: Kind of KINDS.
        slices: Slices as scoring prepares them; HU float16 and mask are memory-mapped.
        maps: True calcium maps, float16 [m, 224, 224], 1 for 1000 HU, with negative lobes of moving calcium; of real
            scans, HU above blood in confident automatic lesions.
        map_row: Row of each slice in maps, −1 without coronary calcium, int [n].
        visible: True for slices with visible calcium, bool [n].
        labelled: True for slices with a known visibility, bool [n].
        contrast: Contrast-to-noise ratio of the calcium, NaN if unknown [n].
        bright: True for slices with other structures that resemble calcium, bool [n].
        has_map: True if the true calcium is known.
    """

    patient: str
    kind: str
    slices: HeartSlices
    maps: np.ndarray
    map_row: np.ndarray
    visible: np.ndarray
    labelled: np.ndarray
    contrast: np.ndarray
    bright: np.ndarray
    has_map: bool

    def calcium(self, indices: np.ndarray) -> np.ndarray:
        """Return the HU/1000 that coronary calcium adds to slices, float32 [n, 224, 224], with negative lobes.

        indices: of slices [n]; the result is 0 for those in the margin outside the heart.
        """
        maps = np.zeros((len(indices), *self.slices.heart.shape[1:]), np.float32)
        rows = self.map_rows(np.asarray(indices))
        maps[rows >= 0] = self.maps[rows[rows >= 0]]
        return maps

    def map_rows(self, indices: np.ndarray) -> np.ndarray:
        """Return the rows of slices in `maps`, int [n]; −1 without calcium, and in the margin outside the heart."""
        inside = (indices >= 0) & (indices < len(self.slices))
        return np.where(inside, self.map_row[np.clip(indices, 0, len(self.slices) - 1)], -1)


def load_slices(folder: Path) -> ScanSlices:
    """Load a scan that `prepare` wrote."""
    record = read_json(folder / "scan.json")
    hu, heart, maps = (np.load(folder / f"{name}.npy", mmap_mode="r") for name in ("hu", "heart", "maps"))
    grid = ScanGrid(*(tuple(record["grid"][name]) for name in ("first", "step", "size")))
    slices = HeartSlices(grid, hu, heart, tuple(record["centre"]), tuple(record["radii"]))
    facts = {name: record[name] for name in ("patient", "kind", "has_map")}
    facts |= {name: np.array(record[name]) for name in ("map_row", "visible", "labelled", "bright")}
    return ScanSlices(slices=slices, maps=maps, contrast=np.array(record["contrast"], float), **facts)


class SliceDataset:
    """Labelled slices of many scans as one flat list; unlabelled slices are left out.

    Attributes:
        scan: Index of the slice's scan, int [N].
        index: Index of the slice in its scan, int [N].
        visible: As in `ScanSlices`, bool [N].
        bright: As in `ScanSlices`, bool [N].
        calcium: True for slices with a non-empty true map, bool [N].
        contrast: As in `ScanSlices`, float [N].
        position: Relative position in the heart, float [N].
        kind: Index of the scan's kind in KINDS, int [N].
        has_map: True if the true calcium of the scan is known, bool [N].
        arrays: Memory-mapped HU ("hu"), hearts ("heart") and true maps ("maps") of the scans.
        firsts: First row of each scan in the arrays one after the other.

    Raises:
        DataError: There are no slices with, or no slices without, visible calcium.
    """

    def __init__(self, scans: Sequence[ScanSlices]) -> None:
        self.scans = list(scans)
        labelled = [np.nonzero(s.labelled)[0] for s in self.scans]
        labelled_rows = list(zip(self.scans, labelled, strict=True))
        sizes = [len(rows) for rows in labelled]
        self.scan = np.repeat(np.arange(len(sizes)), sizes)
        self.index = np.concatenate([np.zeros(0, int), *labelled])
        self.position = np.concatenate([np.zeros(0), *((rows + 0.5) / len(s.slices) for s, rows in labelled_rows)])
        self.kind = np.repeat([KINDS.index(s.kind) for s in self.scans], sizes)
        empty = np.zeros(0, bool)
        self.visible, self.bright = (
            np.concatenate([empty, *(getattr(s, name)[rows] for s, rows in labelled_rows)])
            for name in ("visible", "bright")
        )
        self.contrast = np.concatenate([np.zeros(0), *(s.contrast[rows] for s, rows in labelled_rows)])
        self.calcium = np.concatenate([empty, *(s.map_row[rows] >= 0 for s, rows in labelled_rows)])
        self.has_map = np.repeat([s.has_map for s in self.scans], sizes)
        self.arrays = {
            "hu": [s.slices.hu for s in self.scans],
            "heart": [s.slices.heart for s in self.scans],
            "maps": [s.maps for s in self.scans],
        }
        self.firsts = {kind: np.cumsum([0, *map(len, arrays)])[:-1] for kind, arrays in self.arrays.items()}
        if self.visible.all() or not self.visible.any():
            message = (
                f"Of {len(self)} labelled slices in {len(self.scans)} scans, {int(self.visible.sum())} show coronary "
                "calcium. Training and validation each need slices with and without: label or give more."
            )
            raise DataError(message)

    def __len__(self) -> int:
        return len(self.scan)

    def rows(self, indices: np.ndarray, neighbours: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the rows of slices and their neighbours, in the order of `slice_input`, in all scans' arrays.

        Returns the rows of HU [n, C], of true maps [n, C], −1 for an empty one, and of the slice's heart [n].
        """
        offsets = np.array([0, *range(-neighbours, 0), *range(1, neighbours + 1)])
        scans, places = self.scan[indices], self.index[indices][:, None] + offsets
        hu, maps, heart = (self.firsts[kind][scans] for kind in ("hu", "maps", "heart"))
        map_rows = np.stack([self.scans[n].map_rows(place) for n, place in zip(scans, places, strict=True)])
        map_rows = np.where(map_rows < 0, -1, map_rows + maps[:, None])
        return hu[:, None] + places + MAX_NEIGHBOURS, map_rows, heart + self.index[indices]

    def read(self, kind: str, rows: np.ndarray) -> np.ndarray:
        """Read rows [...] of all scans' "hu", "maps" or "heart": [..., 224, 224] of the stored type, 0 for row −1."""
        firsts, arrays = self.firsts[kind], self.arrays[kind]
        values = np.zeros((rows.size, *arrays[0].shape[1:]), arrays[0].dtype)
        for value, row, scan in zip(values, rows.flat, np.searchsorted(firsts, rows.flat, "right") - 1, strict=True):
            if row >= 0:
                value[:] = arrays[scan][row - firsts[scan]]
        return values.reshape(*rows.shape, *values.shape[1:])

    def true_map(self, indices: np.ndarray) -> np.ndarray:
        """Return the HU/1000 that coronary calcium adds, float32 [n, 1, 224, 224], with negative lobes."""
        return np.stack([self.scans[self.scan[n]].calcium(self.index[n : n + 1]) for n in indices])

    def heart(self, indices: np.ndarray) -> np.ndarray:
        """Return heart masks, bool [n, 224, 224]."""
        return np.stack([self.scans[self.scan[n]].slices.heart[self.index[n]] for n in indices])

    def position_profiles(self, indices: np.ndarray) -> np.ndarray:
        """Return the profiles of `preprocessing.position_channels` along i, j and k, float32 [n, 3, 224]."""
        row, column = (slice(0, 1), slice(None)), (slice(None), slice(0, 1))
        profiles = np.empty((len(indices), 3, preprocessing.SLICE_SIZE), np.float32)
        for profile, n in zip(profiles, indices, strict=True):
            slices, index = self.scans[self.scan[n]].slices, self.index[n : n + 1]
            profile[0], _, profile[2] = preprocessing.position_channels(slices, index, row)[0, :, 0]
            profile[1] = preprocessing.position_channels(slices, index, column)[0, 1, :, 0]
        return profiles

    def network_input(
        self, indices: np.ndarray, neighbours: int, position: bool, size: int = preprocessing.SLICE_SIZE
    ) -> np.ndarray:
        """Return slices exactly as scoring passes them to a network (`preprocessing.slice_input`)."""
        places = ((self.scans[self.scan[n]].slices, self.index[n : n + 1]) for n in indices)
        return np.concatenate(
            [
                preprocessing.slice_input(slices, index, neighbours, position, preprocessing.middle_square(size))
                for slices, index in places
            ]
        )


def default_cache() -> Path:
    """Folder of prepared scans; CAC_CACHE_DIR overrides the user's cache folder."""
    if folder := os.environ.get("CAC_CACHE_DIR"):
        return Path(folder)
    return user_cache_folder() / "Samples"
