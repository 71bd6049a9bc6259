"""Patches whose every dense voxel has a known source, as the voxel network learns them.

A scan of a digital patient, or a real one with digital calcium or without any, is searched for the heart by the shipped
networks; what is dense in it is covered by patches (`scoring.lesion_voxels`), larger than those that the network sees,
so that they can be turned and shifted. What is dense in a real scan free of coronary calcium is not coronary, and its
kind is unknown.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from CACScoringLib.anatomy.heart_region import HeartRegion
from CACScoringLib.anatomy.heart_search import find_heart
from CACScoringLib.anatomy.territories import Territories
from CACScoringLib.core.ct import AIR_HU, CTScan, scan_from_image
from CACScoringLib.core.errors import CTError
from CACScoringLib.core.files import atomic_write
from CACScoringLib.core.grid import Box, Grid, ScanGrid, bounding_box
from CACScoringLib.models.cards import LoadedModel
from CACScoringLib.networks.configs import LESION_KINDS, LESION_TERRITORIES, TERRITORY_STRIDE
from CACScoringLib.quality.acquisition import measure_blood
from CACScoringLib.record.rules import ScoringRules
from CACScoringLib.scoring.lesion_network import PatchSampler, territories_around
from CACScoringLib.scoring.lesion_voxels import covering
from CACScoringLib.scoring.lesions import connected_voxels
from CACScoringLib.scoring.map_evidence import BLOOD_HU
from CACScoringLib.scoring.sites import candidate_sites

from .. import phantom
from .lesion_rows import ROW_SIZE, sources_of

NOISE = LESION_KINDS.index("noise")

NOT_CORONARY = len(LESION_KINDS)
"""Label of what is dense in a real scan and not coronary, its kind unknown; other labels are indices of LESION_KINDS,
all plus 1, and 0 is not dense."""

VOXEL_ROW = np.dtype(
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

MARGIN_MM = 25.0
"""Distance from what is dense in heart and territories up to which voxels have labels."""

EXPLAINED = 0.45
"""Least share of a voxel's excess over blood that calcium or a device explains where it is not noise."""

MAX_NOISE_PATCHES = {True: 80, False: 10}
"""Most patches of a scan that hold noise alone: of a real scan, and of a digital one."""

MAX_PATCHES = 90
"""Most patches of a scan; calcium that much motion spreads fills more."""

FIRST_NUMBERS = {
    "training": {None: 7_000_000, "ostium": 7_100_000, "heavy": 7_200_000, "motion": 7_300_000, "device": 7_400_000},
    "validation": {None: 7_500_000, "ostium": 7_600_000, "heavy": 7_700_000, "motion": 7_800_000, "device": 7_900_000},
    "test": {None: 8_500_000, "ostium": 8_600_000, "heavy": 8_700_000, "motion": 8_800_000, "device": 8_900_000},
}
"""First patient number by use and difficulty."""

HEIGHTS_MM = (-76.0, 80.0)
"""Heights scanned, from the heart's middle."""


@dataclass(frozen=True)
class DenseScan:
    """Scan around the heart, and what is dense in it.

    Attributes:
        scan: The scan, or the part of it that was kept.
        territories: Its territories.
        flat: Indices of dense voxels, rising.
        labels: Label of each, as in VOXEL_ROW, uint8 [n].
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


def sources_by_voxel(scan: phantom.DigitalScan | phantom.InsertedScan) -> dict[str, list[phantom.Stamp]]:
    """Return `sources_of` a scan; calcified pleura is of the pericardium's kind here, as they cannot be told apart."""
    if isinstance(scan, phantom.DigitalScan):
        kinds: dict[str, list[phantom.Stamp]] = {}
        for kind, stamps in scan.distractors.items():
            kinds.setdefault("pericardium" if kind == "pleural plaque" else kind, []).extend(stamps)
        scan = replace(scan, distractors=kinds)
    return sources_of(scan)


def digital_scan(
    number: int, difficulty: phantom.Difficulty | None, gated: bool | None, territories: LoadedModel
) -> DenseScan:
    """Scan a digital patient (`phantom.draw_lesion_patient`) and label what is dense.

    Raises CTError if no heart is found.
    """
    patient = phantom.draw_lesion_patient(number, difficulty)
    scanner, pose, _ = phantom.draw_lesion_scan(number, difficulty, gated)
    scan = phantom.scan_patient(patient, scanner, pose, 1, phantom.scan_grid(scanner, HEIGHTS_MM), 1)
    return dense_scan(phantom.as_ct_scan(scan, patient), sources_by_voxel(scan), territories)


def dense_scan(
    ct: CTScan, sources: dict[str, list[phantom.Stamp]], territories: LoadedModel, is_real: bool = False
) -> DenseScan:
    """Find the heart in a scan and label what is dense around it.

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
    sites = candidate_sites(region, dense)
    box = _box_around(sites > 0, np.array(ct.image.GetSpacing()[::-1]))
    part, places = _part(ct, region, box)
    flat = np.flatnonzero(dense[box])
    labels = voxel_labels(flat, ct.hu[box], _in_box(sources, box), is_real)
    blood = measure_blood(ct, region.mask)
    noise_hu = None if blood is None else blood.noise_hu
    return DenseScan(part, places, flat, labels, sites[box].reshape(-1)[flat], noise_hu, is_real)


def _box_around(mask: np.ndarray, spacing_mm: np.ndarray) -> Box:
    """Return the box of a mask with MARGIN_MM around it. Raises CTError if the mask is empty."""
    if not mask.any():
        raise CTError("Nothing is dense in the heart.")
    margins = np.ceil(MARGIN_MM / spacing_mm).astype(int).tolist()
    limits = zip(bounding_box(mask), margins, mask.shape, strict=True)
    return tuple(slice(max(b.start - m, 0), min(b.stop + m, n)) for b, m, n in limits)


def _part(ct: CTScan, region: HeartRegion, box: Box) -> tuple[CTScan, Territories]:
    """Return the scan and its territories in a box."""
    assert region.territories is not None
    corner, size = [part.start for part in box[::-1]], [part.stop - part.start for part in box[::-1]]
    grid = Grid.of(ct.image)
    origin = ct.image.TransformIndexToPhysicalPoint(corner)
    image = Grid(tuple(size), grid.spacing_mm, origin, grid.direction).image(np.ascontiguousarray(ct.hu[box]))
    territories = region.territories
    first = tuple(f - c for f, c in zip(territories.grid.first, corner, strict=True))
    shifted = ScanGrid((first[0], first[1], first[2]), territories.grid.step, territories.grid.size)
    places = replace(territories, grid=shifted)
    return scan_from_image(image, ct.acquisition), places


def _in_box(sources: dict[str, list[phantom.Stamp]], box: Box) -> dict[str, list[phantom.Stamp]]:
    planes, rows, columns = box
    return {
        kind: [
            phantom.Stamp(stamp.k - planes.start, stamp.j - rows.start, stamp.i - columns.start, stamp.values)
            for stamp in stamps
            if planes.start <= stamp.k < planes.stop
        ]
        for kind, stamps in sources.items()
    }


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


def voxel_rows(dense: DenseScan, generator: np.random.Generator, coverings: int = 1) -> np.ndarray:
    """Cut out patches that cover what is dense in heart and territories, VOXEL_ROW [n].

    coverings: Times that it is covered, each by other patches.
    """
    scan, shape = dense.scan, dense.scan.hu.shape
    spacing_mm = np.array(scan.image.GetSpacing()[::-1])
    voxel_mm3 = math.prod(spacing_mm)
    lesion = connected_voxels(dense.flat, dense.labels, shape)
    sizes = size_code(np.bincount(lesion) * voxel_mm3)[lesion]
    label_map, size_map = np.zeros((2, *shape), np.uint8)
    label_map.reshape(-1)[dense.flat], size_map.reshape(-1)[dense.flat] = dense.labels, sizes
    is_candidate = dense.sites > 0
    places = np.stack(np.unravel_index(dense.flat[is_candidate], shape), axis=1)
    labels = dense.labels[is_candidate]
    rows = []
    names = len(LESION_KINDS) + 1
    for _ in range(coverings):
        order = generator.permutation(len(places))
        cover = covering(places[order], spacing_mm)
        for number, centre in enumerate(cover.centres):
            of_patch = labels[order[cover.patch == number]]
            rows.append((centre, voxel_mm3 * np.bincount(of_patch - 1, minlength=names)))
    rows = _without_much_noise(rows, dense.is_real, generator)
    result = np.zeros(len(rows), VOXEL_ROW)
    for row, (centre, volumes) in zip(result, rows, strict=True):
        sampler = PatchSampler.around(centre, shape, spacing_mm, ROW_SIZE)
        label, size = label_map[sampler.boxes], size_map[sampler.boxes]
        row["hu"] = np.rint(np.clip(sampler.sample(scan.hu[sampler.boxes], AIR_HU), -1024, 3071))
        share = sampler.sample(label > 0)
        row["dense"] = np.rint(100 * share)
        present = [number for number in np.unique(label).tolist() if number]
        shares = np.stack([sampler.sample(label == number) for number in present])
        row["label"] = np.where(share > 0, np.array(present, np.uint8)[shares.argmax(axis=0)], 0)
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
    return [remaining[n] for n in sorted(g.permutation(len(remaining))[:MAX_PATCHES].tolist())]


def write_rows(path: Path, rows: np.ndarray) -> None:
    """Write rows, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as unfinished, unfinished.open("wb") as file:
        np.save(file, rows)


def open_rows(paths: Sequence[Path]) -> list[np.ndarray]:
    """Open rows without reading them; files without any are left out."""
    return [np.load(path, mmap_mode="r") for path in paths if path.stat().st_size > VOXEL_ROW.itemsize]


def write_dense_scan(path: Path, dense: DenseScan) -> None:
    """Write a scan with its truth, to be judged (`open_dense_scan`)."""
    scan, places = dense.scan, dense.territories
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as unfinished, unfinished.open("wb") as file:
        np.savez(
            file,
            hu=scan.hu,
            spacing_mm=scan.image.GetSpacing(),
            origin_mm=scan.image.GetOrigin(),
            kvp=math.nan if scan.acquisition.kvp is None else scan.acquisition.kvp,
            flat=dense.flat,
            labels=dense.labels,
            sites=dense.sites,
            noise_hu=math.nan if dense.noise_hu is None else dense.noise_hu,
            is_real=dense.is_real,
            first=places.grid.first,
            step=places.grid.step,
            heart=places.heart.astype(np.float16),
            probability=places.probability.astype(np.float16),
            temperature=places.temperature,
        )


def open_dense_scan(path: Path) -> DenseScan:
    """Read a scan that `write_dense_scan` wrote."""
    from CACScoringLib.core.acquisition import Acquisition

    with np.load(path) as data:
        hu, (spacing, origin) = data["hu"], (tuple(data[name].tolist()) for name in ("spacing_mm", "origin_mm"))
        image = Grid(hu.shape[::-1], spacing, origin).image(hu)
        kvp, noise_hu = float(data["kvp"]), float(data["noise_hu"])
        acquisition = Acquisition("stored", kvp=None if math.isnan(kvp) else kvp)
        heart, probability = data["heart"].astype(np.float32), data["probability"].astype(np.float32)
        first, step = (tuple(data[name].tolist()) for name in ("first", "step"))
        grid = ScanGrid(first, step, heart.shape[::-1])
        places = Territories(grid, heart, probability, path.name, (), float(data["temperature"]))
        return DenseScan(
            scan_from_image(image, acquisition),
            places,
            data["flat"],
            data["labels"],
            data["sites"],
            None if math.isnan(noise_hu) else noise_hu,
            bool(data["is_real"]),
        )
