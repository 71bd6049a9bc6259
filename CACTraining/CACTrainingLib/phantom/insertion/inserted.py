"""Real scans with inserted lesions, in the folder layout of digital scans, to train networks on real texture.

Each scan gets plaques like a digital patient's, in arteries in its heart's grooves or along a given path, and often
non-coronary calcium of aorta, valves and pericardium. The unchanged scan is written beside them as a clean negative. It
must be free of calcium, which no program can guarantee.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk

from CACScoringLib.core.ct import CTScan
from CACScoringLib.core.errors import InsertionError
from CACScoringLib.core.files import atomic_folder
from CACScoringLib.core.labels import ARTERIES

from ..anatomy.coronaries import (
    ARC_DEGREES,
    CoronaryTree,
    Plaque,
    Vessel,
    draw_plaque,
    draw_plaques,
    plaques_everywhere,
)
from ..anatomy.distractors import (
    AGEING,
    KINDS,
    MOVES_WITH,
    PREVALENCE,
    WITH_PLAQUE,
    WITHOUT_PLAQUE,
    Distractor,
    stent_struts,
    view_gain,
)
from ..anatomy.hearts.territories import TERRITORIES
from ..anatomy.hearts.valves import DEPOSITS
from ..anatomy.points import POINT_STEP_MM
from ..cohort.export import SCHEMA, Labels, annotate, same_settings, truth_of_scan, write_files
from ..scanner.response import Stamp, add_stamps
from ..scanner.scanner import NoiseSource
from ..scanner.simulation import SMOOTHING_MM, ScanWithTruth
from .background import Background, measure_noise
from .insertion import add_plaques, draw_motion, measure_sigma_mm, scanner_of, vessel_along
from .looks import Look, draw_look
from .scan_heart import ScanTree

RADIUS_MM = {"LM": 2.2, "LAD": 1.6, "LCX": 1.6, "RCA": 1.8}
"""Lumen's radius in mm of vessels along a given path, after Dodge 1992 (see `hearts.tree`)."""

DEPOSIT_KINDS = ("aortic wall", *DEPOSITS)
AORTIC_ARC_DEGREES = (8.0, 45.0)
MEAN_EVERYWHERE = 12.0
"""Mean number of plaques of a scan that has them everywhere."""
CLEAN = "clean"
TERRITORIES_FILE = "territories.nii.gz"
SETTINGS_FILE = "insertions.json"


@dataclass(frozen=True)
class InsertedSettings:
    """Settings of insertions, recorded in SETTINGS_FILE.

    Attributes:
        artery: Artery of all plaques; None draws it by ARTERY_SHARE.
        plaques: Number in each scan, 0 for other calcium only; None draws it by BURDEN.
        deposits: Kinds of DEPOSIT_KINDS in each scan; None draws them by `distractors.PREVALENCE`, at least one without
            plaques.
        motion_scale: 0 for a still heart, 1 for full motion.
        vary: True to give each scan another look (`looks`).
        sigma_mm: In-plane blur of the scan; None to measure it.
        slice_thickness_mm: None for the header's, or the spacing if it has none.
        everywhere: True to make plaques as common per millimetre in every segment, instead of as in people.
        stent_share: Share of scans with a stent or two.
        seed: Seed of the lesions.
    """

    artery: str | None = None
    plaques: int | None = None
    deposits: tuple[str, ...] | None = None
    motion_scale: float = 1.0
    vary: bool = False
    everywhere: bool = False
    stent_share: float = 0.0
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
        if unknown := set(self.deposits or ()) - set(DEPOSIT_KINDS):
            kinds = ", ".join(DEPOSIT_KINDS)
            raise InsertionError(f"There is no calcium of the {', '.join(sorted(unknown))}; choose of {kinds}.")
        if self.seed < 0:
            raise InsertionError(f"A seed is 0 or more, not {self.seed}.")


@dataclass(frozen=True)
class InsertedScan(ScanWithTruth):
    """Scan with inserted lesions.

    Attributes:
        plaques: Inserted plaques.
        vessels: Vessels with plaques, in LPS.
        deposits: Inserted calcium outside the coronary arteries.
        elsewhere: Image of each kind of deposit and device in HU, as stamps.
        dominance: Dominance of the drawn coronary tree.
        territories: Labels uint8 [k, j, i]; None without a fitted heart.
        look: Changes of the scan; None for its original look.
    """

    plaques: tuple[Plaque, ...] = ()
    vessels: tuple[Vessel, ...] = ()
    deposits: tuple[Distractor, ...] = ()
    elsewhere: dict[str, list[Stamp]] = field(default_factory=dict)
    dominance: str | None = None
    territories: np.ndarray | None = None
    look: Look | None = None


def clean_scan(background: Background, settings: InsertedSettings) -> InsertedScan:
    """Return the unchanged scan, without calcium."""
    scan, anatomy = background.scan, background.anatomy
    hu = np.rint(scan.hu).astype(np.int16)
    return InsertedScan(
        background.grid,
        scanner_of(scan, settings.sigma_mm or measure_sigma_mm(scan), settings.slice_thickness_mm),
        hu,
        background.heart,
        np.zeros(hu.shape, np.float32),
        {},
        background.noise_sd_hu,
        background.smoothed_noise_share,
        territories=None if anatomy is None else anatomy.territories(anatomy.usual, background.aortas, background.grid),
    )


def insert_lesions(
    clean: InsertedScan,
    background: Background,
    number: int,
    settings: InsertedSettings,
    path_mm: np.ndarray | None = None,
) -> InsertedScan:
    """Return the scan with the lesions of a number.

    Args:
        clean: Scan from `clean_scan`.
        path_mm: Centre line [n, 3] in LPS mm of a vessel, whose artery the settings must name. Without it the
            background needs a fitted heart.

    Raises:
        InsertionError: The lesions cannot be inserted.
    """
    # Patients have different lesions under the same seed.
    seed = [settings.seed, number, zlib.crc32(background.name.encode())]
    generator, anatomy = np.random.default_rng(seed), background.anatomy
    base, look = clean, None
    if settings.vary:
        noise_hu = float(np.median(clean.noise_sd_hu))
        look = draw_look(clean.grid, clean.heart, clean.scanner, noise_hu, np.random.default_rng([*seed, 1]))
        base = _apply_look(clean, background, look, (*seed, 2))
    sex = background.scan.acquisition.patient_sex or str(generator.choice(["F", "M"]))
    tree = None if anatomy is None else anatomy.tree(sex, np.random.default_rng([*seed, 3]))
    vessels: tuple[Vessel, ...] = ()
    plaques: tuple[Plaque, ...] = ()
    if settings.plaques != 0:
        if path_mm is None:
            vessels = () if tree is None else tree.vessels.vessels
        else:
            name = settings.artery
            assert name is not None
            vessels = (vessel_along(path_mm, name, name, RADIUS_MM[name], clean.grid),)
        if not vessels:
            raise InsertionError("No artery of the fitted heart lies in fat or at the heart's surface; give the path.")
        arteries = CoronaryTree(vessels, "")
        if settings.everywhere:
            count = 1 + int(generator.poisson(MEAN_EVERYWHERE)) if settings.plaques is None else settings.plaques
            plaques = plaques_everywhere(arteries, count, generator)
        else:
            plaques = draw_plaques(arteries, sex, generator, 1.0, settings.artery, settings.plaques)
    motion = draw_motion(settings.motion_scale, float(generator.uniform(55, 85)), generator)
    diseased = tuple(vessel for vessel in vessels if vessel.name in {plaque.vessel for plaque in plaques})
    deposits, aortas = _draw_deposits(background, tree, settings, generator), background.aortas
    if settings.stent_share and vessels and np.random.default_rng([*seed, 4]).random() < settings.stent_share:
        deposits += _draw_stents(vessels, np.random.default_rng([*seed, 5]))
    if look is not None:
        diseased = tuple(replace(vessel, path_mm=look.to_look(vessel.path_mm)) for vessel in diseased)
        aortas = tuple(replace(aorta, path_mm=look.to_look(aorta.path_mm)) for aorta in aortas)
        deposits = tuple(replace(d, cloud=d.cloud.map(look.to_look)) for d in deposits)
    hu, stamps, elsewhere = add_plaques(
        base.hu, base.grid, base.scanner, diseased, plaques, motion, path_mm is None, deposits
    )
    calcium = np.zeros(base.grid.shape, np.float32)
    for artery_stamps in stamps.values():
        add_stamps(calcium, artery_stamps, 1000.0)
    return replace(
        base,
        hu=np.rint(np.maximum(hu, look.air_hu if look else -1024)).astype(np.int16),
        calcium_mg_cm3=calcium,
        arteries=stamps,
        plaques=plaques,
        vessels=diseased,
        deposits=deposits,
        elsewhere=elsewhere,
        dominance=None if tree is None else tree.in_heart.dominance,
        # A given path is not part of the drawn tree, so its territory is unknown.
        territories=anatomy.territories(tree, aortas, base.grid, look)
        if anatomy and tree and path_mm is None
        else None,
        look=look,
    )


def _apply_look(clean: InsertedScan, background: Background, look: Look, seed: tuple[int, ...]) -> InsertedScan:
    """Return the scan without lesions in another look, with its noise measured again."""
    grid, scanner = look.grid(), look.scanner(clean.scanner)
    heart = look.apply_to_mask(clean.heart, clean.grid)
    hu = look.apply(clean.hu, clean.grid, min(look.air_hu, -1000.0))
    scan = CTScan(grid.image(np.rint(hu).astype(np.int16)), background.scan.acquisition)
    usual = float(np.median(clean.noise_sd_hu))
    noise, share = measure_noise(scan, heart, usual, clean.smoothed_noise_share * usual)
    if look.noise_hu:
        source = NoiseSource(seed, grid, scanner)
        for k in range(grid.shape[0]):
            hu[k] += np.float32(look.noise_hu) * source.slice_field(k)
        scan_noise = float(np.median(noise))
        smoothed = np.hypot(share * scan_noise, source.smoothed_share(SMOOTHING_MM) * look.noise_hu)
        noise, share = np.hypot(noise, look.noise_hu), float(smoothed / np.hypot(scan_noise, look.noise_hu))
    calcium = np.zeros(grid.shape, np.float32)
    return replace(
        clean,
        grid=grid,
        scanner=scanner,
        hu=hu,
        heart=heart,
        calcium_mg_cm3=calcium,
        noise_sd_hu=noise,
        smoothed_noise_share=share,
    )


def write_insertions(
    background: Background,
    directory: Path,
    count: int = 1,
    settings: InsertedSettings | None = None,
    path_mm: np.ndarray | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Write a clean scan and `count` scans with lesions into DIR/NAME; called again, it resumes.

    Each is a folder with `export.FILES`, and TERRITORIES_FILE for a fitted heart, which appears only when complete.
    Numbers count from 0 for each seed; a higher count adds scans.

    Args:
        path_mm: See `insert_lesions`.
        progress: Called with (done, count + 1) after each scan.

    Returns:
        DIR/NAME.

    Raises:
        InsertionError: The folder holds insertions of other settings or another scan.
    """
    settings = settings or InsertedSettings()
    if count < 0:
        raise InsertionError(f"The number of scans to write is 0 or more, not {count}.")
    if path_mm is not None and settings.artery is None and settings.plaques != 0:
        raise InsertionError(f"Name the artery that the path follows: one of {', '.join(ARTERIES)}.")
    if background.anatomy is None and path_mm is None and settings.plaques != 0:
        raise InsertionError("Plaques need arteries: prepare the scan with a fitted heart, or give a path.")
    present = _present(background)
    if absent := set(settings.deposits or ()) - set(present):
        raise InsertionError(f"Calcium of the {', '.join(sorted(absent))} cannot be inserted: its place was not found.")
    if settings.plaques == 0 and settings.deposits is None and not present and count:
        raise InsertionError("There is nothing to insert: no plaques, and no aorta or valves found. Ask for 0 scans.")
    folder = Path(directory) / background.name
    folder.mkdir(parents=True, exist_ok=True)
    _check_settings(folder, background, settings, path_mm)
    names = [CLEAN, *(f"insertion_{number:05d}" for number in range(count))]
    missing = [name for name in names if not (folder / name / "truth.json").exists()]
    if missing:
        clean = clean_scan(background, settings)
        for name in missing:
            number = None if name == CLEAN else int(name.rsplit("_", 1)[1])
            scan = clean if number is None else insert_lesions(clean, background, number, settings, path_mm)
            labels = annotate(scan, np.random.default_rng([settings.seed, number or 0, 38]))
            with atomic_folder(folder / name) as unfinished:
                write_files(unfinished, scan, labels, _truth(background, scan, labels, number, settings))
                if scan.territories is not None:
                    sitk.WriteImage(scan.grid.image(scan.territories), unfinished / TERRITORIES_FILE)
            if progress:
                progress(len(names) - len(missing) + missing.index(name) + 1, len(names))
    return folder


def _present(background: Background) -> list[str]:
    """Return the kinds of deposits for which the background has a place."""
    places = {"aortic wall": background.aortas} | dict.fromkeys(DEPOSITS, background.anatomy)
    return [kind for kind, place in places.items() if place]


def _draw_deposits(
    background: Background, tree: ScanTree | None, settings: InsertedSettings, generator: np.random.Generator
) -> tuple[Distractor, ...]:
    present = _present(background)
    kinds: Sequence[str] | None = settings.deposits
    streams = {kind: np.random.default_rng(generator.integers(2**63)) for kind in DEPOSIT_KINDS}
    if kinds is None:
        factor = WITHOUT_PLAQUE if settings.plaques == 0 else WITH_PLAQUE
        shares = {kind: PREVALENCE[kind] * (factor if kind in AGEING else 1.0) for kind in present}
        kinds = [kind for kind, share in shares.items() if streams[kind].random() < share]
        if not kinds and settings.plaques == 0 and shares:
            kinds = [generator.choice(list(shares), p=np.array([*shares.values()]) / sum(shares.values()))]
    deposits: list[Distractor] = []
    for kind in kinds:
        if kind == "aortic wall":
            deposits += _draw_aortic(background.aortas, streams[kind])
        elif background.anatomy is not None and tree is not None:
            cloud = background.anatomy.deposit(kind, tree, streams[kind])
            if cloud is not None:
                deposits.append(Distractor(kind, "body", MOVES_WITH.get(kind, "valve"), cloud))
    return tuple(deposits)


def _draw_stents(vessels: tuple[Vessel, ...], g: np.random.Generator) -> tuple[Distractor, ...]:
    long_enough = [vessel for vessel in vessels if vessel.length_mm > 20]
    stents = []
    for _ in range(min(len(long_enough), 1 + int(g.integers(2)))):
        vessel = long_enough[g.integers(len(long_enough))]
        gain = view_gain(g, KINDS["stent"]["streaks"])
        cloud = stent_struts(vessel, g)
        stents.append(Distractor("stent", "body", vessel.artery, cloud, metal=True, view_gain=gain))
    return tuple(stents)


def _draw_aortic(aortas: tuple[Vessel, ...], g: np.random.Generator) -> list[Distractor]:
    deposits = []
    for n in range(1 + int(g.poisson(1.5))):
        aorta = aortas[g.integers(len(aortas))]
        plaque = draw_plaque(n + 1, aorta, float(g.uniform(0, aorta.length_mm)), 0.0, g)
        # A plaque as wide as a coronary artery's spans a smaller arc on the aorta's wide wall.
        arc = float(np.interp(plaque.arc_degrees, ARC_DEGREES, AORTIC_ARC_DEGREES))
        cloud = replace(plaque, arc_degrees=arc).cloud(aorta, POINT_STEP_MM)
        deposits.append(Distractor("aortic wall", "body", None, cloud))
    return deposits


def _truth(
    background: Background, scan: InsertedScan, labels: Labels, number: int | None, settings: InsertedSettings
) -> dict[str, Any]:
    """Return the truth as `export.truth_of`, without facts of a digital patient. number: None for the clean scan."""
    anatomy = background.anatomy
    fit = anatomy and {
        "agreement": anatomy.fit.agreement,
        "residual_mm": anatomy.fit.residual_mm,
        "kept": anatomy.surface_share,
    }
    return {
        "schema": SCHEMA,
        "patient": background.name,
        "scan": CLEAN if number is None else number,
        "background": "real",
        "heart_source": background.heart_source,
        "sex": background.scan.acquisition.patient_sex,
        "dominance": scan.dominance,
        **truth_of_scan(scan, scan.plaques, scan.deposits, labels),
        "territories": None if scan.territories is None else TERRITORIES,
        "look": None if scan.look is None else asdict(scan.look),
        "heart_fit": fit and {name: round(float(value), 3) for name, value in fit.items() if np.isfinite(value)},
        "smoothed_noise_share": round(scan.smoothed_noise_share, 3),
        "settings": asdict(settings),
        "paths_mm": {v.name: np.round(v.path_mm, 2).tolist() for v in scan.vessels},
        "warnings": [asdict(w) for w in background.warnings],
    }


def _check_settings(
    folder: Path, background: Background, settings: InsertedSettings, path_mm: np.ndarray | None
) -> None:
    pixels = hashlib.sha256(np.ascontiguousarray(background.scan.hu).data)
    grid = background.grid
    # The grid's text is part of SETTINGS_FILE, so it stays.
    place = f"Grid(shape={grid.shape}, spacing_mm={grid.spacing_mm}, origin_mm={grid.origin_mm})"
    pixels.update(place.encode() + np.packbits(background.heart).tobytes())
    path = None if path_mm is None else np.asarray(path_mm, float).tolist()
    facts = {"settings": asdict(settings), "path_mm": path, "scan_and_heart": pixels.hexdigest()}
    if not (folder / CLEAN).exists():  # a run that wrote no scan binds nobody to its settings
        (folder / SETTINGS_FILE).unlink(missing_ok=True)
    if not same_settings(folder / SETTINGS_FILE, facts):
        raise InsertionError(f"{folder} holds insertions of other settings or another scan; choose another folder.")
