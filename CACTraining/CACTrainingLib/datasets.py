"""Folders of scans with known calcium as training samples: found, prepared once, split by patient, drawn in balance.

A scan's folder holds `ct.nii.gz`, `heart.nii.gz`, `truth.json` and, where the true calcium is known,
`calcium_map.nii.gz` (mg/cm³, coronary calcium alone), as digital patients and inserted lesions are written
(`phantom.export`). Of `truth.json` these keys are read: `patient` (number or name; scans of one patient carry the same
in every folder), `slices` (`k`, `visible`), `mass_mg`, `distractors`, `calcium_hu_per_mg_cm3`.

What the networks see comes from `preprocessing` alone. It is written once below a cache folder as arrays that are
mapped into memory, so that a cohort larger than the memory can be trained on.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from scipy import ndimage

from CACScoringLib import preprocessing
from CACScoringLib.ct import CTError, mask_on_scan_grid, same_grid
from CACScoringLib.preprocessing import MAP_HU, MAX_NEIGHBOURS, Grid, HeartSlices
from CACScoringLib.reading import read_ct, read_mask

from .phantom.labels import VISIBLE_CONTRAST_TO_NOISE

CACHE_VERSION = 2
KINDS = ("clean", "distractor", "coronary")
"""A scan without calcium; one whose calcium is not coronary; one with coronary calcium."""

BRIGHT_HU, BRIGHT_PIXELS, BRIGHT_SIGMA_PIXELS, BRIGHT_MARGIN_PIXELS = 90.0, 3, 1.0, 4
"""A slice with this many pixels this bright, when smoothed, in or near the heart resembles one with calcium. Blood and
muscle are below 60 HU; the valves' calcium, blurred by motion, often stays below 130 HU."""

MAP_FLOOR_HU = 1.0


class DataError(CTError):
    """The training data are missing, unfit, or too few. The message says what to do."""


@dataclass(frozen=True)
class TrainingScan:
    """One scan that can be trained on.

    kind: one of KINDS. heart_label: its value in the mask, None for any but 0. heart_known: whether the mask is the
    heart's outline and not only the region found from the lungs.
    """

    ct: Path
    heart: Path
    patient: str
    kind: str = "clean"
    truth: Path | None = None
    calcium_map: Path | None = None
    heart_label: int | None = None
    heart_known: bool = True

    def shows_calcium(self) -> bool:
        """Whether coronary calcium is visible in any slice, as its truth says. Raises DataError without a truth."""
        if self.truth is None:
            raise DataError(f"Nothing is known of the calcium in {self.ct}.")
        return any(label["visible"] for label in _read_truth(self.truth)["slices"])

    def fingerprint(self) -> str:
        """Changes when a file of the scan does, or the way it is prepared."""
        parts: list[object] = [CACHE_VERSION, preprocessing.VERSION, self.heart_label]
        for path in (self.ct, self.heart, self.truth, self.calcium_map):
            if path is not None:
                stat = path.stat()
                parts += [str(path.resolve()), stat.st_size, stat.st_mtime_ns]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:24]


def find_scans(folders: Iterable[Path]) -> list[TrainingScan]:
    """All scans in folders and their subfolders. Raises DataError for a folder without, and for an unreadable truth."""
    found: dict[Path, TrainingScan] = {}
    for folder in map(Path, folders):
        if not folder.is_dir():
            raise DataError(f"The data folder {folder} does not exist. Make one, for example with: cac phantom.")
        truths = sorted(path for path in folder.rglob("truth.json") if (path.parent / "ct.nii.gz").is_file())
        if not truths:
            message = (
                f"{folder} holds no scan to train on: none of its folders has both ct.nii.gz and truth.json. "
                "Give the folder of a cohort, as cac phantom writes it."
            )
            raise DataError(message)
        found |= {path.resolve(): _scan_in(path) for path in truths}
    return [found[path] for path in sorted(found)]


def split_by_patient(
    scans: Sequence[TrainingScan], validation_share: float, seed: int
) -> tuple[list[TrainingScan], list[TrainingScan]]:
    """Scans to train on and to validate on; no patient is in both. Every kind of patient gives its share.

    The same patients, share and seed give the same split whatever the order. Raises DataError for fewer than two
    patients.
    """
    kinds: dict[str, int] = {}
    for scan in scans:
        kinds[scan.patient] = max(kinds.get(scan.patient, 0), KINDS.index(scan.kind))
    if len(kinds) < 2:
        raise DataError(f"There are {len(kinds)} patients; training needs at least two, one of them to validate on.")
    chosen: set[str] = set()
    for kind in range(len(KINDS)):
        patients = [p for p, own in kinds.items() if own == kind]
        patients.sort(key=lambda p: hashlib.sha256(f"{seed}:{p}".encode()).hexdigest())
        chosen |= set(patients[: round(validation_share * len(patients))])
    chosen = chosen or {min(kinds, key=lambda p: hashlib.sha256(f"{seed}:{p}".encode()).hexdigest())}
    if len(chosen) == len(kinds):
        raise DataError(f"A validation share of {validation_share:g} leaves no patient to train on.")
    return [s for s in scans if s.patient not in chosen], [s for s in scans if s.patient in chosen]


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
    write = {"slices": _write_slices, "heart": _write_volume}[kind]
    if workers < 2 or len(waiting) < 2:
        for n, (scan, folder) in enumerate(waiting, 1):
            write(scan, folder)
            if progress:
                progress(n, len(waiting))
        return folders
    with ProcessPoolExecutor(workers) as pool:
        jobs = [pool.submit(write, scan, folder) for scan, folder in waiting]
        for n, job in enumerate(jobs, 1):
            job.result()
            if progress:
                progress(n, len(jobs))
    return folders


@dataclass(frozen=True)
class ScanSlices:
    """A scan's slices from the cache.

    slices: as scoring sees them; hu is float16, and mapped into memory, as is the mask. maps: float16 [m, 224, 224], 1
    for 1000 HU, with the negative lobes of moving calcium; map_row: int [n], the slice's row in maps or −1 where it
    holds no coronary calcium. visible: bool [n], whether its calcium shows. contrast: [n], of its calcium to the noise;
    NaN where unknown. bright: bool [n], whether something else in it resembles calcium. has_map: whether the true
    calcium is known.
    """

    patient: str
    kind: str
    slices: HeartSlices
    maps: np.ndarray
    map_row: np.ndarray
    visible: np.ndarray
    contrast: np.ndarray
    bright: np.ndarray
    has_map: bool

    def calcium(self, chosen: np.ndarray) -> np.ndarray:
        """What coronary calcium adds to slices: float32 [len(chosen), 224, 224], 1 for 1000 HU, negative lobes too.

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
    grid = Grid(*(tuple(known["grid"][name]) for name in ("first", "step", "size")))
    slices = HeartSlices(grid, hu, heart, tuple(known["centre"]), tuple(known["radii"]))
    rows, visible, bright = (np.array(known[name]) for name in ("map_row", "visible", "bright"))
    contrast = np.array(known["contrast"], float)
    return ScanSlices(known["patient"], known["kind"], slices, maps, rows, visible, contrast, bright, known["has_map"])


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


@dataclass(frozen=True)
class Sampling:
    """How batches are balanced.

    positive_share: of slices with visible calcium. position_tolerance: how far from a positive slice's relative
    position in the heart (0 lowest, 1 highest) its negative counterpart may lie. hard_share: of the negatives, those
    drawn where something else resembles calcium, or calcium is too faint to show. hidden_calcium: whether slices with
    calcium too faint to show count as negative, as in weakly labelled data; else they are left out of the negatives.

    Where the true calcium is known, it can be varied. twin_share: of the negatives, those that are a positive slice of
    the same batch with its calcium taken out, so that nothing else tells them apart. calcium_scale: largest factor by
    which a positive slice's calcium is made denser or fainter, but never too faint to show.
    """

    positive_share: float = 0.5
    position_tolerance: float = 0.08
    hard_share: float = 0.5
    hidden_calcium: bool = True
    twin_share: float = 0.0
    calcium_scale: float = 1.0


@dataclass(frozen=True)
class Drawn:
    """Slices of a batch, those with visible calcium first.

    chosen: int [n], indices in a `SliceDataset`. calcium: float32 [n], what their coronary calcium is multiplied by.
    visible: bool [n], whether it then shows.
    """

    chosen: np.ndarray
    calcium: np.ndarray
    visible: np.ndarray


class SliceDataset:
    """All slices of many scans, one flat list.

    scan, index: int [N], the scan and the slice in it. visible, bright, calcium: bool [N]; calcium: true map not empty.
    contrast: float [N], as in `ScanSlices`. position: float [N], relative position in the heart. kind: int [N], of the
    scan, in KINDS.
    Raises DataError when slices with, or without, visible calcium are missing.
    """

    def __init__(self, scans: Sequence[ScanSlices]) -> None:
        self.scans = list(scans)
        sizes = [len(s.slices) for s in self.scans]
        self.scan = np.repeat(np.arange(len(sizes)), sizes)
        self.index = np.concatenate([np.arange(n) for n in sizes])
        self.position = np.concatenate([(np.arange(n) + 0.5) / n for n in sizes])
        self.kind = np.repeat([KINDS.index(s.kind) for s in self.scans], sizes)
        self.visible = np.concatenate([s.visible for s in self.scans])
        self.bright = np.concatenate([s.bright for s in self.scans])
        self.contrast = np.concatenate([s.contrast for s in self.scans])
        self.calcium = np.concatenate([s.map_row >= 0 for s in self.scans])
        self.has_map = np.repeat([s.has_map for s in self.scans], sizes)
        if self.visible.all() or not self.visible.any():
            message = (
                f"Of {len(self)} slices in {len(self.scans)} scans, {int(self.visible.sum())} show coronary calcium. "
                "Training and validation each need slices with and without: give more patients."
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
        """What coronary calcium adds: float32 [len(chosen), 1, 224, 224], 1 for 1000 HU, with negative lobes."""
        return np.stack([self.scans[self.scan[n]].calcium(self.index[n : n + 1]) for n in chosen])

    def heart(self, chosen: np.ndarray) -> np.ndarray:
        """Heart masks: bool [len(chosen), 224, 224]."""
        return np.stack([self.scans[self.scan[n]].slices.heart[self.index[n]] for n in chosen])

    def position_channels(self, chosen: np.ndarray) -> np.ndarray:
        """As `preprocessing.position_channels`: float32 [len(chosen), 3, 224, 224]."""
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
            [preprocessing.slice_input(slices, own, neighbours, position, size) for slices, own in places]
        )


class BalancedSampler:
    """Draws slices in balance. known_maps: draw only from scans whose true calcium is known."""

    def __init__(self, data: SliceDataset, sampling: Sampling, known_maps: bool = False) -> None:
        usable = data.has_map if known_maps else np.ones(len(data), bool)
        negative = usable & ~data.visible & (sampling.hidden_calcium | ~data.calcium)
        self.data, self.sampling = data, sampling
        self.positive = np.nonzero(usable & data.visible)[0]
        self.negative = self._by_position(negative)
        self.hard = self._by_position(negative & (data.bright | data.calcium))
        if not len(self.positive) or not len(self.negative):
            raise DataError(
                f"{len(self.positive)} slices with and {len(self.negative)} without calcium can be drawn; both are "
                "needed. Give more patients."
            )

    def draw(self, generator: np.random.Generator, count: int) -> Drawn:
        """Slices with visible calcium, and as many as make up the count without, at matching positions."""
        positives = generator.choice(self.positive, max(1, round(count * self.sampling.positive_share)))
        partners = np.resize(positives, count - len(positives))
        tolerance = self.sampling.position_tolerance
        places = self.data.position[partners] + generator.uniform(-tolerance, tolerance, len(partners))
        wanted = np.clip(places, 0, 1)
        twins = (generator.random(len(partners)) < self.sampling.twin_share) & self.data.has_map[partners]
        hard = generator.random(len(partners)) < self.sampling.hard_share * (len(self.hard) > 0)
        pools = (self.negative, self.hard)
        others = [self._near(pools[h], place, generator) for h, place in zip(hard.astype(int), wanted, strict=True)]
        return Drawn(
            chosen=np.concatenate([positives, np.where(twins, partners, np.array(others, np.intp))]),
            calcium=np.concatenate([self._factors(positives, generator), ~twins]).astype(np.float32),
            visible=np.arange(count) < len(positives),
        )

    def _factors(self, positives: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        """What the calcium of positive slices is multiplied by; 1 where it is not known."""
        limit = math.log(self.sampling.calcium_scale)
        factors = np.exp(generator.uniform(-limit, limit, len(positives)))
        contrast = self.data.contrast[positives]
        known = self.data.has_map[positives] & (contrast > VISIBLE_CONTRAST_TO_NOISE)
        return np.where(known, np.maximum(factors, VISIBLE_CONTRAST_TO_NOISE / np.where(known, contrast, 1.0)), 1.0)

    def _near(self, pool: np.ndarray, place: float, generator: np.random.Generator) -> int:
        places = self.data.position[pool]
        tolerance = self.sampling.position_tolerance
        low, high = np.searchsorted(places, (place - tolerance / 2, place + tolerance / 2))
        if low >= high:  # nothing there: the nearest
            low = min(low, len(pool) - 1)
            high = low + 1
        return int(pool[generator.integers(low, high)])

    def _by_position(self, which: np.ndarray) -> np.ndarray:
        chosen = np.nonzero(which)[0]
        return chosen[np.argsort(self.data.position[chosen], kind="stable")]


def _scan_in(truth_path: Path) -> TrainingScan:
    folder = truth_path.parent
    truth = _read_truth(truth_path)
    heart, calcium = folder / "heart.nii.gz", folder / "calcium_map.nii.gz"
    if not heart.is_file():
        raise DataError(f"{folder} has no heart.nii.gz. Every scan to train on needs its heart mask.")
    kind = "coronary" if truth.get("mass_mg") or any(s["visible"] for s in truth["slices"]) else "clean"
    if kind == "clean" and truth.get("distractors"):
        kind = "distractor"
    return TrainingScan(
        ct=folder / "ct.nii.gz",
        heart=heart,
        patient=str(truth["patient"]),
        kind=kind,
        truth=truth_path,
        calcium_map=calcium if calcium.is_file() else None,
        heart_known=truth.get("heart_source") != "lungs",
    )


def _read_truth(path: Path) -> dict:
    try:
        truth = json.loads(path.read_text(encoding="utf-8"))
        if not all("k" in s and "visible" in s for s in truth["slices"]):
            raise KeyError("k, visible")
        truth["patient"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{path} is no truth of a scan ({type(error).__name__}: {error}). Make the scan again."
        ) from error
    return truth


def _write_slices(scan: TrainingScan, folder: Path) -> None:
    truth = _read_truth(scan.truth)
    ct = read_ct(scan.ct)
    heart, _ = mask_on_scan_grid(read_mask(scan.heart), ct, "heart mask")
    slices = preprocessing.heart_slices(ct.image, heart)
    true_map = np.zeros(slices.heart.shape, np.float32)
    if scan.calcium_map is not None:
        calcium = sitk.DICOMOrient(sitk.ReadImage(str(scan.calcium_map)), "LPS")
        if not same_grid(calcium, ct.image):
            raise DataError(f"{scan.calcium_map} is not on the grid of the CT beside it.")
        true_map = preprocessing.on_grid(calcium, slices.grid, 0.0) * float(truth["calcium_hu_per_mg_cm3"])
    rows = np.full(len(slices), -1)
    filled = (np.abs(true_map) > MAP_FLOOR_HU).any((1, 2))
    rows[filled] = np.arange(filled.sum())
    known = {
        "patient": scan.patient,
        "kind": scan.kind,
        "has_map": scan.calcium_map is not None,
        "grid": {name: getattr(slices.grid, name) for name in ("first", "step", "size")},
        "centre": slices.centre,
        "radii": slices.radii,
        "map_row": rows.tolist(),
        "visible": _on_slices(truth["slices"], "visible", slices.grid).astype(bool).tolist(),
        "contrast": _on_slices(truth["slices"], "contrast_to_noise", slices.grid).tolist(),
        "bright": _bright(slices, true_map).tolist(),
    }
    maps = (true_map[filled] / MAP_HU).astype(np.float16)
    hu = np.clip(slices.hu, -1024, 3071).astype(np.float16)
    _write_folder(folder, known, {"hu": hu, "heart": slices.heart, "maps": maps})


def _write_volume(scan: TrainingScan, folder: Path) -> None:
    ct = read_ct(scan.ct)
    mask = read_mask(scan.heart)
    if scan.heart_label is not None:
        mask = mask == scan.heart_label
    heart, _ = mask_on_scan_grid(mask, ct, "heart mask")
    grid = preprocessing.heart_grid(ct.image)
    volume = preprocessing.heart_input(ct.image).astype(np.float16)
    inside = preprocessing.on_grid(heart != 0, grid, 0.0) >= 0.5
    if not inside.any():
        raise DataError(f"The heart in {scan.heart} is smaller than a voxel of the heart network.")
    box = [(int(n.min()), int(n.max()) + 1) for n in np.nonzero(inside)]
    _write_folder(folder, {"patient": scan.patient, "box": box}, {"volume": volume, "heart": inside.astype(np.uint8)})


def _on_slices(labels: list[dict], name: str, grid: Grid) -> np.ndarray:
    """Labels for the grid's slices: the highest of the scan's whose centre lies in one, else that it lies in.

    float [n]; NaN where the scan's labels lack it, and 0 where it has no label.
    """
    known = {int(s["k"]): float(s.get(name, np.nan)) for s in labels}
    centres = grid.first[2] + grid.step[2] * np.arange(grid.size[2])
    result = np.zeros(len(centres))
    for n, centre in enumerate(centres):
        inside = range(int(np.ceil(centre - grid.step[2] / 2)), int(np.floor(centre + grid.step[2] / 2)) + 1)
        result[n] = np.max([known.get(k, 0.0) for k in (inside or [round(centre)])])
    return result


def _bright(slices: HeartSlices, map_hu: np.ndarray) -> np.ndarray:
    own = slices.hu[MAX_NEIGHBOURS : MAX_NEIGHBOURS + len(slices)]
    smooth = ndimage.gaussian_filter(own - map_hu, (0, BRIGHT_SIGMA_PIXELS, BRIGHT_SIGMA_PIXELS))
    side = 2 * BRIGHT_MARGIN_PIXELS + 1
    near = ndimage.maximum_filter(slices.heart.view(np.uint8), (1, side, side)) > 0
    return ((smooth >= BRIGHT_HU) & near).sum((1, 2)) >= BRIGHT_PIXELS


def _write_folder(folder: Path, known: dict, arrays: dict[str, np.ndarray]) -> None:
    temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        for name, array in arrays.items():
            np.save(temporary / f"{name}.npy", array)
        (temporary / "scan.json").write_text(json.dumps(known), encoding="utf-8")
        try:
            temporary.rename(folder)
        except OSError:  # another run has written the same meanwhile
            if not folder.is_dir():
                raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def default_cache() -> Path:
    """Where prepared scans are kept; CAC_CACHE_DIR overrides the user's cache folder."""
    if chosen := os.environ.get("CAC_CACHE_DIR"):
        return Path(chosen)
    base = os.environ.get("LOCALAPPDATA") or os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "CAC" / "Samples"
