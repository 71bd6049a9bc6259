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
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from CACScoringLib.cohort.workers import run_jobs
from CACScoringLib.core.files import read_json
from CACScoringLib.core.grid import ScanGrid
from CACScoringLib.models import preprocessing
from CACScoringLib.models.preprocessing import MAP_HU, MAX_NEIGHBOURS, HeartSlices

from ..project.project import Project, is_project
from ..project.training import training_scans
from ..project.training_scan import KINDS, DataError, TrainingScan, scan_in
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

    kind: "slices" (`load_slices`) or "heart" (`load_volume`). Raises CTError for a scan that cannot be used.
    """
    cache.mkdir(parents=True, exist_ok=True)
    folders = [cache / f"{kind}-{scan.fingerprint()}" for scan in scans]
    missing = [(scan, folder) for scan, folder in zip(scans, folders, strict=True) if not folder.is_dir()]
    if workers < 2 or len(missing) < 2:
        for n, job in enumerate(missing, 1):
            _write(kind, job)
            if progress:
                progress(n, len(missing))
        return folders
    events = run_jobs(partial(partial, _write, kind), missing, workers, progress)
    for (scan, _), event in zip(missing, events, strict=True):
        if event.state == "lost":
            raise DataError(f"{scan.ct} could not be prepared. {event.reason}")
    return folders


def _write(kind: str, job: tuple[TrainingScan, Path]) -> None:
    {"slices": write_slices, "heart": write_volume}[kind](*job)


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
        indices = np.asarray(indices)
        inside = (indices >= 0) & (indices < len(self.slices))
        rows = np.where(inside, self.map_row[np.clip(indices, 0, len(self.slices) - 1)], -1)
        maps[rows >= 0] = self.maps[rows[rows >= 0]]
        return maps


def load_slices(folder: Path) -> ScanSlices:
    """Load a scan that `prepare` wrote."""
    record = read_json(folder / "scan.json")
    hu, heart, maps = (np.load(folder / f"{name}.npy", mmap_mode="r") for name in ("hu", "heart", "maps"))
    grid = ScanGrid(*(tuple(record["grid"][name]) for name in ("first", "step", "size")))
    slices = HeartSlices(grid, hu, heart, tuple(record["centre"]), tuple(record["radii"]))
    facts = {name: record[name] for name in ("patient", "kind", "has_map")}
    facts |= {name: np.array(record[name]) for name in ("map_row", "visible", "labelled", "bright")}
    return ScanSlices(slices=slices, maps=maps, contrast=np.array(record["contrast"], float), **facts)


@dataclass(frozen=True)
class HeartVolume:
    """Memory-mapped input of the heart network.

    Attributes:
        patient: Patient of the scan.
        volume: Scan, float16 [k, j, i], 0 to 1.
        heart: Mask, uint8 [k, j, i].
        box: First index of the heart and the one after its last, by axis.
    """

    patient: str
    volume: np.ndarray
    heart: np.ndarray
    box: tuple[tuple[int, int], ...]


def load_volume(folder: Path) -> HeartVolume:
    """Load a scan that `prepare` wrote."""
    record = read_json(folder / "scan.json")
    volume, heart = (np.load(folder / f"{name}.npy", mmap_mode="r") for name in ("volume", "heart"))
    return HeartVolume(record["patient"], volume, heart, tuple(map(tuple, record["box"])))


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
        if self.visible.all() or not self.visible.any():
            message = (
                f"Of {len(self)} labelled slices in {len(self.scans)} scans, {int(self.visible.sum())} show coronary "
                "calcium. Training and validation each need slices with and without: label or give more."
            )
            raise DataError(message)

    def __len__(self) -> int:
        return len(self.scan)

    def hu(self, indices: np.ndarray, neighbours: int = 0, calcium: np.ndarray | None = None) -> np.ndarray:
        """Return slices with their neighbours in HU, in the order of `slice_input`: float32 [n, C, 224, 224].

        calcium: factor on the coronary calcium of each slice and its neighbours, float [n].
        """
        offsets = np.array([0, *range(-neighbours, 0), *range(1, neighbours + 1)])
        result = np.stack(
            [self.scans[self.scan[n]].slices.hu[self.index[n] + offsets + MAX_NEIGHBOURS] for n in indices]
        ).astype(np.float32)
        if calcium is not None:
            for n in np.nonzero(calcium != 1)[0]:
                calcium_maps = self.scans[self.scan[indices[n]]].calcium(self.index[indices[n]] + offsets)
                result[n] += (calcium[n] - 1) * MAP_HU * calcium_maps
        return result

    def true_map(self, indices: np.ndarray) -> np.ndarray:
        """Return the HU/1000 that coronary calcium adds, float32 [n, 1, 224, 224], with negative lobes."""
        return np.stack([self.scans[self.scan[n]].calcium(self.index[n : n + 1]) for n in indices])

    def heart(self, indices: np.ndarray) -> np.ndarray:
        """Return heart masks, bool [n, 224, 224]."""
        return np.stack([self.scans[self.scan[n]].slices.heart[self.index[n]] for n in indices])

    def position_channels(self, indices: np.ndarray) -> np.ndarray:
        """Return channels of `preprocessing.position_channels`, float32 [n, 3, 224, 224]."""
        parts = [
            preprocessing.position_channels(self.scans[self.scan[n]].slices, self.index[n : n + 1]) for n in indices
        ]
        return np.concatenate(parts)

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
    base = os.environ.get("LOCALAPPDATA") or os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "CAC" / "Samples"
