"""A scan in memory with many lesions, and networks whose answers are known, for tests of what a reader edits."""

import numpy as np
import SimpleITK as sitk
from handmade_networks import AboveBlood, AllSlices, loaded, scan_of

from CACScoringLib.core.ct import CTScan
from CACScoringLib.models.choice import Networks
from CACScoringLib.networks.configs import GeneratorConfig, SliceClassifierConfig

BLOOD_HU = 40
SPACING_MM = (0.7, 0.8, 2.5)


NETWORKS = Networks(loaded(AllSlices(), SliceClassifierConfig()), loaded(AboveBlood(), GeneratorConfig()))


def calcified_scan(seed: int = 4) -> tuple[CTScan, sitk.Image]:
    """A noisy heart of 24 × 96 × 96 voxels with 14 lesions, some touching, and specks of one pixel; and its mask."""
    rng = np.random.default_rng(seed)
    hu = rng.normal(BLOOD_HU, 12, (24, 96, 96))
    k, j, i = np.indices(hu.shape)
    heart = ((k - 12) * 2.5 / 28) ** 2 + ((j - 48) * 0.8 / 34) ** 2 + ((i - 48) * 0.7 / 31) ** 2 < 1
    for _ in range(14):
        centre = rng.integers((6, 25, 25), (18, 70, 70))
        radii = rng.uniform((1, 1.5, 1.5), (2.5, 4.5, 4.5))
        distance = sum(((n - c) / r) ** 2 for n, c, r in zip((k, j, i), centre, radii, strict=True))
        hu += np.where(distance < 1, rng.uniform(120, 500), 0)
    specks = rng.integers((5, 25, 25), (19, 70, 70), (30, 3))
    hu[tuple(specks.T)] = 180
    hu[:, 0] = -1000
    return scan_of(np.rint(hu).astype(np.int16), SPACING_MM, heart)
