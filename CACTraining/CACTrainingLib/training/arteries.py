"""Draw the atlas from which arteries are suggested from digital patients.

Nothing is scanned: the patients' plaques and their other calcium are drawn as points at a moment of a scan (pose and
heart beat), and placed in the frame that `scoring.arteries` finds from a heart mask.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from scipy import ndimage

from CACScoringLib.core.ct import CTError
from CACScoringLib.core.files import OutputError, atomic_write
from CACScoringLib.core.options import option
from CACScoringLib.core.progress import Progress
from CACScoringLib.models.preprocessing import ELLIPSOID_RADII_PER_SD
from CACScoringLib.scoring.arteries import CELLS, LIMIT, SCHEMA, SUGGESTED, ArteryAtlas

from ..phantom.anatomy.body import draw_body
from ..phantom.anatomy.coronaries import draw_plaques
from ..phantom.anatomy.distractors import draw_distractors
from ..phantom.anatomy.heart import HeartFrame, posed_frame
from ..phantom.anatomy.hearts.shape import HeartShape
from ..phantom.anatomy.patient import draw_heart, move_to_sternum
from ..phantom.anatomy.points import PointCloud
from ..phantom.scanner.motion import PROTOCOLS, HeartBeat, ScanPose, draw_heart_beat, draw_pair
from .settings import RunOptions

NOT_CORONARY = len(SUGGESTED)
_CLASS_OF = {artery.key: number for number, artery in enumerate(SUGGESTED)}
_STEP_MM = 0.7
"""Distance of a plaque's points before a few are drawn from them."""


@dataclass(frozen=True)
class AtlasSettings:
    """Settings of the atlas, recorded in it.

    Attributes:
        seed: Random seed of the patients; cohorts use other seeds, so no cohort shares a patient with the atlas.
        patients: Number of bodies with their vessels.
        draws: Sets of plaques, other calcium and poses drawn for each patient.
        protocol: Acquisition protocol that the poses are drawn from.
        least_mass_mg: Mass below which a deposit is not counted; a threshold of 130 HU rarely detects it.
        points: Points drawn from each deposit, by mass.
        bandwidth: Standard deviation in heart radii of the Gaussian around each point (0.1 is about 6 mm). On exact
            masks of digital hearts 0.05 is better; 0.1 tolerates the errors of real masks.
        outlier_share: Share of each class that may lie anywhere in the atlas.
    """

    seed: int = option(20261120)
    patients: int = 3000
    draws: int = 4
    protocol: str = option("varied", choices=tuple(PROTOCOLS))
    least_mass_mg: float = 3.0
    points: int = 12
    bandwidth: float = 0.1
    outlier_share: float = 0.05

    def __post_init__(self) -> None:
        if self.patients < 1 or self.draws < 1 or self.points < 1:
            raise CTError("An atlas needs at least one patient, one draw of each and one point of each deposit.")
        if not 0 < self.outlier_share < 1 or self.bandwidth <= 0:
            raise CTError("The proportion of outliers has to lie between 0 and 1, and the bandwidth above 0.")


@dataclass(frozen=True)
class Deposit:
    """Calcium of one plaque or of one non-coronary structure.

    Attributes:
        kind: Name of the artery or of the structure.
        mass_mg: Mass of calcium.
        places: Points [n, 3] in the heart's frame: superior, posterior, left.
    """

    kind: str
    mass_mg: float
    places: np.ndarray


def make_atlas(settings: AtlasSettings, progress: Progress | None = None) -> ArteryAtlas:
    """Draw the patients and count where their calcium lies. The same settings give the same atlas."""
    progress = progress or Progress()
    counts = np.zeros((NOT_CORONARY + 1, CELLS, CELLS, CELLS))
    kinds: Counter[str] = Counter()
    for number in range(settings.patients):
        for deposit in patient_deposits(number, settings):
            if deposit.mass_mg >= settings.least_mass_mg:
                kinds[deposit.kind] += 1
                _count(counts[_CLASS_OF.get(deposit.kind, NOT_CORONARY)], deposit.places)
        progress.counted(number + 1, settings.patients)
    per_thousand = 1000 / (settings.patients * settings.draws)
    provenance = {
        "made_from": "digital patients (CACTrainingLib.phantom); no real patient, no network",
        "made_by": "cac train arteries",
        "settings": asdict(settings),
        "patients": settings.patients,
        "deposits": dict(sorted(kinds.items())),
    }
    return ArteryAtlas(_log_rates(counts * per_thousand, settings), provenance)


def patient_deposits(number: int, settings: AtlasSettings) -> Iterator[Deposit]:
    """Yield all calcium of a patient, draw by draw, each in a new pose and at a new moment of the heart beat."""
    g = np.random.default_rng([settings.seed, number])
    body = draw_body(g)
    shape, arteries = g.spawn(2)
    heart, tree = draw_heart(body, shape, arteries)
    body = move_to_sternum(body, heart)
    beat = draw_heart_beat(g)
    vessels = {vessel.name: vessel for vessel in tree.vessels}
    for draw in range(settings.draws):
        _, pose = draw_pair(PROTOCOLS[settings.protocol], g)[draw % 2]
        frame = posed_frame(body, pose)
        mask = mask_frame(heart, frame)
        plaques = draw_plaques(tree, body.sex, g)
        for plaque in plaques:
            cloud = plaque.cloud(vessels[plaque.vessel], _STEP_MM).map(frame.to_lps)
            yield _deposit(plaque.artery, plaque.artery, cloud, mask, beat, pose, settings, g)
        for distractor in draw_distractors(body, tree, bool(plaques), g, heart):
            if not distractor.metal:
                cloud = distractor.place(body, frame, heart)
                yield _deposit(distractor.kind, distractor.group, cloud, mask, beat, pose, settings, g)


def mask_frame(heart: HeartShape, frame: HeartFrame) -> tuple[np.ndarray, np.ndarray]:
    """Return centre of mass and radii of the pericardium in mm along LPS, as `scoring.arteries` measures a mask."""
    inside = frame.to_lps(heart.places_mm[heart.pericardium < 0])
    return inside.mean(axis=0), ELLIPSOID_RADII_PER_SD * inside.std(axis=0)


def _deposit(
    kind: str,
    group: str | None,
    cloud: PointCloud,
    mask: tuple[np.ndarray, np.ndarray],
    beat: HeartBeat,
    pose: ScanPose,
    settings: AtlasSettings,
    generator: np.random.Generator,
) -> Deposit:
    """Draw points of a cloud in LPS, moved to a random phase of the heart beat, in the coordinates of `mask_frame`."""
    share = cloud.weights / cloud.total
    points = cloud.positions_mm[generator.choice(len(share), settings.points, p=share)]
    if group is not None:
        points = points + pose.motion_scale * beat.displacement_mm(group, np.asarray(generator.random()))
    centre, radii = mask
    return Deposit(kind, cloud.total, ((points - centre) / radii)[:, ::-1])


def _count(counts: np.ndarray, places: np.ndarray) -> None:
    """Add one deposit to `counts`, shared among the cells of its points; ignore points outside the atlas."""
    cells = np.rint((places + LIMIT) * (CELLS - 1) / (2 * LIMIT)).astype(int)
    within = ((cells >= 0) & (cells < CELLS)).all(1)
    np.add.at(counts, tuple(cells[within].T), 1 / len(places))


def _log_rates(rates: np.ndarray, settings: AtlasSettings) -> np.ndarray:
    """Smooth the rates and spread each class's outliers evenly, keeping its sum; return logarithms as float32."""
    width = settings.bandwidth * (CELLS - 1) / (2 * LIMIT)
    result = np.empty_like(rates, np.float32)
    for target, rate in zip(result, rates, strict=True):
        total = rate.sum()
        if total == 0:
            raise CTError("A class of the atlas has no lesion. Draw more patients.")
        smooth = ndimage.gaussian_filter(rate, width, mode="constant")
        smooth *= (1 - settings.outlier_share) * total / smooth.sum()
        target[:] = np.log(smooth + settings.outlier_share * total / rate.size)
    return result


PRESETS = {"default": AtlasSettings()}


def write_atlas(atlas: ArteryAtlas, path: Path) -> None:
    """Write an atlas atomically as one .npz file of half precision."""
    provenance = json.dumps({"schema": SCHEMA, **atlas.provenance}, ensure_ascii=False)
    with atomic_write(path) as half:
        np.savez_compressed(half, log_rates=atlas.log_rates.astype(np.float16), provenance=np.array(provenance))


def train(options: RunOptions, settings: AtlasSettings, progress: Progress) -> Path:
    """Make the atlas and write it; returns its path. Raises CTError, OutputError."""
    path = options.output
    if path.suffix != ".npz" or not path.parent.is_dir():
        raise OutputError(f"The atlas cannot be written to {path}: name a file ending in .npz in a folder that exists.")
    if path.exists() and not options.overwrite:
        raise OutputError(f"{path} exists already. Choose another --output, or replace it with --overwrite.")
    progress.begin(["atlas"])
    with progress.step("atlas"):
        write_atlas(make_atlas(settings, progress), path)
    progress.done(path)
    return path
