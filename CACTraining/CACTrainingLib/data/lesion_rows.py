"""Patches whose every dense voxel has a known source, as the lesion network learns them.

A scan of a digital patient, or a real one with digital calcium and stents, free of calcium, or painted, is searched for
the heart by the shipped network; what is dense in it is covered by patches (`scoring.lesion_network`), larger than
those that the network sees, so that they can be turned and shifted (`lesion_batches`). What is dense in a real scan and
not coronary is of unknown kind.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from scipy import ndimage

from CACScoringLib.anatomy.heart_search import find_heart
from CACScoringLib.anatomy.territories import Territories
from CACScoringLib.core.ct import AIR_HU, CTScan, mask_on_scan_grid, scan_from_image
from CACScoringLib.core.errors import CTError
from CACScoringLib.core.files import atomic_write
from CACScoringLib.core.grid import Grid
from CACScoringLib.core.labels import ARTERIES
from CACScoringLib.io.reading import read_ct, read_mask
from CACScoringLib.models.cards import LoadedModel, find_model, load_model
from CACScoringLib.networks.configs import LESION_KINDS, LESION_TERRITORIES, TERRITORY_STRIDE
from CACScoringLib.quality.examination import measure_blood
from CACScoringLib.record.rules import ScoringRules
from CACScoringLib.scoring.lesion_network import PatchSampler, covering, territories_around
from CACScoringLib.scoring.parts import connected_voxels
from CACScoringLib.scoring.sites import candidate_sites

from .. import phantom
from ..project.annotation_files import SliceLabel
from ..project.training import painted_regions
from ..project.training_scan import TrainingScan

ARTERY_KINDS = len(ARTERIES)
"""The first of LESION_KINDS are coronary calcium, in the order of `Artery`."""

NOISE = LESION_KINDS.index("noise")

NOT_CORONARY = len(LESION_KINDS)
"""Kind of what is not coronary in a real scan. Labels are NOT_CORONARY and indices of LESION_KINDS, all plus 1; 0 is
not dense, or unknown."""

VERSION = 7
"""Part of the files' names; raised whenever the rows of a scan would change."""

ROW_SIZE = (22, 66, 66)
"""Voxels of a stored patch along k, j, i."""

ROW = np.dtype(
    [
        ("hu", np.int16, ROW_SIZE),
        ("dense", np.uint8, ROW_SIZE),
        ("label", np.uint8, ROW_SIZE),
        ("size", np.uint8, ROW_SIZE),
        ("territories", np.uint8, (LESION_TERRITORIES, *np.floor_divide(ROW_SIZE, TERRITORY_STRIDE))),
        ("noise_hu", np.float32),
        ("volumes_mm3", np.float32, len(LESION_KINDS) + 1),
    ]
)
"""A patch: CT in HU, percent of each voxel that is dense, label of what is dense, volume of the lesion it belongs to
(`size_code`), percent of each territory, noise (SD, NaN if unknown), and volume of each label in the patch's core."""

FIRST_NUMBERS = {"training": 30_000_000, "validation": 31_000_000}
"""First number of the digital patients of each use, far from the others and from those of any cohort."""

NUMBERS_APART, BLOCK, BLOCKS_APART = 100_000, 10, 2_000_000
"""Distance of the first numbers of difficulties of digital patients, which take turns, in blocks of so many; and that
of blocks, because the numbers of each use end where those of the next begin."""

HEIGHTS_MM = (-76.0, 80.0)
"""Heights scanned of a digital patient, from the heart's middle."""

COVERINGS = 2
"""Times that what is dense is covered, each by other patches."""

BLOOD_HU, EXPLAINED = 45.0, 0.45
"""Density of blood, and least share of a voxel's excess over it that calcium or a device explains where it is not
noise."""

MAX_NOISE_PATCHES = {True: 80, False: 10}
"""Most patches of a scan that hold noise alone: of a real scan, and of a digital one."""

MAX_PATCHES = {True: 90, False: 16}
"""Most patches of a real scan, and of a digital one, of which there are thousands: they are drawn so that each kind in
the scan has the same share."""

STENT_SHARE = 0.2
"""Share of real scans that get a stent or two."""

THICKEST_MM, NOISE_HU = 6.0, (4.0, 60.0)
"""Largest slice thickness by averaging, and lowest and highest SD of added noise, in other views of a real scan."""

FIELD_SHARE, FIELD_MM = 0.3, (150.0, 220.0)
"""Share of other views of a real scan in a small field around the heart, and range of its width."""

USUAL_SIGMA_MM = (0.5, 0.7)
"""Range of the in-plane blur of scans that show too little skin to measure it."""

VALVE_SHARE, VALVE_DEPOSITS = 0.5, ("aortic root", "aortic valve", "mitral annulus")
"""Share of insertions with calcium of root and valves beside the plaque, and its kinds, each as likely as not."""

KIND_OF_DISTRACTOR = {
    "aortic root": "aortic valve and root",
    "aortic valve": "aortic valve and root",
    "mitral annulus": "mitral annulus",
    "aortic wall": "aorta",
    "pericardium": "pericardium",
    "pleural plaque": "pericardium",
    "abdominal clip": "clip",
    "hilar node": "other calcium",
    "papillary muscle": "other calcium",
    "right ring": "other calcium",
    "stent": "stent",
    "pacemaker lead": "lead",
    "sternal wires": "wire",
    "bypass clips": "clip",
    "venous catheter": "catheter",
    "prosthetic valve": "prosthetic valve",
}
"""Kind of a lesion by the simulated object in it; calcified pleura cannot be told from pericardium."""


@dataclass(frozen=True)
class DenseScan:
    """Scan and what is dense in it.

    Attributes:
        scan: The scan.
        territories: Its territories.
        flat: Indices of dense voxels, rising.
        labels: Label of each, as in ROW, uint8 [n].
        sites: Site of each by the territories, 0 beyond heart and territories, uint8 [n].
        noise_hu: SD of its noise; None if it could not be measured.
        is_real: True if its own dense voxels are of unknown kind.
    """

    scan: CTScan
    territories: Territories
    flat: np.ndarray
    labels: np.ndarray
    sites: np.ndarray
    noise_hu: float | None
    is_real: bool = False


def patients(use: str, count: int) -> list[tuple[int, phantom.Difficulty | None]]:
    """Return number and difficulty of the first digital patients of a use."""
    turns = (divmod(n, len(phantom.DIFFICULTIES)) for n in range(count))
    return [(_first_number(use, kind) + turn, phantom.DIFFICULTIES[kind]) for turn, kind in turns]


def _first_number(use: str, kind: int) -> int:
    """Return the number of the first patient of a use and a difficulty, given by its index."""
    block, place = divmod(kind, BLOCK)
    return FIRST_NUMBERS[use] + BLOCKS_APART * block + NUMBERS_APART * place


def patient_rows(
    number: int, difficulty: phantom.Difficulty | None, folder: Path, territories: LoadedModel
) -> np.ndarray:
    """Open a digital patient's patches, ROW [n]; make and write them if missing.

    Args:
        number: Number of the patient.
        difficulty: Its difficulty (`patients`).
        folder: Folder of the rows.
        territories: Territory network, which finds the heart too.
    """
    make = partial(digital_scan, number, difficulty, territories)
    return _stored(_file(folder, number, territories), make, number)


def inserted_rows(scan: TrainingScan, seed: int, folder: Path, territories: LoadedModel) -> np.ndarray:
    """Open the patches of a real scan with insertions, ROW [n]; make and write them if missing.

    Args:
        scan: Real scan free of coronary calcium; what else is dense in it is not coronary.
        seed: Seed of the insertions.
        folder: Folder of the rows.
        territories: Territory network.

    Raises:
        CTError: The scan cannot be read, has contrast, or holds no heart.
    """
    path = _file(folder, f"{scan.fingerprint()}-{seed}", territories)
    if not path.exists():
        _background(scan)  # raises errors that `_stored` would take for a scan without lesions
    return _stored(path, partial(_inserted_scan, scan, seed, territories), seed)


def clean_rows(scan: TrainingScan, view: int, folder: Path, territories: LoadedModel) -> np.ndarray:
    """Open what is dense in a real scan free of coronary calcium, ROW [n]; make it if missing.

    Args:
        scan: The scan.
        view: 0 for the scan as it is; else the seed of other slices, kernel and noise (`_other_view`).
        folder: Folder of the rows.
        territories: Territory network.

    Raises:
        CTError: The scan cannot be read.
    """
    path = _file(folder, f"{scan.fingerprint()}-clean-{view}", territories)
    if not path.exists():
        _read(scan)  # raises errors as above
    return _stored(path, partial(_view, scan, view, territories), view)


def _view(scan: TrainingScan, view: int, territories: LoadedModel) -> DenseScan:
    ct = _read(scan)
    if view:
        g = np.random.default_rng([view, 76])
        ct = _other_view(ct, g)
        if g.random() < FIELD_SHARE:
            heart, _ = mask_on_scan_grid(read_mask(scan.heart), _read(scan), "heart mask")
            ct = _small_field(ct, heart > 0, float(g.uniform(*FIELD_MM)))
    return dense_scan(ct, {}, territories, True)


def _small_field(ct: CTScan, heart: np.ndarray, width_mm: float) -> CTScan:
    """Cut a scan in plane to a square about its heart. heart: bool [k, j, i], whose slices may be others."""
    first, size = [0, 0, 0], list(ct.image.GetSize())
    for axis, is_heart in ((0, heart.any(axis=(0, 1))), (1, heart.any(axis=(0, 2)))):
        places = np.flatnonzero(is_heart)
        pixels = min(size[axis], round(width_mm / ct.image.GetSpacing()[axis]))
        first[axis] = int(np.clip((places[0] + places[-1] - pixels) // 2, 0, size[axis] - pixels))
        size[axis] = pixels
    return scan_from_image(sitk.RegionOfInterest(ct.image, size, first), ct.acquisition)


@lru_cache(maxsize=1)
def _read(scan: TrainingScan) -> CTScan:
    """Read a scan, whose views follow one another."""
    return read_ct(scan.ct, scan.series)


def _other_view(ct: CTScan, g: np.random.Generator) -> CTScan:
    """Draw a view of a scan by another scanner: slices averaged, a smoother or sharper kernel, more noise."""
    thickness = ct.image.GetSpacing()[2]
    count = int(g.integers(1, max(int(THICKEST_MM / thickness), 1) + 1))
    image = ct.image
    if count > 1:
        first = int(g.integers(count))
        last = first + (image.GetSize()[2] - first) // count * count
        image = sitk.BinShrink(sitk.Cast(image[:, :, first:last], sitk.sitkFloat32), [1, 1, count])
    hu = sitk.GetArrayFromImage(image).astype(np.float32)
    smooth = ndimage.gaussian_filter(hu, (0, 0.8, 0.8))
    hu += float(g.choice([0.0, g.uniform(-1, 0), g.uniform(0, 1)])) * (hu - smooth)
    if g.random() < 0.6:
        noise = ndimage.gaussian_filter(g.standard_normal(hu.shape, np.float32), (0, *[g.uniform(0.3, 0.9)] * 2))
        hu += float(np.exp(g.uniform(*np.log(NOISE_HU)))) / noise.std() * noise
    changed = np.rint(np.clip(hu, -1024, 3071)).astype(np.int16)
    return scan_from_image(Grid.of(image).image(changed), ct.acquisition)


def annotated_rows(scan: TrainingScan, folder: Path, territories: LoadedModel) -> np.ndarray:
    """Open what annotators judged in a real scan, ROW [n]; make it if missing.

    Raises CTError if the scan or an annotation cannot be read.
    """
    ct = read_ct(scan.ct, scan.series)
    readings = []
    for image, labels in painted_regions(scan):
        regions = np.zeros(ct.hu.shape, np.uint8)
        if image is not None:
            regions, _ = mask_on_scan_grid(image, ct, "regions", may_be_empty=True)
        # In a slice labelled as visible without a painted region, anything may be coronary.
        complete_label = {True: SliceLabel.VISIBLE, False: SliceLabel.NOT_VISIBLE}
        has_region = np.any(regions, axis=(1, 2)).tolist()
        is_complete = [labels.get(k) is complete_label[painted] for k, painted in enumerate(has_region)]
        readings.append(Reading(regions, np.array(is_complete)))
    content = hashlib.sha256(scan.fingerprint().encode())
    for reading in readings:
        content.update(reading.regions.tobytes() + reading.is_complete.tobytes())

    def make() -> DenseScan:
        dense = dense_scan(ct, {}, territories, True)
        return replace(dense, labels=annotated_labels(dense.flat, readings))

    return _stored(_file(folder, content.hexdigest()[:24], territories), make, 75)


@dataclass(frozen=True)
class Reading:
    """An annotator's reading of a scan.

    Attributes:
        regions: `Artery` labels of painted regions, uint8 [k, j, i].
        is_complete: True for slices in which nothing coronary was left unpainted, bool [k].
    """

    regions: np.ndarray
    is_complete: np.ndarray


def annotated_labels(flat: np.ndarray, readings: Sequence[Reading]) -> np.ndarray:
    """Return the label of dense voxels by annotators, uint8 [n].

    A painted voxel is of its artery; an unpainted one of a complete slice is not coronary. It is 0 if no annotator
    judged it, if they disagree, or if the artery is unknown.
    """
    verdicts = np.zeros((len(readings), len(flat)), np.uint8)
    for verdict, reading in zip(verdicts, readings, strict=True):
        verdict[:] = reading.regions.reshape(-1)[flat]
        is_complete = reading.is_complete[flat // reading.regions[0].size]
        verdict[(verdict == 0) & is_complete] = NOT_CORONARY + 1
    label = verdicts.max(axis=0, initial=0)
    is_known = (label <= ARTERY_KINDS) | (label == NOT_CORONARY + 1)
    return np.where(is_known & ((verdicts == label) | (verdicts == 0)).all(axis=0), label, 0)


@lru_cache(maxsize=1)
def _background(scan: TrainingScan) -> phantom.Background | None:
    """Read and measure a real scan, whose seeds follow one another; None if nothing can be inserted into it."""
    territories = load_model(find_model("territories").path, "cpu")
    try:
        return phantom.prepare_background(_read(scan), None, scan.patient, territories)
    except phantom.InsertionError:
        return None


def _inserted_scan(scan: TrainingScan, seed: int, territories: LoadedModel) -> DenseScan:
    background = _background(scan)
    if background is None:
        raise CTError("Nothing can be inserted.")
    g = np.random.default_rng([seed, 77])
    deposits = None
    if g.random() < VALVE_SHARE:
        deposits = tuple(kind for kind in VALVE_DEPOSITS if g.random() < 0.5)
    try:
        sigma_mm = phantom.measure_sigma_mm(background.scan)
    except phantom.InsertionError:
        sigma_mm = float(g.uniform(*USUAL_SIGMA_MM))
    settings = phantom.InsertedSettings(
        deposits=deposits, vary=True, everywhere=True, stent_share=STENT_SHARE, sigma_mm=sigma_mm, seed=seed
    )
    inserted = phantom.insert_lesions(phantom.clean_scan(background, settings), background, 0, settings)
    acquisition = replace(background.scan.acquisition, kvp=inserted.scanner.kvp)
    ct = scan_from_image(inserted.grid.image(inserted.hu), acquisition)
    return dense_scan(ct, sources_of(inserted), territories, True)


def _file(folder: Path, name: object, territories: LoadedModel) -> Path:
    """Return the file of a scan's rows, another for each territory network, whose answer they hold."""
    return folder / f"lesions-v{VERSION}-{territories.card.sha256[:8]}-{name}.npy"


def _stored(path: Path, make: Callable[[], DenseScan], seed: int) -> np.ndarray:
    """Open rows without reading them, so that a batch reads only its own; make and write them if missing.

    There are none where no heart is found, or nothing can be inserted.
    """
    if not path.exists():
        try:
            rows = scan_rows(make(), np.random.default_rng(seed))
        except CTError:
            rows = np.zeros(0, ROW)
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as unfinished, unfinished.open("wb") as file:
            np.save(file, rows)
    if path.stat().st_size < ROW.itemsize:  # an empty file cannot be mapped
        return np.zeros(0, ROW)
    rows = np.load(path, mmap_mode="r")
    if rows.dtype != ROW:
        raise CTError(f"{path} does not hold patches of this version. Delete it.")
    return rows


def digital_scan(number: int, difficulty: phantom.Difficulty | None, territories: LoadedModel) -> DenseScan:
    """Scan a digital patient (`phantom.draw_lesion_patient`) and label what is dense.

    Raises CTError if no heart is found.
    """
    patient = phantom.draw_lesion_patient(number, difficulty)
    scanner, pose = phantom.draw_lesion_scan(number, difficulty)
    scan = phantom.scan_patient(patient, scanner, pose, 1, phantom.scan_grid(scanner, HEIGHTS_MM))
    return dense_scan(phantom.as_ct_scan(scan, patient), sources_of(scan), territories)


def dense_scan(
    ct: CTScan, sources: dict[str, list[phantom.Stamp]], territories: LoadedModel, is_real: bool = False
) -> DenseScan:
    """Find the heart in a scan and label what is dense.

    Args:
        ct: The scan.
        sources: Image in HU of each kind that is known, as stamps.
        territories: Territory network.
        is_real: True if what they do not explain is of unknown kind, and not coronary.

    Raises:
        CTError: No heart was found.
    """
    region = find_heart(ct, None, territories)
    if region.territories is None:
        raise CTError("No territories were found.")
    dense = ct.hu >= ScoringRules().threshold_hu
    flat = np.flatnonzero(dense)
    sites = candidate_sites(region, dense, ct.grid).reshape(-1)[flat]
    blood = measure_blood(ct, region.mask)
    labels = voxel_labels(flat, ct.hu, sources, is_real)
    return DenseScan(ct, region.territories, flat, labels, sites, blood.noise_hu if blood else None, is_real)


def sources_of(scan: phantom.DigitalScan | phantom.InsertedScan) -> dict[str, list[phantom.Stamp]]:
    """Return the image in HU of each of LESION_KINDS but noise in a simulated scan, as stamps."""
    per_mg = np.float32(1000.0 * scan.scanner.calcium_hu_per_mg_cm3)
    sources = {
        artery: [replace(stamp, values=per_mg * stamp.values) for stamp in stamps]
        for artery, stamps in scan.arteries.items()
    }
    elsewhere = scan.distractors if isinstance(scan, phantom.DigitalScan) else scan.elsewhere
    for distractor, stamps in elsewhere.items():
        sources.setdefault(KIND_OF_DISTRACTOR[distractor], []).extend(stamps)
    return sources


def voxel_labels(
    flat: np.ndarray, hu: np.ndarray, sources: dict[str, list[phantom.Stamp]], is_real: bool = False
) -> np.ndarray:
    """Return the label of dense voxels, uint8 [n]: the kind that adds most, or noise where all add too little.

    Args:
        flat: Indices of the voxels.
        hu: The scan, [k, j, i].
        sources: Image in HU of each kind but noise, as stamps.
        is_real: True if noise is of unknown kind.
    """
    excess = np.maximum(hu.reshape(-1)[flat] - BLOOD_HU, 1)
    best, total = np.zeros(len(flat), np.float32), np.zeros(len(flat), np.float32)
    labels = np.zeros(len(flat), np.uint8)
    volume = np.zeros(hu.shape, np.float32)
    for kind, stamps in sources.items():
        volume[:] = 0
        phantom.add_stamps(volume, stamps)
        added = np.maximum(volume.reshape(-1)[flat], 0)
        labels[added > best] = LESION_KINDS.index(kind) + 1
        np.maximum(best, added, out=best)
        total += added
    labels[total < EXPLAINED * excess] = (NOT_CORONARY if is_real else NOISE) + 1
    return labels


def size_code(volume_mm3: np.ndarray) -> np.ndarray:
    """Return volumes as uint8, on a logarithmic scale up to 40 mL."""
    return np.rint(24 * np.log1p(np.minimum(volume_mm3, 40_000))).astype(np.uint8)


def volume_of(code: np.ndarray) -> np.ndarray:
    """Return the volumes in mm³ of codes of `size_code`."""
    return np.expm1(np.asarray(code, np.float32) / 24)


def scan_rows(dense: DenseScan, generator: np.random.Generator) -> np.ndarray:
    """Cut out patches that cover what is dense in heart and territories and has a label, ROW [n]."""
    scan, shape = dense.scan, dense.scan.hu.shape
    spacing_mm = np.array(scan.image.GetSpacing()[::-1])
    voxel_mm3 = math.prod(spacing_mm)
    lesion = connected_voxels(dense.flat, dense.labels, shape)
    sizes = size_code(np.bincount(lesion) * voxel_mm3)[lesion]
    dense_map = np.zeros(shape, bool)
    label_map, size_map = np.zeros((2, *shape), np.uint8)
    for volume, values in ((dense_map, True), (label_map, dense.labels), (size_map, sizes)):
        volume.reshape(-1)[dense.flat] = values
    is_candidate = (dense.sites > 0) & (dense.labels > 0)
    places = np.stack(np.unravel_index(dense.flat[is_candidate], shape), axis=1)
    labels = dense.labels[is_candidate]
    patches = []
    for _ in range(COVERINGS):
        order = generator.permutation(len(places))
        cover = covering(places[order], spacing_mm)
        for number, centre in enumerate(cover.centres):
            of_patch = labels[order[cover.patch == number]]
            patches.append((centre, voxel_mm3 * np.bincount(of_patch, minlength=NOT_CORONARY + 2)[1:]))
    patches = _without_much_noise(patches, dense.is_real, generator)
    result = np.zeros(len(patches), ROW)
    for row, (centre, volumes) in zip(result, patches, strict=True):
        sampler = PatchSampler.around(centre, shape, spacing_mm, ROW_SIZE)
        is_dense, label, size = dense_map[sampler.boxes], label_map[sampler.boxes], size_map[sampler.boxes]
        row["hu"] = np.rint(np.clip(sampler.sample(scan.hu[sampler.boxes], AIR_HU), -1024, 3071))
        share = sampler.sample(is_dense)
        row["dense"] = np.rint(100 * share)
        present = np.unique(label[is_dense])
        shares = np.stack([sampler.sample(is_dense & (label == number)) for number in present])
        row["label"] = np.where(share > 0, present[shares.argmax(axis=0)], 0)
        row["size"] = np.rint(sampler.sample(size) / np.maximum(share, 1e-3))
        row["territories"] = np.rint(100 * territories_around(dense.territories, centre, spacing_mm, ROW_SIZE))
        row["noise_hu"] = math.nan if dense.noise_hu is None else dense.noise_hu
        row["volumes_mm3"] = volumes
    return result


def _without_much_noise(
    patches: list[tuple[np.ndarray, np.ndarray]], is_real: bool, g: np.random.Generator
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Keep MAX_NOISE_PATCHES of the patches whose core holds nothing but noise, and MAX_PATCHES in all."""
    is_noise = [not volumes[:NOISE].any() for _, volumes in patches]
    noise = g.permutation(np.flatnonzero(is_noise))[: MAX_NOISE_PATCHES[is_real]]
    remaining = [patch for n, patch in enumerate(patches) if not is_noise[n] or n in noise]
    if len(remaining) <= MAX_PATCHES[is_real]:
        return remaining
    present = np.array([volumes > 0 for _, volumes in remaining])
    chances = (present / np.maximum(present.sum(axis=0), 1)).sum(axis=1)
    drawn = g.choice(len(remaining), MAX_PATCHES[is_real], replace=False, p=chances / chances.sum())
    return [remaining[n] for n in sorted(drawn.tolist())]
