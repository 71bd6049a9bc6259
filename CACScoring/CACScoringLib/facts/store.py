"""Facts of a scan as a file beside its result, and read back: the same scores follow from both, to the last digit.

The file holds the CT where a score may read it, masks, labels of territories, the networks' answers and warnings. Whose
scan it is stands in `scores.json` alone.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ..anatomy.heart_region import HeartRegion
from ..anatomy.territories import Territories
from ..calcium_map.decomposition import DecomposedHeart, Decomposition, DecompositionSettings, SliceProbabilities
from ..core.ct import AIR_HU, CTScan, ScanWarning
from ..core.decoding import content_of, restore
from ..core.errors import UnreadableError
from ..core.files import FACTS_FILE, file_sha256
from ..core.grid import Grid
from ..core.scan_grid import ScanGrid
from ..core.version import code_sha256
from ..quality.examination import ImageQuality
from ..quality.normalisation import REFERENCE_THICKNESS_MM
from ..record.findings import BloodPool, EpicardialFat, MassCalibration, Normalisation
from ..record.rules import ScoringRules
from ..record.score_record import ScoreRecord
from .dense import DenseAnswers, DenseVoxels
from .measurement import Measurement, ScanFacts

SCHEMA = "cac-facts/1"

QUICK = 1
"""Level of compression: files are a ninth larger than by NumPy's `savez_compressed`, and take .4 of its time."""

Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class StoredTerritories(Territories):
    """Territories as read: probabilities beside the voxels that may be calcium, and the labels of all voxels.

    Attributes:
        stored_labels: Labels of TERRITORIES on the scan's grid, uint8 [k, j, i].
    """

    stored_labels: np.ndarray | None = None

    def labels(self, shape: tuple[int, ...]) -> np.ndarray:
        assert self.stored_labels is not None
        assert self.stored_labels.shape == shape
        return self.stored_labels


@dataclass(frozen=True)
class Header:
    """Facts that are no arrays.

    Attributes:
        voxels_sha256: SHA-256 of the CT's voxels, as `InputRecord` has it.
        grid: Grid of the scan.
        rules: Rules of the clinical score.
        blood: Blood and noise in the scan as scored.
        calibration: Mass calibration.
        normalisation: Kernel, slices and what was done about them.
        fat: Epicardial fat.
        heart: Source of the heart.
        pericardium: Source of the pericardium.
        territories: Network and grid of the territories.
        slices: Grid of the classified slices.
        settings: Settings of the calcium map.
        box: First and last slice, row and column around the map.
        warnings: Warnings by the step that raised them.
    """

    voxels_sha256: str
    grid: Grid
    rules: ScoringRules
    blood: BloodPool | None
    calibration: MassCalibration | None
    normalisation: Normalisation
    fat: EpicardialFat | None
    heart: str
    pericardium: str | None
    territories: tuple[str, ScanGrid] | None
    slices: ScanGrid | None
    settings: DecompositionSettings | None
    box: tuple[tuple[int, int], ...]
    warnings: dict[str, tuple[ScanWarning, ...]]


def write_facts(
    path: Path, measurement: Measurement, known: np.ndarray, unnamed: Callable[[str], str] = lambda text: text
) -> None:
    """Write the facts of a scan.

    Args:
        path: The file.
        measurement: The facts.
        known: True for voxels of the CT that a score may read, bool [k, j, i].
        unnamed: Function that takes names of persons out of the message of a warning.
    """
    facts, region, decomposed = measurement.facts, measurement.facts.region, measurement.decomposed
    arrays: Arrays = {"known": np.packbits(known), "hu": facts.scan.hu[known]}
    if facts.scan is not measurement.scan:
        arrays["hu_as_read"] = measurement.scan.hu[known]
    for name in ("mask", "bone", "pericardium"):
        if (mask := getattr(region, name)) is not None:
            arrays[name] = np.packbits(mask)
    if facts.answers is not None:
        dense = facts.answers.voxels
        arrays |= {"dense": dense.flat, "sites": dense.sites}
        arrays |= {"is_asked": facts.answers.is_asked, "kinds": facts.answers.kinds}
    if region.territories is not None and region.territory_labels is not None:
        arrays["territories"] = region.territory_labels
        probability, candidates = region.territories.probability, np.flatnonzero(_may_be_calcium(measurement, known))
        cells = _cells_beside(candidates, known.shape, region.territories.grid)
        arrays |= {"cells": cells, "probability": probability.reshape(len(probability), -1)[:, cells]}
    if decomposed is not None:
        in_map = np.flatnonzero(decomposed.parts.hu)
        arrays |= {"in_map": in_map, "map_hu": decomposed.parts.hu.reshape(-1)[in_map]}
        arrays |= {"on_grid": decomposed.slices.on_grid, "on_scan": decomposed.slices.on_scan}
        arrays["decomposed"] = decomposed.parts.decomposed
    header = _header(measurement, unnamed)
    text = json.dumps({"schema": SCHEMA, **content_of(header)}, allow_nan=False).encode()
    arrays["header"] = np.frombuffer(text, np.uint8)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=QUICK) as file:
        for name, array in arrays.items():
            with file.open(f"{name}.npy", "w", force_zip64=True) as part:
                np.lib.format.write_array(part, array, allow_pickle=False)


def _header(measurement: Measurement, unnamed: Callable[[str], str]) -> Header:
    facts, region, decomposed = measurement.facts, measurement.facts.region, measurement.decomposed
    stages: dict[str, Iterable[ScanWarning]] = {
        "scan": measurement.scan.warnings,
        "region": region.warnings,
        "quality": measurement.quality.warnings,
        "doubts": measurement.doubts,
        "decomposed": () if decomposed is None else decomposed.warnings,
    }
    warnings = {
        stage: tuple(replace(warning, message=unnamed(warning.message)) for warning in raised)
        for stage, raised in stages.items()
    }
    return Header(
        voxels_sha256=measurement.input.voxels_sha256,
        grid=facts.scan.grid,
        rules=facts.rules,
        blood=facts.blood,
        calibration=facts.calibration,
        normalisation=measurement.quality.normalisation,
        fat=measurement.fat,
        heart=region.source,
        pericardium=region.pericardium_source,
        territories=None if region.territories is None else (region.territories.source, region.territories.grid),
        slices=None if decomposed is None else decomposed.slices.grid,
        settings=None if decomposed is None else decomposed.parts.settings,
        box=() if decomposed is None else tuple((part.start, part.stop) for part in decomposed.parts.box),
        warnings=warnings,
    )


def read_facts(folder: Path, record: ScoreRecord) -> Measurement:
    """Read the facts beside a result. Voxels of the CT that no score reads are air.

    Args:
        folder: Folder of the result.
        record: Its record.

    Raises:
        UnreadableError: There are no facts, or they are damaged, or of another scan or version of CAC.
    """
    again = "Score the CT again with cac score."
    path, provenance = folder / FACTS_FILE, record.provenance
    if provenance is None or not provenance.facts_sha256:
        raise UnreadableError(
            f"{folder.name} holds no facts of its scan, which earlier versions of CAC did not store. {again}"
        )
    try:
        is_intact = file_sha256(path) == provenance.facts_sha256
    except OSError as error:
        raise UnreadableError(f"{path} cannot be read ({error.strerror}). {again}") from error
    if not is_intact:
        raise UnreadableError(f"{path} has changed since its scan was scored. {again}")
    if provenance.code_sha256 != code_sha256():
        raise UnreadableError(f"{path} was measured by another version of CAC ({provenance.commit[:12]}). {again}")
    with np.load(path, allow_pickle=False) as file:
        content = json.loads(file["header"].tobytes())
        arrays = {name: file[name] for name in file.files}
    if content.pop("schema") != SCHEMA or content["voxels_sha256"] != record.input.voxels_sha256:
        raise UnreadableError(f"{path} holds facts of another scan. {again}")
    return _measurement(restore(content, Header), arrays, record)


def _measurement(header: Header, arrays: Arrays, record: ScoreRecord) -> Measurement:
    shape = header.grid.shape
    known = _unpacked(arrays["known"], shape)

    def as_scan(name: str) -> CTScan:
        hu = np.full(shape, AIR_HU, arrays[name].dtype)
        hu[known] = arrays[name]
        source = Path(record.input.name) if record.input.name else None
        return CTScan(header.grid.image(hu), record.acquisition, header.warnings["scan"], source)

    scan = scored = as_scan("hu_as_read" if "hu_as_read" in arrays else "hu")
    if "hu_as_read" in arrays:
        scored = as_scan("hu")
        if header.normalisation.slice_weights:
            acquisition = replace(record.acquisition, slice_thickness_mm=REFERENCE_THICKNESS_MM)
            scored = replace(scored, acquisition=acquisition)
    masks = {
        name: _unpacked(arrays[name], shape) if name in arrays else None for name in ("mask", "bone", "pericardium")
    }
    assert masks["mask"] is not None
    territories = _territories(header, arrays)
    region = HeartRegion(
        masks["mask"],
        masks["bone"],
        header.heart,
        header.warnings["region"],
        territories,
        masks["pericardium"],
        header.pericardium,
    )
    answers = None
    if "dense" in arrays and territories is not None:
        flat = arrays["dense"]
        voxels = DenseVoxels(flat, arrays["sites"], territories.at(flat, (shape[0], shape[1], shape[2])))
        answers = DenseAnswers(voxels, arrays["is_asked"], arrays["kinds"])
    facts = ScanFacts(scored, region, header.rules, header.blood, header.calibration, answers)
    quality = ImageQuality(header.blood, header.normalisation, header.warnings["quality"])
    decomposed, doubts = _decomposed(header, arrays), header.warnings["doubts"]
    return Measurement(scan, record.input, facts, quality, decomposed, header.fat, doubts, known)


def _territories(header: Header, arrays: Arrays) -> StoredTerritories | None:
    if header.territories is None:
        return None
    source, grid = header.territories
    labels = arrays["territories"]
    probability = np.zeros((len(arrays["probability"]), *grid.size[::-1]), np.float32)
    probability.reshape(len(probability), -1)[:, arrays["cells"]] = arrays["probability"]
    return StoredTerritories(grid, np.zeros(grid.size[::-1], np.float32), probability, source, (), labels)


def _decomposed(header: Header, arrays: Arrays) -> DecomposedHeart | None:
    if header.slices is None or header.settings is None:
        return None
    hu = np.zeros(header.grid.shape, np.float32)
    hu.reshape(-1)[arrays["in_map"]] = arrays["map_hu"]
    box = tuple(slice(start, stop) for start, stop in header.box)
    slices = SliceProbabilities(header.slices, arrays["on_grid"], arrays["on_scan"])
    parts = Decomposition(hu, header.grid, arrays["decomposed"], header.settings, (), box)
    return DecomposedHeart(slices, parts, header.warnings["decomposed"])


def _unpacked(bits: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    return np.unpackbits(bits, count=int(np.prod(shape))).reshape(shape).view(bool)


def _may_be_calcium(measurement: Measurement, known: np.ndarray) -> np.ndarray:
    """Return True for known voxels that reach the threshold, and for the map, bool [k, j, i]."""
    facts, decomposed = measurement.facts, measurement.decomposed
    is_dense = known & (facts.scan.hu >= facts.rules.threshold_hu)
    return is_dense if decomposed is None else is_dense | (decomposed.parts.hu > 0)


def _cells_beside(flat: np.ndarray, shape: tuple[int, ...], grid: ScanGrid) -> np.ndarray:
    """Return the flat indices of a grid's voxels from which values at voxels of the scan are interpolated."""
    places = np.stack(np.unravel_index(flat, shape)).astype(np.float32)
    first, step = (np.array(part[::-1], np.float32)[:, None] for part in (grid.first, grid.step))
    size = grid.size[::-1]
    lowest = np.floor((places - first) / step).astype(int)
    corners = lowest[:, :, None] + np.indices((2, 2, 2)).reshape(3, 1, 8)
    corners = np.clip(corners, 0, np.array(size)[:, None, None] - 1)
    return np.unique(np.ravel_multi_index(tuple(corners), size))
