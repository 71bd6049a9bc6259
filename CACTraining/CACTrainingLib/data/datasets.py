"""Folders of scans with known calcium as training samples: found, prepared once, split by patient, drawn in balance.

A scan's folder holds `ct.nii.gz`, `heart.nii.gz`, `truth.json` and, where the true calcium is known,
`calcium_map.nii.gz` (mg/cm³, coronary calcium alone), as digital patients and inserted lesions are written
(`phantom.cohort.export`). Of `truth.json` these keys are read: `patient` (number or name; scans of one patient carry
the same in every folder), `slices` (`k`, `visible`: true, false or, where it is not known, null), `mass_mg`,
`distractors`, `calcium_hu_per_mg_cm3`. A project's folder (`project`) gives the scans that it refers to, with
their annotations.

What the networks see comes from `preprocessing` alone. It is written once below a cache folder as arrays that are
mapped into memory, so that a cohort larger than the memory can be trained on.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from CACScoringLib.cohort.workers import run_jobs
from CACScoringLib.core.grid import ScanGrid
from CACScoringLib.models import preprocessing
from CACScoringLib.models.preprocessing import MAP_HU, MAX_NEIGHBOURS, HeartSlices

from ..project.project import Project, is_project
from ..project.training import training_scans
from ..project.training_scan import KINDS, DataError, TrainingScan, scan_in
from .scan_samples import write_slices, write_volume


def find_scans(folders: Iterable[Path], annotator: str | None = None) -> list[TrainingScan]:
    """All scans in folders and their subfolders, and those of projects.

    annotator: whose labels a project's scans carry; None for what most annotators say
    (`project.training.training_scans`). Raises DataError for a folder without scans, and for an unreadable truth;
    ProjectError for a damaged project.
    """
    found: dict[tuple[Path, str | None], TrainingScan] = {}
    for folder in map(Path, folders):
        if not folder.is_dir():
            raise DataError(f"The data folder {folder} does not exist. Make one, for example with: cac phantom.")
        own = is_project(folder)
        scans = training_scans(Project.open(folder), annotator) if own else _scans_below(folder)
        for scan in scans:
            key = scan.ct.resolve(), scan.series
            # Of a scan that a project refers to and that lies in a cohort too, the project knows the use.
            if own or key not in found:
                found[key] = scan
    return [found[key] for key in sorted(found, key=lambda key: (key[0], key[1] or ""))]


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
    """Scans to train on and to validate on; no patient is in both. Every kind of patient gives its share,
    and at least one of two.

    Patients with a stored use keep it, and those to test on are left out; the share is of the others. The same
    patients, share and seed give the same split whatever the order. Raises DataError when there is no patient to train
    or to validate on, or one has two uses.
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
    chosen = {patient for patient in kinds if uses.get(patient) == "validation"}
    free = {patient: kind for patient, kind in kinds.items() if patient not in uses}

    def drawn(patient: str) -> str:
        return hashlib.sha256(f"{seed}:{patient}".encode()).hexdigest()

    for kind in range(len(KINDS)):
        patients = sorted((p for p, own in free.items() if own == kind), key=drawn)
        count = round(validation_share * len(patients))
        is_lacking = not any(kinds[p] == kind for p in chosen) and sum(own == kind for own in kinds.values()) > 1
        chosen |= set(patients[: max(count, int(is_lacking and validation_share > 0))])
    if not chosen and free:
        chosen = {min(free, key=drawn)}
    if not free and len(chosen) in (0, len(kinds)):
        lacking = "training" if chosen else "validation"
        raise DataError(f"No patient is stored for {lacking}. Give some that use, or split the patients.")
    if len(chosen) == len(kinds):
        raise DataError(f"A validation share of {validation_share:g} leaves no patient to train on.")
    used = [scan for scan in scans if scan.patient in kinds]
    return [s for s in used if s.patient not in chosen], [s for s in used if s.patient in chosen]


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
    """Write what is not yet in the cache; returns each scan's folder there.

    kind: "slices" (`load_slices`) or "heart" (`load_volume`). Raises CTError when a scan cannot be used.
    """
    cache.mkdir(parents=True, exist_ok=True)
    folders = [cache / f"{kind}-{scan.fingerprint()}" for scan in scans]
    waiting = [(scan, folder) for scan, folder in zip(scans, folders, strict=True) if not folder.is_dir()]
    if workers < 2 or len(waiting) < 2:
        for n, job in enumerate(waiting, 1):
            _write(kind, job)
            if progress:
                progress(n, len(waiting))
        return folders
    events = run_jobs(partial(partial, _write, kind), waiting, workers, progress)
    for (scan, _), event in zip(waiting, events, strict=True):
        if event.state == "lost":
            raise DataError(f"{scan.ct} could not be prepared. {event.reason}")
    return folders


def _write(kind: str, job: tuple[TrainingScan, Path]) -> None:
    {"slices": write_slices, "heart": write_volume}[kind](*job)


@dataclass(frozen=True)
class ScanSlices:
    """A scan's slices from the cache.

    slices: as scoring sees them; hu is float16, and mapped into memory, as is the mask. maps: float16 [m, 224, 224], 1
    for 1000 HU, with the negative lobes of moving calcium; map_row: int [n], the slice's row in maps or −1 where it
    holds no coronary calcium. visible: bool [n], whether its calcium shows. labelled: bool [n], whether that is known.
    contrast: [n], of its calcium to the noise; NaN where unknown. bright: bool [n], whether something else in it
    resembles calcium. has_map: whether the true calcium is known.
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

    def calcium(self, chosen: np.ndarray) -> np.ndarray:
        """HU/1000 that coronary calcium adds to slices: float32 [len(chosen), 224, 224], negative lobes too.

        chosen: indices of slices, in the margin beyond the heart too, where none is known and the result is 0.
        """
        maps = np.zeros((len(chosen), *self.slices.heart.shape[1:]), np.float32)
        chosen = np.asarray(chosen)
        inside = (chosen >= 0) & (chosen < len(self.slices))
        rows = np.where(inside, self.map_row[np.clip(chosen, 0, len(self.slices) - 1)], -1)
        maps[rows >= 0] = self.maps[rows[rows >= 0]]
        return maps


def load_slices(folder: Path) -> ScanSlices:
    """A scan as `prepare` wrote it."""
    known = json.loads((folder / "scan.json").read_text(encoding="utf-8"))
    hu, heart, maps = (np.load(folder / f"{name}.npy", mmap_mode="r") for name in ("hu", "heart", "maps"))
    grid = ScanGrid(*(tuple(known["grid"][name]) for name in ("first", "step", "size")))
    slices = HeartSlices(grid, hu, heart, tuple(known["centre"]), tuple(known["radii"]))
    facts = {name: known[name] for name in ("patient", "kind", "has_map")}
    facts |= {name: np.array(known[name]) for name in ("map_row", "visible", "labelled", "bright")}
    return ScanSlices(slices=slices, maps=maps, contrast=np.array(known["contrast"], float), **facts)


@dataclass(frozen=True)
class HeartVolume:
    """A scan as the heart network sees it: float16 [k, j, i], 0 to 1; and its heart, uint8. Mapped into memory."""

    patient: str
    volume: np.ndarray
    heart: np.ndarray
    box: tuple[tuple[int, int], ...]


def load_volume(folder: Path) -> HeartVolume:
    """A scan as `prepare` wrote it."""
    known = json.loads((folder / "scan.json").read_text(encoding="utf-8"))
    volume, heart = (np.load(folder / f"{name}.npy", mmap_mode="r") for name in ("volume", "heart"))
    return HeartVolume(known["patient"], volume, heart, tuple(map(tuple, known["box"])))


class SliceDataset:
    """The labelled slices of many scans, one flat list; slices of which nobody has said what they show are left out.

    scan, index: int [N], the scan and the slice in it. visible, bright, calcium: bool [N]; calcium: true map not empty.
    contrast: float [N], as in `ScanSlices`. position: float [N], relative position in the heart. kind: int [N], of the
    scan, in KINDS.
    Raises DataError when slices with, or without, visible calcium are missing.
    """

    def __init__(self, scans: Sequence[ScanSlices]) -> None:
        self.scans = list(scans)
        labelled = [np.nonzero(s.labelled)[0] for s in self.scans]
        own = list(zip(self.scans, labelled, strict=True))
        sizes = [len(rows) for rows in labelled]
        self.scan = np.repeat(np.arange(len(sizes)), sizes)
        self.index = np.concatenate([np.zeros(0, int), *labelled])
        self.position = np.concatenate([np.zeros(0), *((rows + 0.5) / len(s.slices) for s, rows in own)])
        self.kind = np.repeat([KINDS.index(s.kind) for s in self.scans], sizes)
        none = np.zeros(0, bool)
        self.visible, self.bright = (
            np.concatenate([none, *(getattr(s, name)[rows] for s, rows in own)]) for name in ("visible", "bright")
        )
        self.contrast = np.concatenate([np.zeros(0), *(s.contrast[rows] for s, rows in own)])
        self.calcium = np.concatenate([none, *(s.map_row[rows] >= 0 for s, rows in own)])
        self.has_map = np.repeat([s.has_map for s in self.scans], sizes)
        if self.visible.all() or not self.visible.any():
            message = (
                f"Of {len(self)} labelled slices in {len(self.scans)} scans, {int(self.visible.sum())} show coronary "
                "calcium. Training and validation each need slices with and without: label or give more."
            )
            raise DataError(message)

    def __len__(self) -> int:
        return len(self.scan)

    def hu(self, chosen: np.ndarray, neighbours: int = 0, calcium: np.ndarray | None = None) -> np.ndarray:
        """Slices with their neighbours in the order of `slice_input`: float32 [len(chosen), C, 224, 224], HU.

        calcium: float [len(chosen)], what the coronary calcium is multiplied by, in the neighbours too.
        """
        offsets = np.array([0, *range(-neighbours, 0), *range(1, neighbours + 1)])
        result = np.stack(
            [self.scans[self.scan[n]].slices.hu[self.index[n] + offsets + MAX_NEIGHBOURS] for n in chosen]
        ).astype(np.float32)
        if calcium is not None:
            for n in np.nonzero(calcium != 1)[0]:
                own = self.scans[self.scan[chosen[n]]].calcium(self.index[chosen[n]] + offsets)
                result[n] += (calcium[n] - 1) * MAP_HU * own
        return result

    def true_map(self, chosen: np.ndarray) -> np.ndarray:
        """HU/1000 that coronary calcium adds: float32 [len(chosen), 1, 224, 224], with negative lobes."""
        return np.stack([self.scans[self.scan[n]].calcium(self.index[n : n + 1]) for n in chosen])

    def heart(self, chosen: np.ndarray) -> np.ndarray:
        """Heart masks: bool [len(chosen), 224, 224]."""
        return np.stack([self.scans[self.scan[n]].slices.heart[self.index[n]] for n in chosen])

    def position_channels(self, chosen: np.ndarray) -> np.ndarray:
        """Position channels by `preprocessing.position_channels`: float32 [len(chosen), 3, 224, 224]."""
        parts = [
            preprocessing.position_channels(self.scans[self.scan[n]].slices, self.index[n : n + 1]) for n in chosen
        ]
        return np.concatenate(parts)

    def network_input(
        self, chosen: np.ndarray, neighbours: int, position: bool, size: int = preprocessing.SLICE_SIZE
    ) -> np.ndarray:
        """Slices exactly as scoring gives them to a network (`preprocessing.slice_input`)."""
        places = ((self.scans[self.scan[n]].slices, self.index[n : n + 1]) for n in chosen)
        return np.concatenate(
            [
                preprocessing.slice_input(slices, own, neighbours, position, preprocessing.middle_square(size))
                for slices, own in places
            ]
        )


def default_cache() -> Path:
    """Folder of prepared scans; CAC_CACHE_DIR overrides the user's cache folder."""
    if chosen := os.environ.get("CAC_CACHE_DIR"):
        return Path(chosen)
    base = os.environ.get("LOCALAPPDATA") or os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "CAC" / "Samples"
