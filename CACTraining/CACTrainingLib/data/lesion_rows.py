"""Lesions with a known source, as the lesion network learns them: patches of candidates, and what they truly are.

A scan of a digital patient, or a real one with digital calcium and stents or free of calcium, goes through the shipped
networks; every candidate of the clinical rule, and every part of one at an artery's border, is cut out, with the share
of each kind in it. The patches are larger than those that the network sees, so that they can be turned and shifted
(`lesion_batches`).
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
from CACScoringLib.scoring.borders import border_parts
from scipy import ndimage

from CACScoringLib.anatomy.heart_search import find_heart
from CACScoringLib.core.ct import CTScan, mask_on_scan_grid, scan_from_image
from CACScoringLib.core.errors import CTError
from CACScoringLib.core.files import atomic_write
from CACScoringLib.core.grid import Grid
from CACScoringLib.core.labels import ARTERIES, Artery
from CACScoringLib.io.reading import read_ct
from CACScoringLib.models.cards import LoadedModel, find_model, load_model
from CACScoringLib.networks.configs import LESION_KINDS, LESION_TERRITORIES, TERRITORY_STRIDE
from CACScoringLib.record.rules import ScoringRules, rules_for_tube_voltage
from CACScoringLib.scoring.lesion_network import lesion_patches
from CACScoringLib.scoring.lesions import find_lesions
from CACScoringLib.scoring.map_evidence import BLOOD_HU
from CACScoringLib.scoring.sites import candidate_sites

from .. import phantom
from ..project.annotation_files import SliceLabel
from ..project.training import painted_regions
from ..project.training_scan import TrainingScan

ARTERY_KINDS = len(ARTERIES)
"""The first of LESION_KINDS are coronary calcium, in the order of `Artery`."""

VERSION = 5
"""Part of the files' names; raised whenever the rows of a patient would change."""

ROW_SIZE = (22, 66, 66)
"""Voxels of a stored patch along k, j, i."""

ROW = np.dtype(
    [
        ("hu", np.int16, ROW_SIZE),
        ("mask", np.uint8, ROW_SIZE),
        ("territories", np.uint8, (LESION_TERRITORIES, *np.floor_divide(ROW_SIZE, TERRITORY_STRIDE))),
        ("shares", np.float32, len(LESION_KINDS)),
        ("volume_mm3", np.float32),
    ]
)
"""A lesion: CT in HU, percent of each voxel that the lesion fills, percent of each territory, share of each of
LESION_KINDS, and volume."""

MAX_NOISE = 40
"""Most candidates of noise, and of readings those that are not coronary, kept of one scan."""

STENT_SHARE = 0.3
"""Share of real scans that get a stent or two."""

THICKEST_MM, NOISE_HU = 6.0, (4.0, 30.0)
"""Largest slice thickness by averaging, and lowest and highest SD of added noise, in other views of a real scan."""

KIND_OF_DISTRACTOR = {
    "aortic root": "aortic valve and root",
    "aortic valve": "aortic valve and root",
    "mitral annulus": "mitral annulus",
    "aortic wall": "aorta",
    "pericardium": "pericardium",
    "pleural plaque": "other calcium",
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
"""Kind of a lesion by the simulated object in it."""


def patient_rows(number: int, folder: Path, territories: LoadedModel) -> np.ndarray:
    """Open a digital patient's lesions, ROW [n]; make and write them if missing.

    Args:
        number: Number of the patient (`lesion_patients`).
        folder: Folder of the rows.
        territories: Territory network, which finds the heart too.
    """
    return _stored(folder / f"lesions-v{VERSION}-{number}.npy", partial(_rows_of_patient, number, territories))


def inserted_rows(scan: TrainingScan, seed: int, folder: Path, territories: LoadedModel) -> np.ndarray:
    """Open the lesions of a real scan with insertions, ROW [n]; make and write them if missing.

    Args:
        scan: Real scan free of coronary calcium; what else is dense in it counts as noise.
        seed: Seed of the insertions.
        folder: Folder of the rows.
        territories: Territory network.

    Raises:
        CTError: The scan cannot be read, has contrast, or holds no heart.
    """
    path = folder / f"lesions-v{VERSION}-{scan.fingerprint()}-{seed}.npy"
    if not path.exists():
        _background(scan)  # raises errors that `_stored` would take for a scan without lesions
    return _stored(path, partial(_rows_of_insertion, scan, seed, territories))


def clean_rows(scan: TrainingScan, view: int, folder: Path, territories: LoadedModel) -> np.ndarray:
    """Open what is dense in a real scan free of coronary calcium, all of it noise, ROW [n]; make it if missing.

    Args:
        scan: The scan.
        view: 0 for the scan as it is; else the seed of other slices, kernel and noise (`_other_view`).
        folder: Folder of the rows.
        territories: Territory network.

    Raises:
        CTError: The scan cannot be read.
    """
    path = folder / f"lesions-v{VERSION}-{scan.fingerprint()}-clean-{view}.npy"
    if path.exists():
        return _stored(path, partial(np.zeros, 0, ROW))
    ct = read_ct(scan.ct, scan.series)
    return _stored(path, partial(_rows_of_view, ct, view, territories))


def _rows_of_view(ct: CTScan, view: int, territories: LoadedModel) -> np.ndarray:
    generator = np.random.default_rng([view, 76])
    ct = _other_view(ct, generator) if view else ct
    return scan_rows(ct, {}, territories, generator)


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
    """Open the lesions of a real scan that annotators painted or left unpainted, ROW [n]; make them if missing.

    Raises CTError if the scan or an annotation cannot be read.
    """
    ct = read_ct(scan.ct, scan.series)
    readings = []
    for image, labels in painted_regions(scan):
        regions = np.zeros(ct.hu.shape, np.uint8)
        if image is not None:
            regions = sitk.GetArrayFromImage(mask_on_scan_grid(image, ct, "regions", may_be_empty=True)[0])
        # In a slice labelled as visible without a painted region, anything may be coronary.
        complete_label = {True: SliceLabel.VISIBLE, False: SliceLabel.NOT_VISIBLE}
        has_region = np.any(regions, axis=(1, 2)).tolist()
        is_complete = [labels.get(k) is complete_label[painted] for k, painted in enumerate(has_region)]
        readings.append(Reading(regions, np.array(is_complete)))
    content = hashlib.sha256(scan.fingerprint().encode())
    for reading in readings:
        content.update(reading.regions.tobytes() + reading.is_complete.tobytes())
    make = partial(_rows_of_readings, ct, readings, territories)
    return _stored(folder / f"lesions-v{VERSION}-{content.hexdigest()[:24]}.npy", make)


def _rows_of_readings(ct: CTScan, readings: Sequence[Reading], territories: LoadedModel) -> np.ndarray:
    shares_of = partial(annotated_shares, readings=readings)
    return _cut_rows(ct, shares_of, territories, np.random.default_rng(75))


def _rows_of_patient(number: int, territories: LoadedModel) -> np.ndarray:
    patient = phantom.draw_lesion_patient(number)
    scanner, pose, z_range_mm = phantom.draw_lesion_scan(number)
    scan = phantom.scan_patient(patient, scanner, pose, 1, phantom.scan_grid(scanner, z_range_mm), 1)
    return scan_rows(
        phantom.as_ct_scan(scan, patient), sources_of(scan), territories, np.random.default_rng([number, 73])
    )


@lru_cache(maxsize=1)
def _background(scan: TrainingScan) -> phantom.Background | None:
    """Read and measure a real scan, whose seeds follow one another; None if nothing can be inserted into it."""
    territories = load_model(find_model("territories").path, "cpu")
    try:
        return phantom.prepare_background(read_ct(scan.ct, scan.series), None, scan.patient, territories)
    except phantom.InsertionError:
        return None


def _rows_of_insertion(scan: TrainingScan, seed: int, territories: LoadedModel) -> np.ndarray:
    background = _background(scan)
    if background is None:
        return np.zeros(0, ROW)
    settings = phantom.InsertedSettings(vary=True, everywhere=True, stent_share=STENT_SHARE, seed=seed)
    inserted = phantom.insert_lesions(phantom.clean_scan(background, settings), background, 0, settings)
    acquisition = replace(background.scan.acquisition, kvp=inserted.scanner.kvp)
    ct = scan_from_image(phantom.image_on(inserted.grid, inserted.hu), acquisition)
    return scan_rows(ct, sources_of(inserted), territories, np.random.default_rng([seed, 74]))


def _stored(path: Path, make: Callable[[], np.ndarray]) -> np.ndarray:
    """Open rows without reading them, so that a batch reads only its own; make and write them if missing.

    There are none where no heart is found, or nothing can be inserted.
    """
    if not path.exists():
        try:
            rows = make()
        except CTError:
            rows = np.zeros(0, ROW)
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as unfinished, unfinished.open("wb") as file:
            np.save(file, rows)
    if path.stat().st_size < ROW.itemsize:  # an empty file cannot be mapped
        return np.zeros(0, ROW)
    rows = np.load(path, mmap_mode="r")
    if rows.dtype != ROW:
        raise CTError(f"{path} does not hold lesions of this version. Delete it.")
    return rows


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


def scan_rows(
    ct: CTScan, sources: dict[str, list[phantom.Stamp]], territories: LoadedModel, generator: np.random.Generator
) -> np.ndarray:
    """Cut out the lesions of a scan whose sources of density are known, ROW [n].

    Raises:
        CTError: No heart was found.
    """
    return _cut_rows(ct, partial(kind_shares, hu=ct.hu, sources=sources), territories, generator)


def _cut_rows(
    ct: CTScan,
    shares_of: Callable[[np.ndarray, Sequence[int]], np.ndarray],
    territories: LoadedModel,
    generator: np.random.Generator,
) -> np.ndarray:
    region = find_heart(ct, None, territories)
    if region.territories is None:
        raise CTError("No territories were found.")
    rules = rules_for_tube_voltage(ct.acquisition, ScoringRules())
    sites = candidate_sites(region, ct.hu >= rules.threshold_hu)
    lesions, parts = find_lesions(ct.image, sites, rules), border_parts(sites, ct, region.territories)
    rows = []
    for id_map, ids in ((lesions.id_map, lesions.ids), (parts.id_map, parts.ids)):
        ids, shares = _without_much_noise(ids, shares_of(id_map, ids), generator)
        rows.append(np.zeros(len(ids), ROW))
        rows[-1]["shares"] = shares
        rows[-1]["volume_mm3"] = np.bincount(id_map.reshape(-1))[ids] * math.prod(ct.image.GetSpacing())
        for row, patch in zip(rows[-1], lesion_patches(id_map, ids, ct, region.territories, ROW_SIZE), strict=True):
            row["hu"] = np.rint(np.clip(patch.hu, -1024, 3071))
            row["mask"] = np.rint(100 * patch.mask)
            row["territories"] = np.rint(100 * patch.territories)
    return np.concatenate(rows)


def kind_shares(
    id_map: np.ndarray, ids: Sequence[int], hu: np.ndarray, sources: dict[str, list[phantom.Stamp]]
) -> np.ndarray:
    """Compute the share of each of LESION_KINDS in lesions, float32 [n, kinds]; rows add up to 1.

    Args:
        id_map: Lesion's id at its voxels, else 0, [k, j, i].
        ids: IDs of the lesions.
        hu: The scan, [k, j, i]; what lies above BLOOD_HU is explained by the kinds.
        sources: Image in HU of each kind but noise, as stamps.
    """
    flat = np.flatnonzero(id_map)
    id_of_voxel = id_map.reshape(-1)[flat]
    volume = np.zeros(id_map.shape, np.float32)

    def total(values: np.ndarray) -> np.ndarray:
        sums = np.bincount(id_of_voxel, np.maximum(values.reshape(-1)[flat], 0), max(ids, default=0) + 1)
        return sums[list(ids)]

    shares = np.zeros((len(ids), len(LESION_KINDS)), np.float32)
    for kind, stamps in sources.items():
        volume[:] = 0
        phantom.add_stamps(volume, stamps)
        shares[:, LESION_KINDS.index(kind)] = total(volume)
    shares[:, LESION_KINDS.index("noise")] = np.maximum(total(hu - np.float32(BLOOD_HU)) - shares.sum(axis=1), 0)
    return shares / np.maximum(shares.sum(axis=1, keepdims=True), 1e-6)


@dataclass(frozen=True)
class Reading:
    """An annotator's reading of a scan.

    Attributes:
        regions: `Artery` labels of painted regions, uint8 [k, j, i].
        is_complete: True for slices in which nothing coronary was left unpainted, bool [k].
    """

    regions: np.ndarray
    is_complete: np.ndarray


def annotated_shares(id_map: np.ndarray, ids: Sequence[int], readings: Sequence[Reading]) -> np.ndarray:
    """Return the share of each of LESION_KINDS in lesions by annotators, float32 [n, kinds].

    A lesion has an annotator's artery if most of it is painted, and is not coronary if none of it is and its slices are
    complete. If the artery is unknown, the arteries share the lesion equally; if it is not coronary, the other kinds do
    (`kind_is_known`). The shares are 0 if no annotator judged the lesion, or if they disagree.
    """
    flat = np.flatnonzero(id_map)
    id_of_voxel, slice_of_voxel = id_map.reshape(-1)[flat], flat // id_map[0].size
    most, labels = max(ids, default=0) + 1, Artery.UNASSIGNED + 1
    verdicts = np.full((len(ids), len(readings)), -1)
    for verdict, reading in zip(verdicts.T, readings, strict=True):
        sites = np.minimum(reading.regions.reshape(-1)[flat], Artery.UNASSIGNED).astype(int)
        counts = np.bincount(id_of_voxel * labels + sites, minlength=most * labels).reshape(most, labels)[list(ids)]
        unknown = np.bincount(id_of_voxel, ~reading.is_complete[slice_of_voxel], most)[list(ids)]
        painted = counts[:, 1:].sum(axis=1)
        verdict[(painted == 0) & (unknown == 0)] = 0
        is_painted = painted > counts[:, 0]
        verdict[is_painted] = counts[is_painted, 1:].argmax(axis=1) + 1
    shares = np.zeros((len(ids), len(LESION_KINDS)), np.float32)
    for row, verdict in zip(shares, verdicts, strict=True):
        sites = set(verdict[verdict >= 0].tolist())
        if sites == {0}:
            row[ARTERY_KINDS:] = 1 / (len(LESION_KINDS) - ARTERY_KINDS)
        elif len(sites) == 1 and max(sites) <= ARTERY_KINDS:
            row[max(sites) - 1] = 1
        elif sites and 0 not in sites:
            row[:ARTERY_KINDS] = 1 / ARTERY_KINDS
    return shares


def kind_is_known(shares: np.ndarray) -> np.ndarray:
    """Return True for lesions [n, kinds] of a known kind, False if they are coronary or not without one, bool [n]."""
    return shares.max(axis=1) > 1 / ARTERY_KINDS


def _without_much_noise(
    ids: Sequence[int], shares: np.ndarray, generator: np.random.Generator
) -> tuple[list[int], np.ndarray]:
    """Keep MAX_NOISE of the lesions that are noise or not coronary, drawn at random, and all others with shares."""
    unnamed = ~kind_is_known(shares) & (shares[:, ARTERY_KINDS:].sum(axis=1) > 0)
    noise = np.flatnonzero((shares[:, LESION_KINDS.index("noise")] > 0.9) | unnamed)
    dropped = {*generator.permutation(noise)[MAX_NOISE:].tolist(), *np.flatnonzero(shares.sum(axis=1) == 0).tolist()}
    rows = [n for n in range(len(shares)) if n not in dropped]
    return [ids[n] for n in rows], shares[rows]
