"""Real scans with inserted lesions, in the folder form of digital scans, to train networks on real texture.

Each scan gets plaques drawn as a digital patient's (`plaque`), in the fat of its own heart or along a path, and often
calcium of the aortic wall, which is none of the coronaries'. The untouched scan is written beside them as a clean
negative: what is inserted into must be free of calcium, and no program can vouch for that. Valves, annulus and nodes
are left out: without contrast their place cannot be told from a heart mask.
"""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from CACScoringLib.core.files import whole_folder, write_text_atomically

from ..anatomy.coronaries import ARTERIES, Vessel
from ..anatomy.distractors import PREVALENCE
from ..anatomy.plaque import ARC_DEGREES, ARTERY_SHARE, BURDEN, Plaque, draw_plaque
from ..anatomy.points import POINT_STEP_MM, PointCloud, joined
from ..cohort.export import SCHEMA, write_files
from ..cohort.labels import Labels, annotate
from ..scanner.response import Stamp
from ..scanner.scanner import Grid, Scanner
from .background import Background
from .insertion import InsertionError, add_plaques, draw_motion, measured_sigma_mm, scanner_of, vessel_along
from .vessel_paths import HeartFat, PathError, heart_fat

RADIUS_MM = {"LM": 2.2, "LAD": 1.6, "LCX": 1.6, "RCA": 1.8}
"""Lumen of the vessels drawn, after Dodge 1992 (see `coronaries`)."""

AORTIC_ARC_DEGREES = (8.0, 45.0)
CLEAN = "clean"


@dataclass(frozen=True)
class InsertedSettings:
    """What is inserted; recorded in `insertions.json`.

    artery: that of all plaques, None to draw it by `plaque.ARTERY_SHARE`. plaques: how many in each scan, 0 for other
    calcium only, None to draw it by `plaque.BURDEN`. motion_scale: 0 for a still heart, 1 for the arteries' full
    motion. aortic_share: share of scans with calcium in the wall of the descending aorta, where it was found; all when
    plaques is 0. length_mm: of the vessels in which plaques lie. sigma_mm, slice_thickness_mm: as in
    `InsertionSettings`. seed: each seed has its own lesions.
    """

    artery: str | None = None
    plaques: int | None = None
    motion_scale: float = 1.0
    aortic_share: float = PREVALENCE["aortic wall"]
    length_mm: float = 30.0
    sigma_mm: float | None = None
    slice_thickness_mm: float | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.artery not in (None, *ARTERIES):
            raise InsertionError(f"There is no artery {self.artery!r}; choose of {', '.join(ARTERIES)}.")
        if self.plaques is not None and not 0 <= self.plaques <= 100:
            raise InsertionError(f"The number of plaques is 0 to 100, not {self.plaques}.")
        if not 0 <= self.motion_scale <= 3:
            raise InsertionError(f"The motion's scale is 0 (still) to 3, 1 for full motion; not {self.motion_scale:g}.")
        if self.seed < 0:
            raise InsertionError(f"A seed is 0 or more, not {self.seed}.")


@dataclass(frozen=True)
class InsertedScan:
    """One scan with lesions, as `labels.annotate` takes it; fields as in `simulation.DigitalScan`."""

    grid: Grid
    scanner: Scanner
    hu: np.ndarray
    heart: np.ndarray
    calcium_mg_cm3: np.ndarray
    arteries: dict[str, list[Stamp]]
    noise_sd_hu: np.ndarray
    smoothed_noise_share: float
    plaques: tuple[Plaque, ...] = ()
    vessels: tuple[Vessel, ...] = ()
    deposits: tuple[Plaque, ...] = ()


def clean_scan(background: Background, settings: InsertedSettings) -> InsertedScan:
    """The scan as it is, without calcium."""
    scan = background.scan
    hu = np.rint(scan.hu).astype(np.int16)
    return InsertedScan(
        background.grid,
        scanner_of(scan, settings.sigma_mm or measured_sigma_mm(scan), settings.slice_thickness_mm),
        hu,
        background.heart,
        np.zeros(hu.shape, np.float32),
        {},
        background.noise_sd_hu,
        background.smoothed_noise_share,
    )


def inserted_scan(
    clean: InsertedScan,
    background: Background,
    number: int,
    settings: InsertedSettings,
    fat: HeartFat | None = None,
    path_mm: np.ndarray | None = None,
) -> InsertedScan:
    """The scan with the lesions of this number.

    clean: from `clean_scan`. fat: of the heart, where path_mm, a vessel's centre line [n, 3] in LPS mm, is not given;
    with a path the settings must name its artery. Raises InsertionError, PathError.
    """
    # Each patient has lesions of his own, also under one seed.
    generator = np.random.default_rng([settings.seed, number, zlib.crc32(background.name.encode())])
    arteries = _draw_arteries(settings, generator)
    vessels = _draw_vessels(arteries, background.grid, settings, fat, path_mm, generator)
    tendency = float(generator.normal(0, 0.25))
    plaques = []
    for n, artery in enumerate(arteries, 1):
        place = float(generator.uniform(0, vessels[artery].length_mm))
        plaques.append(draw_plaque(n, vessels[artery], place, tendency, generator))
    motion = draw_motion(settings.motion_scale, float(generator.uniform(55, 85)), generator)
    deposits, cloud = _draw_deposits(background.aorta, settings, generator)
    used = tuple({vessel.name: vessel for vessel in vessels.values()}.values())
    result = add_plaques(background.scan, used, tuple(plaques), clean.scanner, motion, path_mm is None, cloud)
    return InsertedScan(
        clean.grid,
        clean.scanner,
        sitk.GetArrayFromImage(result.image),
        clean.heart,
        sitk.GetArrayFromImage(result.calcium_map),
        result.arteries,
        clean.noise_sd_hu,
        clean.smoothed_noise_share,
        result.plaques,
        used,
        deposits,
    )


def write_insertions(
    background: Background,
    directory: Path,
    count: int = 1,
    settings: InsertedSettings | None = None,
    path_mm: np.ndarray | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Write a clean scan and `count` scans with lesions into DIR/NAME; called again, it goes on where it stopped.

    Each is a folder with `export.FILES`, which appears only when complete; numbers count from 0 for each seed, and
    a higher count adds to those there. path_mm: see `inserted_scan`. progress: told (done, count + 1) after each.
    Returns DIR/NAME. Raises InsertionError when the folder holds insertions of other settings or another scan.
    """
    settings = settings or InsertedSettings()
    if count < 0:
        raise InsertionError(f"The number of scans to write is 0 or more, not {count}.")
    if path_mm is not None and settings.artery is None and settings.plaques != 0:
        raise InsertionError(f"Name the artery that the path follows: one of {', '.join(ARTERIES)}.")
    if settings.plaques == 0 and background.aorta is None and count:
        raise InsertionError(
            "There is nothing to insert: no plaques are asked for, and the descending aorta, whose wall could calcify, "
            "was not found (with a given heart mask it is not looked for). Ask for 0 scans to have the clean one."
        )
    folder = Path(directory) / background.name
    folder.mkdir(parents=True, exist_ok=True)
    _check_settings(folder, background, settings, path_mm)
    names = [CLEAN, *(f"insertion_{number:05d}" for number in range(count))]
    missing = [name for name in names if not (folder / name / "truth.json").exists()]
    if missing:
        clean = clean_scan(background, settings)
        fat = None
        if path_mm is None and settings.plaques != 0 and missing != [CLEAN]:
            fat = heart_fat(clean.hu, background.heart, background.grid, background.room)
        for name in missing:
            number = None if name == CLEAN else int(name.rsplit("_", 1)[1])
            scan = clean if number is None else inserted_scan(clean, background, number, settings, fat, path_mm)
            labels = annotate(scan, np.random.default_rng([settings.seed, number or 0, 38]))
            with whole_folder(folder / name) as half:
                write_files(half, scan, labels, _truth(background, scan, labels, number, settings))
            if progress:
                progress(len(names) - len(missing) + missing.index(name) + 1, len(names))
    return folder


def _draw_arteries(settings: InsertedSettings, generator: np.random.Generator) -> list[str]:
    shares, means = zip(*BURDEN, strict=True)
    drawn = 1 + int(generator.poisson(means[generator.choice(len(means), p=shares)]))
    count = drawn if settings.plaques is None else settings.plaques
    if settings.artery:
        return [settings.artery] * count
    return [str(a) for a in generator.choice(list(ARTERY_SHARE), count, p=list(ARTERY_SHARE.values()))]


def _draw_vessels(
    arteries: list[str],
    grid: Grid,
    settings: InsertedSettings,
    fat: HeartFat | None,
    path_mm: np.ndarray | None,
    generator: np.random.Generator,
) -> dict[str, Vessel]:
    """A vessel for each artery; one without fat of its own gives its plaques to another that has some."""
    if path_mm is not None:
        return {a: vessel_along(path_mm, a, RADIUS_MM[a], grid) for a in dict.fromkeys(arteries)}
    wanted = list(dict.fromkeys(arteries))
    if not wanted:
        return {}
    # The left main is short; a path of its full length would be a piece of its branches.
    lengths = {a: min(settings.length_mm, 10.0) if a == "LM" else settings.length_mm for a in ARTERIES}
    found: dict[str, Vessel] = {}
    reasons = []
    for artery in wanted if settings.artery else [*wanted, *(a for a in ARTERY_SHARE if a not in wanted)]:
        if artery not in wanted and found:
            break
        try:
            path = fat.path(artery, lengths[artery], generator)
            found[artery] = vessel_along(path, artery, RADIUS_MM[artery], grid)
        except PathError as error:
            reasons.append(error)
    if not found:
        raise reasons[0]
    return {a: found.get(a, next(iter(found.values()))) for a in wanted}


def _draw_deposits(
    aorta: Vessel | None, settings: InsertedSettings, generator: np.random.Generator
) -> tuple[tuple[Plaque, ...], PointCloud | None]:
    """Calcium in the wall of the descending aorta, and its points."""
    own = np.random.default_rng(generator.integers(2**63))
    if aorta is None or (settings.plaques != 0 and own.random() >= settings.aortic_share):
        return (), None
    plaques = []
    for n in range(1 + int(own.poisson(1.5))):
        plaque = draw_plaque(n + 1, aorta, float(own.uniform(0, aorta.length_mm)), 0.0, own)
        # Drawn for a coronary's narrow wall; on the aorta's wide one the same sheet spans a smaller arc.
        arc = float(np.interp(plaque.arc_degrees, ARC_DEGREES, AORTIC_ARC_DEGREES))
        plaques.append(replace(plaque, arc_degrees=arc))
    return tuple(plaques), joined([plaque.cloud(aorta, POINT_STEP_MM) for plaque in plaques])


def _truth(
    background: Background, scan: InsertedScan, labels: Labels, number: int | None, settings: InsertedSettings
) -> dict:
    """As `export.truth_of`; what only a digital patient has is absent. number: None for the clean scan."""
    voxel_cm3 = float(np.prod(scan.grid.spacing_mm)) / 1000.0
    masses, seen = dict.fromkeys(ARTERIES, 0.0), dict.fromkeys(ARTERIES, 0.0)
    for plaque in scan.plaques:
        masses[plaque.artery] += plaque.mass_mg
    for artery, stamps in scan.arteries.items():
        seen[artery] += sum(float(s.values.sum(dtype=np.float64)) for s in stamps) * voxel_cm3 * 1000.0
    return {
        "schema": SCHEMA,
        "patient": background.name,
        "scan": CLEAN if number is None else number,
        "background": "real",
        "heart_source": background.heart_source,
        "sex": background.scan.acquisition.patient_sex,
        "mass_mg": sum(masses.values()),
        "mass_mg_by_artery": masses,
        "scanned_mass_mg_by_artery": seen,
        "map_mass_mg": float(scan.calcium_mg_cm3.sum(dtype=np.float64)) * voxel_cm3,
        "calcium_hu_per_mg_cm3": scan.scanner.calcium_hu_per_mg_cm3,
        "lesions": [{**asdict(p), "volume_mm3": p.volume_mm3, "mass_mg": p.mass_mg} for p in scan.plaques],
        "distractors": [{"kind": p.artery, "mass_mg": p.mass_mg, "metal": False} for p in scan.deposits],
        "slices": [asdict(label) for label in labels.slices],
        "noise_sd_hu": [round(float(n), 2) for n in scan.noise_sd_hu],
        "smoothed_noise_share": round(scan.smoothed_noise_share, 3),
        "scanner": asdict(scan.scanner),
        "settings": asdict(settings),
        "paths_mm": {v.name: np.round(v.path_mm, 2).tolist() for v in scan.vessels},
        "warnings": [asdict(w) for w in background.warnings],
    }


def _check_settings(
    folder: Path, background: Background, settings: InsertedSettings, path_mm: np.ndarray | None
) -> None:
    pixels = hashlib.sha256(np.ascontiguousarray(background.scan.hu).data)
    for mask in (background.heart, background.room):
        pixels.update(repr(background.grid).encode() + np.packbits(mask).tobytes())
    path = None if path_mm is None else np.asarray(path_mm, float).tolist()
    wanted = {"schema": SCHEMA, "settings": asdict(settings), "path_mm": path, "scan_and_heart": pixels.hexdigest()}
    file = folder / "insertions.json"
    if not file.exists():
        write_text_atomically(file, json.dumps(wanted, indent=1))
    elif json.loads(file.read_text(encoding="utf-8")) != json.loads(json.dumps(wanted)):
        raise InsertionError(
            f"{folder} holds insertions of other settings or into another scan ({file}); choose another folder."
        )
