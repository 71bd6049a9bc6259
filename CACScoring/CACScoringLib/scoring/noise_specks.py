"""Specks of noise in muscle and chambers, where coronary calcium is absent: the null of a scan's candidates.

Territories far from arteries, valves and vessels ("other" of TERRITORIES) hold as much noise as those of arteries, but
no coronary calcium. Dense specks there show how often noise in this scan, by its kernel and dose, is as large and as
dense as a candidate.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..anatomy.territories import Territories
from ..core.labels import TERRITORIES, NonCoronary
from ..record.scores import LesionSet

MIN_EXPECTED = 0.05
"""Least expected number of specks: a scan cannot tell fewer from none."""

_MUSCLE = TERRITORIES.index("other")


@dataclass(frozen=True)
class NoiseSpecks:
    """Specks in muscle and chambers.

    Attributes:
        voxels: Size of each speck.
        peaks_hu: Peak of each speck.
        shares: Volume of each of TERRITORIES over that of muscle and chambers, [11].
    """

    voxels: np.ndarray
    peaks_hu: np.ndarray
    shares: np.ndarray

    @classmethod
    def of(cls, lesions: LesionSet, territories: Territories) -> NoiseSpecks:
        """Find the specks among all lesions of a scan or map, those of other sites included."""
        elsewhere = [lesion for lesion in lesions.lesions if lesion.site == NonCoronary.OTHER]
        voxels = lesions.part(elsewhere).voxels
        ids = voxels.ids
        probability = territories.at(voxels.flat, voxels.shape)[:, _MUSCLE] if len(ids) else np.zeros(0)
        count = int(ids.max(initial=0)) + 1
        is_in_muscle = np.bincount(ids, probability, count) > 0.5 * np.bincount(ids, minlength=count)
        specks = [lesion for lesion in elsewhere if is_in_muscle[lesion.id]]
        volumes = np.bincount(territories.probability.argmax(0).reshape(-1), minlength=len(TERRITORIES))
        return cls(
            np.array([speck.voxels for speck in specks], int),
            np.array([speck.peak_hu for speck in specks], float),
            volumes / max(int(volumes[_MUSCLE]), 1),
        )

    def rarity(self, lesions: LesionSet) -> np.ndarray:
        """Return the negative logarithm of how many specks as large and dense as each lesion noise makes in its artery.

        Args:
            lesions: Lesions of arteries.

        Returns:
            float [n], from −ln of the specks' number to −ln(MIN_EXPECTED).
        """
        counts = [
            np.count_nonzero((self.voxels >= lesion.voxels) & (self.peaks_hu >= lesion.peak_hu))
            * self.shares[lesion.site]
            for lesion in lesions.lesions
        ]
        return -np.log(np.maximum(np.array(counts, float), MIN_EXPECTED))
